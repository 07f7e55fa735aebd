//! Every operation with every kind of credential. The table of `spec/credentials.txt` says
//! which ones it takes; an operation that is not in it fails the test.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use axum::body::Body;
use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};
use warren_api::{ApiConfig, operations, own_operations};
use warren_control::{By, Limits, NewKey, TeamChange};
use warren_service::{Peer, Secret};
use warren_types::{Role, TeamId, TeamState};

use crate::server::{Answer, Server};

const TABLE: &str = include_str!("../../../../spec/credentials.txt");
const ADMIN: &str = "the administrator's token of the test";
/// Where its requests come from.
const ORIGIN: &str = "192.0.2.7:4711";
const READ_ONLY: &str = "this key or token may only read";

type Headers<'a> = &'a [(&'a str, &'a str)];

/// An operation with the credentials it takes.
struct Row {
    method: &'static str,
    path: &'static str,
    takes: BTreeSet<&'static str>,
}

impl Row {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Whether a credential that may only read has to be refused.
    fn writes(&self) -> bool {
        // These tell what is enough to change things.
        let tells = [
            "/volumes/{volumeID}",
            "/templates/{templateID}/files/{hash}",
        ];
        self.method != "GET" || tells.contains(&self.path)
    }
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, takes) = line
                .split_once(": ")
                .expect("an operation and what it takes");
            let (method, path) = name.split_once(' ').unwrap();
            Row {
                method,
                path,
                takes: takes.split(' ').collect(),
            }
        })
        .collect()
}

/// A body that every operation finds what it needs in.
fn body() -> Value {
    json!({
        "templateID": "base", "timeout": 60, "duration": 60, "name": "matrix",
        "public": false, "tags": ["matrix"], "target": "private", "status": "ready",
        "role": "viewer", "email": "matrix@example.com", "memory": false, "value": "x",
        "url": "https://example.com", "events": ["sandbox.lifecycle.killed"],
    })
}

/// What is there to be reached.
struct World {
    server: Server,
    /// Values of path parameters that name what the team has.
    real: Vec<(&'static str, String)>,
    read_key: String,
    expired_key: String,
    other_key: String,
    member: String,
    viewer: String,
    other_team: TeamId,
}

impl World {
    async fn new() -> Self {
        let config = ApiConfig {
            admin_token: Some(Secret::new(ADMIN.to_owned())),
            ..ApiConfig::default()
        };
        let server = Server::with(Limits::default(), config).await;
        let (by, team) = (By::SYSTEM, server.team.id);
        let sandbox = server.create(json!({"timeout": 3000})).await;
        let built = server
            .post("/v3/templates", json!({"name": "private"}))
            .await;
        let built = built.expect(202);
        let webhook = json!({
            "name": "w", "url": "https://example.com", "enabled": true,
            "events": ["sandbox.lifecycle.killed"],
        });
        let webhook = server.post("/events/webhooks", webhook).await.expect(201);
        let key = server.control.key_create(&by, team, NewKey::named("k"));
        let key = key.await.unwrap().view.record.id;
        let user = server.control.user_create(&by, "a@b.c").await.unwrap().id;
        let joined = server
            .control
            .member_set(&by, team, user, Role::Member, false);
        joined.await.unwrap();
        let token = server.control.token_create(&by, user, NewKey::named("t"));
        let token = token.await.unwrap().record.id;
        let soon = NewKey {
            expires_at: Some(Timestamp::now() + std::time::Duration::from_millis(200)),
            ..NewKey::named("soon")
        };
        let expired = server.control.key_create(&by, team, soon).await.unwrap();
        let secret = json!({"name": "kept", "value": "x"});
        let secret = server.post("/secrets", secret).await.expect(201);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let real = vec![
            ("sandboxID", sandbox),
            ("templateID", text(&built["templateID"])),
            ("buildID", text(&built["buildID"])),
            ("webhookID", text(&webhook["id"])),
            ("apiKeyID", key.to_string()),
            ("accessTokenID", token.to_string()),
            ("teamID", team.to_string()),
            ("userID", user.to_string()),
            ("nodeID", "local".to_owned()),
            ("alias", "private".to_owned()),
            ("tag", "default".to_owned()),
            ("hash", "0".repeat(64)),
            (
                "volumeID",
                "00000000-0000-4000-8000-000000000001".to_owned(),
            ),
            ("secretID", text(&secret["secretID"])),
        ];
        let other_key = server.other_key().await;
        let other_team = server.control.team_find("other").await.unwrap().id;
        let world = Self {
            read_key: server.read_key().await,
            expired_key: expired.clear.expose().to_owned(),
            member: server.token(Role::Member).await,
            viewer: server.token(Role::Viewer).await,
            other_key,
            other_team,
            real,
            server,
        };
        while Timestamp::now() <= expired.view.record.expires_at.unwrap() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        world
    }

