//! Checks 56-60 of the contract of templates.

use serde_json::{Value, json};
use warren_types::EndReason;

use crate::server::Server;

impl Server {
    async fn tags(&self, template: &str) -> Vec<(String, String)> {
        let list = self
            .get(&format!("/templates/{template}/tags"))
            .await
            .expect(200);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let entry = |tag: &Value| (text(&tag["tag"]), text(&tag["buildID"]));
        list.as_array().unwrap().iter().map(entry).collect()
    }

    async fn build_of(&self, template: &str) -> String {
        self.create(json!({"templateID": template})).await;
        let requests = self.node.requests.lock().unwrap();
        requests.last().unwrap().image.build_id.to_string()
    }
}

#[tokio::test]
async fn tags_are_given_and_taken() {
    let server = Server::start().await;
    let first = server.built(json!({"name": "t"})).await;
    let body = json!({"target": "t", "tags": ["V1", "stable"]});
    let answer = server.post("/templates/tags", body).await.expect(201);
    assert_eq!(
        answer,
        json!({"buildID": first.build, "tags": ["stable", "v1"]})
    );
    let second = server.built(json!({"name": "t"})).await;
    let pair = |tag: &str, build: &str| (tag.to_owned(), build.to_owned());
    let (one, two) = (first.build.as_str(), second.build.as_str());
    let expected = [pair("default", two), pair("stable", one), pair("v1", one)];
    assert_eq!(server.tags("t").await, expected);
    assert_eq!(server.tags(&first.template).await, expected);
    assert_eq!(server.tags("default%2Ft").await, expected);

    // The newest assignment wins, also of an older build; an unfinished build hides none.
    let body = json!({"target": "default/t:v1", "tags": ["default"]});
    server.post("/templates/tags", body).await.expect(201);
    assert_eq!(server.build_of("t").await, one);
    server.request(json!({"name": "t"})).await;
    assert_eq!(server.build_of("t").await, one);
    let by_id = json!({"target": format!("t:{two}"), "tags": ["v2"]});
    server.post("/templates/tags", by_id).await.expect(201);
    assert_eq!(server.build_of("t:v2").await, two);

    let remove = async |body: Value| {
        server
            .call_as(&server.key, "DELETE", "/templates/tags", Some(body))
            .await
    };
    remove(json!({"name": "t", "tags": ["v1", "never"]}))
        .await
        .expect(204);
    assert!(server.tags("t").await.iter().all(|(tag, _)| tag != "v1"));
    let text = remove(json!({"name": "t", "tags": ["Default"]}))
        .await
        .error(400);
    assert_eq!(text, "Cannot delete the 'default' tag");
    let text = remove(json!({"name": "t:v1", "tags": ["v1"]}))
        .await
        .error(400);
    assert_eq!(
        text,
        "Template name should not contain a tag, use the 'tags' field instead"
    );
    remove(json!({"name": "nope", "tags": ["v1"]}))
        .await
        .error(404);
}

#[tokio::test]
async fn bad_assignments() {
    let server = Server::start().await;
    server.built(json!({"name": "t:v1"})).await;
    let refused = async |status: u16, target: &str, tags: Value| {
        let body = json!({"target": target, "tags": tags});
        server.post("/templates/tags", body).await.error(status)
    };
    assert_eq!(
        refused(400, "t:v1", json!([])).await,
        "At least one tag is required"
    );
    let text = refused(404, "t", json!(["x"])).await;
    assert_eq!(text, "Template 't' with tag 'default' not found");
    let text = refused(400, "t:v1", json!(["a b"])).await;
    assert_eq!(text, "Invalid tag: invalid tag 'a b': invalid tag: a b");
    assert_eq!(
        refused(404, "nope", json!(["x"])).await,
        "template 'nope' not found"
    );
    let text = refused(400, "other/t:v1", json!(["x"])).await;
    assert_eq!(text, "namespace 'other' must match your team 'default'");
    let other = server.other_key().await;
    let body = Some(json!({"target": "base", "tags": ["x"]}));
    let answer = server
        .call_as(&other, "POST", "/templates/tags", body)
        .await;
    assert_eq!(
        answer.error(403),
        "You don't have access to template 'base'"
    );
    server
        .call_as(&other, "GET", "/templates/base/tags", None)
        .await
        .error(403);
    server
        .call_as(&other, "GET", "/templates/base/tags/count", None)
        .await
        .error(404);
}

