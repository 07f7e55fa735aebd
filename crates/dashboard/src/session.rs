//! Who is signed in. A session is a random name in a cookie and a key or access token in
//! memory: it ends with the browser's cookie, with the key, or with the server.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use rand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use warren_control::{AuthError, By, Caller, Control, NewAudit};
use warren_service::Secret;

use crate::App;
use crate::error::PageError;

/// Start of access tokens; everything else is taken for an API key.
const TOKEN_PREFIX: &str = "sk_e2b_";
/// The cookie's name. Its value is 32 random bytes in hex.
const COOKIE_NAME: &str = "warren_session";
/// A session that is not used ends.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// Sessions at a time; the one unused for longest gives way.
const MOST: usize = 1024;

/// Live sessions, by the hash of what the cookie holds.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    live: Mutex<HashMap<[u8; 32], Session>>,
}

#[derive(Debug)]
struct Session {
    key: Secret,
    used: Instant,
}

fn hash(name: &str) -> [u8; 32] {
    Sha256::digest(name.as_bytes()).into()
}

impl Sessions {
    /// Begins a session for a key that was found valid; returns the cookie's value.
    pub(crate) fn begin(&self, key: Secret) -> String {
        let name = hex::encode(rand::rng().random::<[u8; 32]>());
        let now = Instant::now();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.retain(|_, session| now.duration_since(session.used) < IDLE);
        if live.len() >= MOST {
            let oldest = live.iter().min_by_key(|(_, session)| session.used);
            if let Some(oldest) = oldest.map(|(name, _)| *name) {
                live.remove(&oldest);
            }
        }
        live.insert(hash(&name), Session { key, used: now });
        name
    }

    fn key(&self, name: &str) -> Option<Secret> {
        let now = Instant::now();
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let session = live.get_mut(&hash(name))?;
        if now.duration_since(session.used) >= IDLE {
            return None;
        }
        session.used = now;
        Some(session.key.clone())
    }

    /// Ends a session.
    pub(crate) fn end(&self, name: &str) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.remove(&hash(name));
    }
}

/// The header that sets the cookie, or takes it away.
pub(crate) fn cookie(name: Option<&str>) -> HeaderValue {
    let mut text = format!("{COOKIE_NAME}={}", name.unwrap_or_default());
    text.push_str("; Path=/dashboard; HttpOnly; SameSite=Strict");
    if name.is_none() {
        // Writing to a string can't fail.
        write!(text, "; Max-Age=0").ok();
    }
    HeaderValue::try_from(text).expect("hex digits and our own text")
}

/// The session that a request names.
pub(crate) fn named(parts: &Parts) -> Option<&str> {
    parts
        .headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value)
}

/// Longest target of an entry in the audit trail.
const MAX_TARGET: usize = 512;
/// Slug of the first team, which is that of whoever runs the server.
pub(crate) const OPERATOR: &str = "default";
/// Longest form that a page sends.
const MAX_FORM: usize = 64 << 10;
/// Where scripts put the token that forms have in a field.
const CSRF_HEADER: &str = "x-csrf-token";

/// Finds out who shows a key or an access token.
pub(crate) async fn authenticate(
    control: &Control,
    credential: &str,
) -> Result<Arc<Caller>, AuthError> {
    if credential.starts_with(TOKEN_PREFIX) {
        control.authenticate_token(credential, None).await
    } else {
        control.authenticate_key(credential).await
    }
}

/// What every page of somebody signed in shows around its content.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) team: String,
    pub(crate) section: &'static str,
    pub(crate) csrf: String,
    /// Whether it is the team of whoever runs the server.
    pub(crate) is_operator: bool,
}

/// Whoever is signed in; pages without one lead to the sign-in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) caller: Arc<Caller>,
    csrf: String,
}

impl SignedIn {
    /// Whoever does what this request asks for, for the audit trail.
    pub(crate) fn by(&self) -> By {
        By {
            actor: self.caller.actor,
            request_id: None,
        }
    }

    /// The surroundings of a page in a section.
    pub(crate) fn frame(&self, section: &'static str) -> Option<Frame> {
        Some(Frame {
            team: self.caller.team.name.clone(),
            section,
            csrf: self.csrf.clone(),
            is_operator: self.caller.team.slug == OPERATOR,
        })
    }
}

/// What forms of a session bear: known to its pages, and not to other sites.
fn csrf(session: &str) -> String {
    hex::encode(Sha256::digest(format!("form:{session}")))
}

impl FromRequestParts<Arc<App>> for SignedIn {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, PageError> {
        let signed_out = || PageError::SignedOut {
            then: (parts.method == Method::GET)
                .then(|| parts.uri.path_and_query().map(ToString::to_string))
                .flatten(),
        };
        let name = named(parts).ok_or_else(signed_out)?;
        let key = app.sessions.key(name).ok_or_else(signed_out)?;
        // Asked each time, so that a deleted key ends its sessions.
        let caller = match authenticate(&app.control, key.expose()).await {
            Err(AuthError::Store(source)) => return Err(PageError::Internal(Box::new(source))),
            found => found.map_err(|_| signed_out())?,
        };
        // A program that is signed in may do no more than its person, so even those who
        // only read may sign one in.
        let path = parts.uri.path();
        if !matches!(parts.method, Method::GET | Method::HEAD) && path != "/dashboard/cli" {
            let is_deletion = path.ends_with("/delete") || path.ends_with("/kill");
            let allowed = caller.require_write(is_deletion);
            allowed.map_err(|error| PageError::Refused(error.to_string()))?;
        }
        Ok(Self {
            caller,
            csrf: csrf(name),
        })
    }
}

