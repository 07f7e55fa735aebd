//! Who is signed in. A session is a random name in a cookie and an API key in memory: it
//! ends with the browser's cookie, with the key, or with the server.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{COOKIE, HOST, ORIGIN};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode};
use rand::Rng;
use sha2::{Digest, Sha256};
use warren_control::Caller;
use warren_service::Secret;

use crate::App;
use crate::error::PageError;

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

/// Whoever is signed in; pages without one lead to the sign-in.
#[derive(Debug)]
pub(crate) struct SignedIn(pub(crate) Arc<Caller>);

impl FromRequestParts<Arc<App>> for SignedIn {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, PageError> {
        let key = named(parts)
            .and_then(|name| app.sessions.key(name))
            .ok_or(PageError::SignedOut)?;
        // Asked each time, so that a deleted key ends its sessions.
        let caller = app.control.authenticate_key(key.expose()).await?;
        Ok(Self(caller))
    }
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
