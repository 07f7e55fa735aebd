//! Volumes: whose they are, and what is answered. Content needs no mounts to be refused.

use serde_json::json;
use warren_types::VolumeId;

use crate::server::Server;

#[tokio::test]
async fn a_server_without_volumes_says_so() {
    let server = Server::start().await;
    let id = VolumeId::random();
    let text = "use of volumes is not enabled";
    assert_eq!(server.get("/volumes").await.error(403), text);
    assert_eq!(server.get(&format!("/volumes/{id}")).await.error(403), text);
    assert_eq!(
        server
            .post("/volumes", json!({"name": "v"}))
            .await
            .error(403),
        text
    );
    assert_eq!(
        server.get("/volumes/nonsense").await.error(400),
        "Invalid volume ID"
    );
    let answer = server
        .get(&format!("/volumecontent/{id}/path?path=/"))
        .await;
    assert_eq!(
        answer.expect(401),
        json!({"code": "unauthorized", "message": "Unauthorized"})
    );
}