    /// The path with what the team has.
    fn there(&self, row: &Row) -> String {
        self.real
            .iter()
            .fold(row.path.to_owned(), |path, (name, value)| {
                path.replace(&format!("{{{name}}}"), value)
            })
    }

    /// The path with ids of the right form that nothing has.
    fn nowhere(row: &Row) -> String {
        let id = "00000000-0000-4000-8000-00000000dead";
        let mut path = row.path.replace("{sandboxID}", "inothing");
        for name in ["templateID", "alias", "tag", "nodeID", "secretID"] {
            path = path.replace(&format!("{{{name}}}"), "nothing");
        }
        let (mut text, mut rest) = (String::new(), path.as_str());
        while let Some((before, after)) = rest.split_once('{') {
            text.push_str(before);
            text.push_str(id);
            rest = after.split_once('}').unwrap().1;
        }
        text + rest
    }

    async fn ask(&self, row: &Row, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(row.method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .header("content-type", "application/json")
            .extension(Peer(ORIGIN.parse().unwrap()));
        let body = if row.method == "GET" {
            Body::empty()
        } else {
            Body::from(body().to_string())
        };
        self.server.send(request.body(body).unwrap()).await
    }

    /// Whether a credential got as far as the handler.
    fn let_in(answer: &Answer) -> bool {
        let refusals = [
            READ_ONLY,
            "you are not a member of this team",
            "your team is",
        ];
        // An answer may tell of what was refused before.
        let is_refusal = || refusals.iter().any(|text| answer.text.contains(text));
        answer.status.is_success() || (answer.status != 401 && !is_refusal())
    }
}

#[test]
fn every_operation_is_in_the_table() {
    let served = operations().into_iter().chain(own_operations());
    let served: BTreeSet<_> = served
        .map(|operation| format!("{} {}", operation.method, operation.path))
        .collect();
    let listed: BTreeSet<_> = rows().iter().map(Row::name).collect();
    assert_eq!(served, listed);
}

#[tokio::test]
async fn only_the_listed_credentials_are_taken() {
    let world = World::new().await;
    let team = world.server.team.id.to_string();
    let member = format!("Bearer {}", world.member);
    for row in rows() {
        let (name, path) = (row.name(), World::nowhere(&row));
        let is_open = row.takes.contains("open");
        let takes = |any: &[&str]| is_open || any.iter().any(|one| row.takes.contains(one));
        let person = [("authorization", member.as_str())];
        let in_team = [person[0], ("x-team-id", team.as_str())];
        let admin = [("x-admin-token", ADMIN)];
        let for_team = [admin[0], ("x-team-id", team.as_str())];
        let old = [
            ("x-supabase-token", world.member.as_str()),
            ("x-supabase-team", team.as_str()),
        ];
        let zero = format!("e2b_{}", "0".repeat(40));
        let cases: [(&str, Headers<'_>, bool); 13] = [
            ("no credential", &[], is_open),
            ("an unknown key", &[("x-api-key", &zero)], is_open),
            ("no key", &[("x-api-key", "abc")], is_open),
            (
                "an expired key",
                &[("x-api-key", &world.expired_key)],
                is_open,
            ),
            ("no bearer", &[("authorization", "Bearer x")], is_open),
            (
                "a wrong administrator",
                &[("x-admin-token", "wrong"), for_team[1]],
                is_open,
            ),
            ("a key as a bearer", &[("authorization", &zero)], is_open),
            (
                "a key",
                &[("x-api-key", &world.server.key)],
                takes(&["key"]),
            ),
            ("a person", &person, takes(&["token", "user"])),
            (
                "a person in a team",
                &in_team,
                takes(&["token", "user", "user+team"]),
            ),
            (
                "the same, in old words",
                &old,
                takes(&["token", "user", "user+team"]),
            ),
            ("the administrator", &admin, takes(&["admin"])),
            (
                "the administrator in a team",
                &for_team,
                takes(&["admin", "admin+team"]),
            ),
        ];
        for (credential, headers, expected) in cases {
            let answer = world.ask(&row, &path, headers).await;
            let found = World::let_in(&answer);
            assert_eq!(found, expected, "{name} with {credential}: {}", answer.text);
            // Where volumes are, errors have a shape of their own.
            if !expected && !row.takes.contains("volume") {
                assert_eq!(
                    answer.json()["code"],
                    json!(401),
                    "{name} with {credential}"
                );
            }
        }
    }
}

#[tokio::test]
async fn whoever_may_only_read_changes_nothing() {
    let world = World::new().await;
    let team = world.server.team.id.to_string();
    let viewer = format!("Bearer {}", world.viewer);
    for row in rows() {
        let (name, path) = (row.name(), world.there(&row));
        let key = [("x-api-key", world.read_key.as_str())];
        let person = [
            ("authorization", viewer.as_str()),
            ("x-team-id", team.as_str()),
        ];
        let as_key = row.takes.contains("key").then_some(&key[..]);
        let is_person = ["token", "user", "user+team"];
        let as_person = is_person.iter().any(|one| row.takes.contains(one));
        let as_person = as_person.then_some(&person[..]);
        for headers in [as_key, as_person].into_iter().flatten() {
            let answer = world.ask(&row, &path, headers).await;
            if row.writes() {
                assert_eq!(answer.error(403), READ_ONLY, "{name}");
            } else {
                assert!(World::let_in(&answer), "{name}: {}", answer.text);
                // No value here is longer, and secrets are.
                let told = answer.text.contains("envdAccessToken\":\"")
                    || answer.text.contains("trafficAccessToken\":\"");
                assert!(!told, "{name}: {}", answer.text);
            }
        }
    }
    still_there(&world).await;
}

#[tokio::test]
async fn another_team_reaches_nothing() {
    let world = World::new().await;
    let key = [("x-api-key", world.other_key.as_str())];
    for row in rows() {
        if !row.takes.contains("key") || !row.path.contains('{') {
            continue;
        }
        let name = row.name();
        let answer = world.ask(&row, &world.there(&row), &key).await;
        if answer.status.is_success() {
            // Nothing is told of it: it could as well not be there.
            let nowhere = world.ask(&row, &World::nowhere(&row), &key).await;
            assert_eq!(answer.text, nowhere.text, "{name}");
            assert_eq!(row.method, "GET", "{name}");
        } else {
            assert!(
                answer.status.is_client_error() || answer.status == 501,
                "{name}"
            );
        }
    }
    still_there(&world).await;
    let team = world.other_team.to_string();
    let member = format!("Bearer {}", world.member);
    for row in rows().iter().filter(|row| row.takes.contains("user+team")) {
        let headers = [
            ("authorization", member.as_str()),
            ("x-team-id", team.as_str()),
        ];
        let answer = world.ask(row, &world.there(row), &headers).await;
        let text = "you are not a member of this team";
        assert_eq!(answer.error(403), text, "{}", row.name());
    }
}

#[tokio::test]
async fn blocked_teams_read_and_delete_and_banned_ones_do_nothing() {
    let world = World::new().await;
    let key = [("x-api-key", world.other_key.as_str())];
    for state in [TeamState::Blocked, TeamState::Banned] {
        let change = TeamChange {
            state: Some(state),
            ..TeamChange::default()
        };
        let control = &world.server.control;
        let changed = control.team_update(&By::SYSTEM, world.other_team, change);
        changed.await.unwrap();
        for row in rows().iter().filter(|row| row.takes.contains("key")) {
            let answer = world.ask(row, &World::nowhere(row), &key).await;
            let may = state == TeamState::Blocked && (!row.writes() || row.method == "DELETE");
            assert_eq!(
                World::let_in(&answer),
                may,
                "{state} {}: {}",
                row.name(),
                answer.text
            );
            if !may {
                answer.error(403);
            }
        }
    }
}

/// What is in volumes is changed by tokens of theirs, for which there must be a volume: a test
/// of the whole server does that.
#[tokio::test]
async fn every_change_leaves_an_entry_of_who_did_what_and_from_where() {
    let world = World::new().await;
    let member = format!("Bearer {}", world.member);
    let team = world.server.team.id.to_string();
    let mut rows = rows();
    rows.retain(|row| row.writes() && !row.takes.contains("volume"));
    // What is deleted is still there for the others, and above it what it is a part of.
    rows.sort_by_key(|row| (row.method == "DELETE", Reverse(row.path.len())));
    for row in rows {
        let name = row.name();
        let key = [("x-api-key", world.server.key.as_str())];
        let admin = [("x-admin-token", ADMIN)];
        let person = [
            ("authorization", member.as_str()),
            ("x-team-id", team.as_str()),
        ];
        let (headers, actor): (Headers<'_>, _) = if row.takes.contains("key") {
            (&key, "key")
        } else if row.takes.contains("admin") {
            (&admin, "admin")
        } else {
            (&person, "user")
        };
        let answer = world.ask(&row, &world.there(&row), headers).await;
        let request = answer.header("x-request-id").expect(&name);
        let path = format!("/admin/audit?requestID={request}");
        let asked = Request::get(path).header("x-admin-token", ADMIN);
        let entries = world.server.send(asked.body(Body::empty()).unwrap()).await;
        let entries = entries.expect(200);
        let entries = entries.as_array().unwrap();
        assert!(!entries.is_empty(), "{name}: {}", answer.text);
        let failed = !answer.status.is_success();
        for entry in entries {
            assert_eq!(entry["actor"], json!(actor), "{name}");
            assert_eq!(entry["actorID"].is_string(), actor != "admin", "{name}");
            assert_eq!(entry["origin"], json!("192.0.2.7"), "{name}");
            let has_target = entry["target"].is_string();
            assert!(
                has_target || failed || !row.path.contains('{'),
                "{name}: {entry}"
            );
            if failed {
                assert_eq!(entry["action"], json!(name));
                assert_eq!(entry["status"], json!(answer.status.as_u16()), "{name}");
                assert_eq!(entry["reason"], answer.json()["message"], "{name}");
            }
        }
    }
}

/// Nothing of what the team has is gone or changed.
async fn still_there(world: &World) {
    let server = &world.server;
    for (name, path) in [
        ("sandboxID", "/sandboxes/{}"),
        ("webhookID", "/events/webhooks/{}"),
        ("templateID", "/templates/{}"),
    ] {
        let (_, id) = world.real.iter().find(|(key, _)| *key == name).unwrap();
        server.get(&path.replace("{}", id)).await.expect(200);
    }
    let (_, id) = &world.real[0];
    let detail = server.get(&format!("/sandboxes/{id}")).await.expect(200);
    assert_eq!(detail["state"], json!("running"));
    assert!(crate::server::is_about(&detail["endAt"], 3000));
    let listed = server.listed("").await;
    assert_eq!(listed.len(), 1, "{listed:?}");
    let keys = server.control.key_list(server.team.id).await.unwrap();
    assert!(keys.iter().any(|key| key.record.name == "k"));
}