/// A form that a page of ours sent, and who sent it.
#[derive(Debug)]
pub(crate) struct Posted<T>(pub(crate) SignedIn, pub(crate) T);

#[derive(Deserialize)]
struct Marked {
    #[serde(default)]
    csrf: String,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Posted<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let visitor = SignedIn::from_request_parts(&mut parts, app).await?;
        let body: Bytes = axum::body::to_bytes(body, MAX_FORM)
            .await
            .map_err(|_| PageError::Refused("the form is too long".to_owned()))?;
        let header = parts.headers.get(CSRF_HEADER);
        let shown = match header.and_then(|value| value.to_str().ok()) {
            Some(shown) => shown.to_owned(),
            None => read::<Marked>(&body)?.csrf,
        };
        // Both are digests, so that how long this takes tells nothing of use.
        if Sha256::digest(&shown) != Sha256::digest(&visitor.csrf) {
            return Err(PageError::Forged);
        }
        Ok(Self(visitor, read(&body)?))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, PageError> {
    serde_urlencoded::from_bytes(body)
        .map_err(|error| PageError::Refused(format!("the form can't be read: {error}")))
}

/// A path of ours that a sign-in leads back to.
pub(crate) fn is_own_path(path: &str) -> bool {
    let rest = path.strip_prefix("/dashboard");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Writes into the audit trail what somebody signed in asks for, and what came of it.
pub(crate) async fn trail(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    let key = named(&parts).and_then(|name| app.sessions.key(name));
    let caller = match key {
        Some(key) => authenticate(&app.control, key.expose()).await.ok(),
        None => None,
    };
    let matched = parts.extensions.get::<MatchedPath>();
    let path = matched.map_or("", MatchedPath::as_str).to_owned();
    let params = RawPathParams::from_request_parts(&mut parts, &())
        .await
        .ok();
    let target = params.as_ref().and_then(|params| {
        let mut values = params.iter().map(|(_, value)| value.to_owned());
        values.next().filter(|value| value.len() <= MAX_TARGET)
    });
    let action = format!("{} {path}", parts.method);
    let response = next.run(Request::from_parts(parts, body)).await;
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    // Changes of keys write entries of their own.
    let is_told = path.starts_with("/dashboard/keys") && !failed;
    if let Some(caller) = caller.filter(|_| !is_told) {
        let by = By {
            actor: caller.actor,
            request_id: None,
        };
        let entry = NewAudit {
            by: &by,
            team: Some(caller.team.id),
            action: &action,
            target: target.as_deref(),
            status: Some(status.as_u16()),
            reason: None,
            data: serde_json::json!({}),
        };
        app.control.audit_request(entry).await;
    }
    response
}

/// Refuses changes that another site's page asks for. The cookie is not sent along by
/// browsers then; this holds without relying on that.
pub(crate) async fn guard_origin(request: Request, next: Next) -> Response {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && !is_same_site(&request) {
        return (StatusCode::FORBIDDEN, "the request comes from another site").into_response();
    }
    next.run(request).await
}

fn is_same_site(request: &Request) -> bool {
    let text = |name| {
        let value: Option<&HeaderValue> = request.headers().get(name);
        value.and_then(|value| value.to_str().ok())
    };
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = text(HOST).or(authority);
    match text(ORIGIN) {
        // Not a browser, or one that has nothing to tell.
        None => true,
        Some(origin) => origin
            .split_once("://")
            .is_some_and(|(_, from)| Some(from) == host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_it_is_ended() {
        let sessions = Sessions::default();
        let name = sessions.begin(Secret::new("key".to_owned()));
        assert_eq!(sessions.key(&name).unwrap().expose(), "key");
        assert!(sessions.key("other").is_none());
        sessions.end(&name);
        assert!(sessions.key(&name).is_none());
    }

    #[test]
    fn a_sign_in_leads_back_to_pages_of_ours_only() {
        for own in ["/dashboard", "/dashboard/usage", "/dashboard?state=paused"] {
            assert!(is_own_path(own), "{own}");
        }
        for other in [
            "",
            "/",
            "//x",
            "/dashboards",
            "https://x/dashboard",
            "/dashboard/\n",
        ] {
            assert!(!is_own_path(other), "{other}");
        }
    }

    #[test]
    fn forms_of_two_sessions_differ() {
        assert_ne!(csrf("a"), csrf("b"));
        assert_eq!(csrf("a"), csrf("a"));
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_gives_way() {
        let sessions = Sessions::default();
        let first = sessions.begin(Secret::new("first".to_owned()));
        for _ in 0..MOST {
            sessions.begin(Secret::new("x".to_owned()));
        }
        assert!(sessions.key(&first).is_none());
        assert_eq!(sessions.live.lock().unwrap().len(), MOST);
    }
}
