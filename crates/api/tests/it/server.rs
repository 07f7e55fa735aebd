//! A whole control plane in a temporary directory.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use warren_api::{ApiConfig, router};
use warren_control::{
    ArchiveLimits, BuildConfig, BuildSpec, By, Control, ControlConfig, Identity, Limits, LocalKey,
    NewKey, NewTeam, PressureConfig, Sealer, Team, WebhookConfig,
};
use warren_service::Secret;
use warren_store::Store;
use warren_types::{KeyScope, Resources, Role, UserId};
use warren_webhook::{Sender, SenderConfig};

use crate::builder::FakeBuilder;
use crate::node::FakeNode;

pub(crate) const TOKEN_KEY: &str = "token key of the tests";

pub(crate) struct Server {
    pub(crate) router: Router,
    pub(crate) control: Arc<Control>,
    pub(crate) node: Arc<FakeNode>,
    pub(crate) builder: Arc<FakeBuilder>,
    pub(crate) key: String,
    pub(crate) team: Team,
    pub(crate) dir: TempDir,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("{error}: {} {:?}", self.status, self.text))
    }

    /// The body, of an answer that must have this status.
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// The message of an error, which must be of the documented form.
    pub(crate) fn error(self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/json");
        let body = self.json();
        assert_eq!(body["code"], json!(status));
        body["message"].as_str().expect("a message").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) fn base() -> BuildSpec {
    BuildSpec {
        alias: "base".to_owned(),
        public: true,
        layers: vec!["sha256-abc".to_owned()],
        env: [("PATH".to_owned(), "/usr/bin".to_owned())].into(),
        default_user: "user".to_owned(),
        default_workdir: None,
        start: None,
        resources: Resources::default(),
        warm: true,
    }
}

/// After this a sandbox counts as idle.
pub(crate) const IDLE: Duration = Duration::from_millis(300);

/// Largest archive that the tests' server takes.
pub(crate) const MAX_ARCHIVE: u64 = 1024 * 1024;

