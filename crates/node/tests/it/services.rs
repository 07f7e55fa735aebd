//! What the host serves to sandboxes.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use warren_node::services::Events;
use warren_service::Tasks;
use warren_types::SandboxId;

#[tokio::test]
async fn a_sandbox_learns_its_id_and_a_stranger_does_not() {
    let tasks = Tasks::new();
    let id = SandboxId::random();
    let known = id.clone();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let is_known = |peer: std::net::IpAddr| peer.to_string() == "127.0.0.1";
    let service = Events::new(
        move |peer| is_known(peer).then(|| known.clone()),
        move |peer| is_known(peer).then_some(3),
    );
    tasks.spawn(service.serve(listener, tasks.clone()));
    for (path, expected) in [
        ("/me", format!("{{\"sandboxID\":\"{id}\"}}")),
        ("/me/memory", "{\"oomKills\":3}".to_owned()),
        ("/x", "not found".to_owned()),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(&expected), "{answer}");
    }
    // Some clients end their side with the request.
    for _ in 0..200 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /me HTTP/1.0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("sandboxID"), "{answer}");
    }
    assert_eq!(tasks.stop(Duration::from_secs(5)).await, 0);
}
