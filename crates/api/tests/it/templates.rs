//! Check 98 of the API contract, and lists of templates.

use serde_json::{Value, json};

use crate::server::Server;

#[tokio::test]
async fn aliases() {
    let server = Server::start().await;
    let image = server
        .control
        .register_build(crate::server::base())
        .await
        .unwrap();
    let id = image.template_id.to_string();
    let known = json!({"templateID": id, "public": true});
    for alias in ["base", "Base", "base%3Adefault", &id] {
        let answer = server.get(&format!("/templates/aliases/{alias}")).await;
        assert_eq!(answer.expect(200), known, "{alias}");
    }
    let text = server.get("/templates/aliases/nope").await.error(404);
    assert_eq!(text, "template 'nope' not found");
    // One segment, although it decodes to a slash.
    let own = server.get("/templates/aliases/default%2Fx").await;
    assert_eq!(own.error(404), "template 'default/x' not found");
    let foreign = server.get("/templates/aliases/team%2Fx").await;
    assert_eq!(
        foreign.error(400),
        "namespace 'team' must match your team 'default'"
    );
    let tag = server.get("/templates/aliases/base%3Av9").await;
    assert_eq!(
        tag.error(404),
        "tag 'v9' does not exist for template 'base'"
    );
    server.get("/templates/aliases/a%20b").await.error(400);
    server.get("/templates/aliases/%ff").await.error(400);
}

#[tokio::test]
async fn a_private_template_exists_for_others_but_is_not_theirs() {
    let server = Server::start().await;
    let spec = warren_control::BuildSpec {
        public: false,
        ..crate::server::base()
    };
    let id = server
        .control
        .register_build(spec)
        .await
        .unwrap()
        .template_id;
    let other = server.other_key().await;
    let path = format!("/templates/aliases/{id}");
    let answer = server.call_as(&other, "GET", &path, None).await;
    assert_eq!(
        answer.error(403),
        "You don't have access to this template alias"
    );
    let answer = server
        .call_as(&other, "GET", &format!("/templates/{id}"), None)
        .await;
    let text = format!("You don't have access to this sandbox template ({id})");
    assert_eq!(answer.error(403), text);
}

#[tokio::test]
async fn lists_and_builds() {
    let server = Server::start().await;
    let image = server
        .control
        .register_build(crate::server::base())
        .await
        .unwrap();
    let id = image.template_id.to_string();
    let list = server.get("/templates").await.expect(200);
    assert_eq!(list.as_array().unwrap().len(), 1);
    let base = &list[0];
    assert_eq!(base["templateID"], json!(id));
    assert_eq!(base["buildID"], json!(image.build_id.to_string()));
    assert_eq!(
        (&base["aliases"], &base["names"]),
        (&json!(["base"]), &json!(["base"]))
    );
    assert_eq!(
        (&base["buildStatus"], &base["buildCount"]),
        (&json!("ready"), &json!(1))
    );
    assert_eq!(
        (&base["envdVersion"], &base["createdBy"]),
        (&json!("0.6.13"), &Value::Null)
    );
    assert_eq!(server.get("/v2/templates").await.expect(200), list);
    let team = server.team.id;
    server
        .get(&format!("/templates?teamID={team}"))
        .await
        .expect(200);
    let mismatch = server.get("/templates?teamID=x").await;
    assert_eq!(
        mismatch.error(400),
        "Team ID param mismatch with the API key"
    );
    let other = server.other_key().await;
    let foreign = server
        .call_as(&other, "GET", "/templates", None)
        .await
        .expect(200);
    assert_eq!(foreign, json!([]));

    let mut spec = crate::server::base();
    spec.layers = vec!["sha256-def".to_owned()];
    let newer = server.control.register_build(spec).await.unwrap();
    let first = server.get(&format!("/templates/{id}?limit=1")).await;
    let token = first.header("x-next-token").unwrap().to_owned();
    assert_eq!(
        first.json()["builds"][0]["buildID"],
        json!(newer.build_id.to_string())
    );
    let rest = server
        .get(&format!("/templates/{id}?limit=1&nextToken={token}"))
        .await;
    assert_eq!(rest.header("x-next-token"), None);
    assert_eq!(
        rest.json()["builds"][0]["buildID"],
        json!(image.build_id.to_string())
    );
    let unknown = server.get("/templates/nope").await;
    assert_eq!(unknown.error(404), "Template nope not found");
    let bad = server.get(&format!("/templates/{id}?nextToken=x")).await;
    assert_eq!(bad.error(400), "Invalid next token");
}

#[tokio::test]
async fn the_servers_own_templates() {
    let server = Server::start().await;
    server.built(json!({"name": "mine"})).await;
    server.create(json!({})).await;
    server.control.stop(std::time::Duration::from_secs(1)).await;
    let server = server.restart().await;
    let list = server.get("/default-templates").await.expect(200);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(
        (&list[0]["names"], &list[0]["spawnCount"]),
        (&json!(["base"]), &json!(1))
    );
    let other = server.other_key().await;
    let list = server
        .call_as(&other, "GET", "/default-templates", None)
        .await
        .expect(200);
    assert_eq!(
        (&list[0]["names"], &list[0]["spawnCount"]),
        (&json!(["base"]), &json!(0))
    );
}