async fn control(
    dir: &TempDir,
    node: Arc<FakeNode>,
    builder: Arc<FakeBuilder>,
    limits: Limits,
) -> Arc<Control> {
    let store = Store::open(&dir.path().join("warren.db")).await.unwrap();
    let config = ControlConfig {
        domain: Some("localhost:3000".to_owned()),
        limits,
        build: Some(BuildConfig {
            builder,
            logs_dir: dir.path().join("builds"),
            archives_dir: dir.path().join("blobs"),
            archives: ArchiveLimits {
                max_bytes: MAX_ARCHIVE,
                ..ArchiveLimits::default()
            },
        }),
        pressure: PressureConfig {
            idle_for: IDLE,
            look_every: Duration::from_millis(20),
            ..PressureConfig::default()
        },
        sealer: LocalKey::from_hex(&Secret::new("5e".repeat(32)))
            .map(|key| Arc::new(key) as Arc<dyn Sealer>),
        identity: Identity::generate()
            .and_then(|key| Identity::new("https://api.test".to_owned(), &key))
            .ok()
            .map(Arc::new),
        webhooks: Some(WebhookConfig {
            backoff: vec![Duration::from_millis(10); 3],
            ..WebhookConfig::new(
                Sender::new(SenderConfig {
                    allow_private: true,
                    timeout: Duration::from_secs(2),
                    ..SenderConfig::default()
                })
                .unwrap(),
            )
        }),
        ..ControlConfig::new(Secret::new(TOKEN_KEY.to_owned()))
    };
    Control::new(config, store, node)
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Limits::default(), ApiConfig::default()).await
    }

    pub(crate) async fn with(limits: Limits, config: ApiConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = FakeNode::new();
        let builder = FakeBuilder::new();
        let control = control(&dir, Arc::clone(&node), Arc::clone(&builder), limits).await;
        let key = control
            .bootstrap()
            .await
            .unwrap()
            .expect("a first key")
            .clear;
        control.register_build(base()).await.unwrap();
        control.run();
        control.reconcile().await.unwrap();
        let team = control.default_team().await.unwrap();
        let router = router(Arc::clone(&control), config);
        Self {
            router,
            control,
            node,
            builder,
            key: key.expose().to_owned(),
            team,
            dir,
        }
    }

    /// Stops the server and starts another over the same database.
    pub(crate) async fn restart(self) -> Self {
        self.control.stop(Duration::from_secs(10)).await;
        let node = self.node.restarted();
        let builder = Arc::clone(&self.builder);
        let control = control(&self.dir, Arc::clone(&node), builder, Limits::default()).await;
        assert!(
            control.bootstrap().await.unwrap().is_none(),
            "one key is enough"
        );
        control.register_build(base()).await.unwrap();
        control.run();
        control.reconcile().await.unwrap();
        let router = router(Arc::clone(&control), ApiConfig::default());
        Self {
            router,
            control,
            node,
            ..self
        }
    }

    /// A key of another team.
    pub(crate) async fn other_key(&self) -> String {
        let new = NewTeam {
            name: "Other".to_owned(),
            ..NewTeam::default()
        };
        let by = By::SYSTEM;
        let team = match self.control.team_create(&by, new).await {
            Ok(team) => team,
            Err(_) => self.control.team_find("other").await.unwrap(),
        };
        let key = self.control.key_create(&by, team.id, NewKey::named("k"));
        key.await.unwrap().clear.expose().to_owned()
    }

    /// An access token of a new person with a role in the team.
    pub(crate) async fn token(&self, role: Role) -> String {
        let by = By::SYSTEM;
        let email = format!("{}@example.com", UserId::random());
        let user = self.control.user_create(&by, &email).await.unwrap().id;
        let joined = self
            .control
            .member_set(&by, self.team.id, user, role, false);
        joined.await.unwrap();
        let made = self.control.token_create(&by, user, NewKey::named("t"));
        made.await.unwrap().clear.expose().to_owned()
    }

    /// A key of the team that may only read.
    pub(crate) async fn read_key(&self) -> String {
        let new = NewKey {
            scope: KeyScope::Read,
            ..NewKey::named("reads")
        };
        let made = self.control.key_create(&By::SYSTEM, self.team.id, new);
        made.await.unwrap().clear.expose().to_owned()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text,
        }
    }

    pub(crate) async fn call_as(
        &self,
        key: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("X-API-KEY", key)
            .header("content-type", "application/json");
        self.send(request.body(body).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call_as(&self.key, "GET", path, None).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call_as(&self.key, "DELETE", path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, "POST", path, Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, "PATCH", path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.call_as(&self.key, "PUT", path, Some(body)).await
    }

    /// Makes a sandbox and returns its id.
    pub(crate) async fn create(&self, mut body: Value) -> String {
        body.as_object_mut()
            .unwrap()
            .entry("templateID")
            .or_insert(json!("base"));
        let sandbox = self.post("/v2/sandboxes", body).await.expect(201);
        sandbox["sandboxID"].as_str().unwrap().to_owned()
    }

    /// Ids of a list.
    pub(crate) async fn listed(&self, query: &str) -> Vec<String> {
        let list = self.get(&format!("/v2/sandboxes{query}")).await.expect(200);
        let id = |sandbox: &Value| sandbox["sandboxID"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(id).collect()
    }

    /// Waits until getting `path` has this status.
    pub(crate) async fn until(&self, path: &str, status: u16) {
        for _ in 0..500 {
            if self.get(path).await.status.as_u16() == status {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} did not become {status}");
    }
}

/// Seconds from now to a time of an answer.
pub(crate) fn ahead(value: &Value) -> i64 {
    let at: jiff::Timestamp = value.as_str().unwrap().parse().unwrap();
    at.as_second() - jiff::Timestamp::now().as_second()
}

/// Whether a life of `seconds` that was set just now ends then; a slow machine may have
/// taken some of it.
pub(crate) fn is_about(value: &Value, seconds: i64) -> bool {
    (seconds - 30..=seconds + 1).contains(&ahead(value))
}
