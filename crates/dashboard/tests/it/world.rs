//! A whole control plane in a temporary directory, and browsers on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use tempfile::TempDir;
use tower::ServiceExt;
use warren_control::{
    BuildSpec, By, Caller, Control, ControlConfig, LocalKey, NewKey, NewSandbox, NewTeam, Sealer,
    Team, WebhookConfig,
};
use warren_service::Secret;
use warren_store::Store;
use warren_types::{KeyScope, Resources, Role, SandboxId, TeamId, UserId};
use warren_webhook::{Sender, SenderConfig};

use crate::node::FakeNode;

pub(crate) const ADMIN: &str = "the administrator's token of the tests";

pub(crate) struct World {
    router: Router,
    pub(crate) control: Arc<Control>,
    pub(crate) node: Arc<FakeNode>,
    pub(crate) key: String,
    pub(crate) team: Team,
    _dir: TempDir,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default()
    }

    /// The page, of an answer that must be one.
    pub(crate) fn page(self) -> String {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        self.text
    }

    /// Makes sure that it leads there.
    pub(crate) fn leads_to(&self, path: &str) {
        assert_eq!(self.status, StatusCode::SEE_OTHER, "{}", self.text);
        assert_eq!(self.header("location"), path);
    }
}

fn base() -> BuildSpec {
    BuildSpec {
        alias: "base".to_owned(),
        public: true,
        layers: vec!["sha256-abc".to_owned()],
        env: BTreeMap::new(),
        default_user: "user".to_owned(),
        default_workdir: None,
        start: None,
        resources: Resources::default(),
        warm: true,
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = FakeNode::new();
        let store = Store::open(&dir.path().join("warren.db")).await.unwrap();
        let sender = Sender::new(SenderConfig::default()).unwrap();
        let config = ControlConfig {
            domain: Some("sandboxes.test".to_owned()),
            sealer: LocalKey::from_hex(&Secret::new("5e".repeat(32)))
                .map(|key| Arc::new(key) as Arc<dyn Sealer>),
            webhooks: Some(WebhookConfig::new(sender)),
            ..ControlConfig::new(Secret::new("token key of the tests".to_owned()))
        };
        let control = Control::new(config, store, Arc::clone(&node) as _);
        let key = control.bootstrap().await.unwrap().unwrap().clear;
        control.register_build(base()).await.unwrap();
        control.run();
        control.reconcile().await.unwrap();
        let team = control.default_team().await.unwrap();
        let admin = Secret::new(ADMIN.to_owned());
        Self {
            router: warren_dashboard::router(Arc::clone(&control), Some(admin)),
            control,
            node,
            key: key.expose().to_owned(),
            team,
            _dir: dir,
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// A browser that is signed in with a key or token.
    pub(crate) async fn browser(&self, credential: &str) -> Browser<'_> {
        let form = serde_urlencoded::to_string([("key", credential)]).unwrap();
        let request = Request::post("/dashboard/sign-in")
            .header("content-type", "application/x-www-form-urlencoded");
        let answer = self.send(request.body(form.into()).unwrap()).await;
        answer.leads_to("/dashboard");
        let cookie = answer.header("set-cookie").split(';').next().unwrap();
        Browser {
            world: self,
            cookie: cookie.to_owned(),
        }
    }

    pub(crate) async fn another_team(&self, name: &str) -> TeamId {
        let new = NewTeam {
            name: name.to_owned(),
            ..NewTeam::default()
        };
        self.control.team_create(&By::SYSTEM, new).await.unwrap().id
    }

    pub(crate) async fn key_of(&self, team: TeamId, scope: KeyScope) -> String {
        let new = NewKey {
            scope,
            ..NewKey::named("made by a test")
        };
        let made = self.control.key_create(&By::SYSTEM, team, new).await;
        made.unwrap().clear.expose().to_owned()
    }

    /// A person with these roles, the first team being their default one, and their token.
    pub(crate) async fn person(&self, places: &[(TeamId, Role)]) -> (UserId, String) {
        let by = By::SYSTEM;
        let email = format!("{}@example.com", UserId::random());
        let user = self.control.user_create(&by, &email).await.unwrap().id;
        for (index, (team, role)) in places.iter().enumerate() {
            let joined = self
                .control
                .member_set(&by, *team, user, *role, index == 0)
                .await;
            joined.unwrap();
        }
        let made = self.control.token_create(&by, user, NewKey::named("t"));
        (user, made.await.unwrap().clear.expose().to_owned())
    }

    pub(crate) async fn caller(&self, team: TeamId) -> Arc<Caller> {
        let caller = self.control.caller_for_team(&team.to_string()).await;
        caller.unwrap().unwrap()
    }

    pub(crate) async fn sandbox_with(&self, team: TeamId, labels: &[(&str, &str)]) -> SandboxId {
        let new = NewSandbox {
            template: "base".to_owned(),
            timeout_s: 3000,
            secure: true,
            metadata: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            ..NewSandbox::default()
        };
        let caller = self.caller(team).await;
        let made = self.control.create(&caller, new).await;
        made.unwrap().record.id
    }

    pub(crate) async fn sandbox(&self) -> SandboxId {
        self.sandbox_with(self.team.id, &[]).await
    }
}

pub(crate) struct Browser<'a> {
    world: &'a World,
    pub(crate) cookie: String,
}

impl Browser<'_> {
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path).header("cookie", &self.cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.world.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    /// What forms of the session bear now.
    pub(crate) async fn csrf(&self) -> String {
        let page = self.get("/dashboard/usage").await.page();
        let start = page.find(r#"name="csrf" content=""#).unwrap();
        let rest = &page[start..];
        rest.split('"').nth(3).unwrap().to_owned()
    }

    /// Sends a form that has this token or none.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        csrf: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Answer {
        let mut fields = fields.to_vec();
        fields.extend(csrf.map(|csrf| ("csrf", csrf)));
        let request = Request::post(path)
            .header("cookie", &self.cookie)
            .header("content-type", "application/x-www-form-urlencoded");
        let form = serde_urlencoded::to_string(fields).unwrap();
        self.world.send(request.body(form.into()).unwrap()).await
    }

    /// Sends a form as pages do.
    pub(crate) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf().await;
        self.post_with(path, Some(&csrf), fields).await
    }
}

/// Waits for something that the node's word brings about.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut probe: impl FnMut() -> F) {
    for _ in 0..500 {
        if probe().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come about");
}