#[tokio::test]
async fn tags_for_dashboards() {
    let server = Server::start().await;
    server.built(json!({"name": "t", "tags": ["a", "b"]})).await;
    let newest = server.built(json!({"name": "t", "tags": ["b"]})).await;
    let get = async |path: &str| {
        server
            .get(&format!("/templates/t/tags/{path}"))
            .await
            .expect(200)
    };
    assert_eq!(get("count").await, json!({"total": 2}));
    assert_eq!(
        get("exists?tag=B").await,
        json!({"exists": true, "normalizedTag": "b"})
    );
    assert_eq!(get("exists?tag=c").await, json!({"exists": false}));
    let groups = get("groups?assignmentLimit=1&tagsLimit=1").await;
    let group = &groups["tags"][0];
    assert_eq!(
        (&group["tag"], &group["hasMore"]),
        (&json!("b"), &json!(true))
    );
    assert_eq!(group["assignments"][0]["buildID"], json!(newest.build));
    let rest = get(&format!(
        "groups?tagsCursor={}",
        groups["nextCursor"].as_str().unwrap()
    ))
    .await;
    assert_eq!(
        (&rest["tags"][0]["tag"], &rest["nextCursor"]),
        (&json!("a"), &Value::Null)
    );
    assert_eq!(
        get("groups?search=A&sort=name_asc").await["tags"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let first = get("b/assignments?limit=1").await;
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = get(&format!("b/assignments?cursor={cursor}")).await;
    assert_ne!(
        first["data"][0]["assignmentID"],
        second["data"][0]["assignmentID"]
    );
    assert_eq!(second["nextCursor"], Value::Null);
}

#[tokio::test]
async fn existence() {
    let server = Server::start().await;
    server.built(json!({"name": "t:v1"})).await;
    let exists = async |key: &str, name: &str| {
        let path = format!("/templates/aliases/{name}");
        server
            .call_as(key, "GET", &path, None)
            .await
            .status
            .as_u16()
    };
    let own = &server.key;
    assert_eq!(exists(own, "t").await, 200);
    assert_eq!(exists(own, "t%3Av1").await, 200);
    assert_eq!(exists(own, "t%3Amissing").await, 404);
    assert_eq!(exists(own, "missing").await, 404);
    let other = server.other_key().await;
    assert_eq!(exists(&other, "base").await, 403);
    assert_eq!(exists(&other, "t").await, 404);
    assert_eq!(exists(&other, "default%2Ft").await, 400);
}

#[tokio::test]
async fn publishing() {
    let server = Server::start().await;
    let build = server.built(json!({"name": "t"})).await;
    let other = server.other_key().await;
    let spawn = async |name: &str| {
        let body = Some(json!({"templateID": name}));
        server.call_as(&other, "POST", "/v2/sandboxes", body).await
    };
    assert_eq!(
        spawn("default/t").await.error(404),
        "template 'default/t' not found"
    );
    let answer = server
        .patch("/v2/templates/t", json!({"public": true}))
        .await
        .expect(200);
    assert_eq!(answer, json!({"names": ["default/t"]}));
    spawn("default/t").await.expect(201);
    spawn(&build.template).await.expect(201);
    assert_eq!(
        spawn("t").await.error(404),
        "template 't' not found",
        "its name is not global"
    );
    let theirs = async |method: &str, path: &str, body: Option<Value>| {
        server.call_as(&other, method, path, body).await
    };
    let path = format!("/templates/{}", build.template);
    let text = theirs("DELETE", &path, None).await.error(403);
    assert_eq!(
        text,
        format!("You don't have access to template '{}'", build.template)
    );
    theirs("DELETE", "/templates/t", None).await.error(404);
    theirs("DELETE", "/templates/default%2Ft", None)
        .await
        .error(404);
    theirs(
        "PATCH",
        &format!("/v2{path}"),
        Some(json!({"public": false})),
    )
    .await
    .error(403);
    theirs("PATCH", "/v2/templates/nope", Some(json!({})))
        .await
        .error(404);
    assert_eq!(
        theirs("GET", "/templates", None).await.expect(200),
        json!([])
    );
    server.patch("/v2/templates/t", json!({})).await.expect(200);
    spawn("default/t").await.expect(201);
    server
        .patch("/v2/templates/t", json!({"public": false}))
        .await
        .expect(200);
    spawn("default/t").await.error(404);
}

#[tokio::test]
async fn the_old_way_to_publish_claims_the_bare_name() {
    let server = Server::start().await;
    let build = server.built(json!({"name": "t"})).await;
    let other = server.other_key().await;
    let answer = server.patch("/templates/t", json!({"public": true})).await;
    assert_eq!(answer.expect(200), Value::Null);
    let body = Some(json!({"templateID": "t"}));
    let sandbox = server
        .call_as(&other, "POST", "/v2/sandboxes", body)
        .await
        .expect(201);
    assert_eq!(sandbox["templateID"], json!(build.template));
    let body = Some(json!({"name": "t"}));
    let theirs = server
        .call_as(&other, "POST", "/v3/templates", body)
        .await
        .expect(202);
    assert_ne!(theirs["templateID"], json!(build.template));
    let body = Some(json!({"public": true}));
    let taken = server
        .call_as(&other, "PATCH", "/templates/t", body)
        .await
        .error(409);
    assert!(
        taken.starts_with(
            "Public template name 't' is already taken. Your template is available at 'other/t'."
        ),
        "{taken}"
    );
    // Its owner may do it again.
    server
        .patch("/templates/t", json!({"public": true}))
        .await
        .expect(200);
}

#[tokio::test]
async fn deleting() {
    let server = Server::start().await;
    let build = server.built(json!({"name": "t"})).await;
    let other = server.other_key().await;
    server
        .patch("/v2/templates/t", json!({"public": true}))
        .await
        .expect(200);
    let body = Some(json!({"templateID": build.template}));
    let foreign = server
        .call_as(&other, "POST", "/v2/sandboxes", body)
        .await
        .expect(201);
    let sandbox = server.create(json!({"templateID": "t"})).await;
    let text = server.delete("/templates/t").await.error(400);
    let why = format!(
        "cannot delete template '{}' because there are running sandboxes using it",
        build.template
    );
    assert_eq!(text, why);
    let id = sandbox.parse().unwrap();
    server.node.die(&id, EndReason::Killed).await;
    server.until(&format!("/sandboxes/{sandbox}"), 404).await;
    let running = server.request(json!({"name": "t:next"})).await;
    let wait = json!({"type": "WAIT"});
    server.start_build(&running, &[wait]).await.expect(202);
    server.delete("/templates/t").await.expect(204);
    server.delete("/templates/t").await.error(404);
    server
        .delete(&format!("/templates/{}", build.template))
        .await
        .error(404);
    let path = format!(
        "/templates/{}/builds/{}/status",
        running.template, running.build
    );
    let status = server.get(&path).await.expect(200);
    assert_eq!(status["reason"]["message"], "build was cancelled");
    let body = json!({"templateID": "t"});
    server.post("/v2/sandboxes", body).await.error(404);
    let kept = format!("/sandboxes/{}", foreign["sandboxID"].as_str().unwrap());
    server.call_as(&other, "GET", &kept, None).await.expect(200);
    let again = server.request(json!({"name": "t"})).await;
    assert_ne!(again.template, build.template, "the name is free");
    let answer = server
        .post("/v3/templates", json!({"name": build.template}))
        .await;
    answer.error(409);
}
