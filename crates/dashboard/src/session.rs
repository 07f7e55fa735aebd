//! Sessions: a random name in a cookie, and a key or token in memory. One ends with the
//! browser's cookie, with the key, or with the server.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use rand::Rng;
use sha2::{Digest, Sha256};
use warren_service::Secret;

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

/// What a session stands for.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    /// What was shown at the sign-in.
    pub(crate) credential: Secret,
    /// The team that was chosen since, for those who are in several.
    pub(crate) team: Option<String>,
}

#[derive(Debug)]
struct Session {
    held: Held,
    used: Instant,
}

fn hash(name: &str) -> [u8; 32] {
    Sha256::digest(name.as_bytes()).into()
}

impl Sessions {
    fn live(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a session for a credential that was found valid; returns the cookie's value.
    pub(crate) fn begin(&self, credential: Secret) -> String {
        let name = hex::encode(rand::rng().random::<[u8; 32]>());
        let now = Instant::now();
        let mut live = self.live();
        live.retain(|_, session| now.duration_since(session.used) < IDLE);
        if live.len() >= MOST {
            let oldest = live.iter().min_by_key(|(_, session)| session.used);
            if let Some(oldest) = oldest.map(|(name, _)| *name) {
                live.remove(&oldest);
            }
        }
        let held = Held {
            credential,
            team: None,
        };
        live.insert(hash(&name), Session { held, used: now });
        name
    }

    /// What a session stands for, if there is one of this name.
    pub(crate) fn get(&self, name: &str) -> Option<Held> {
        let now = Instant::now();
        let mut live = self.live();
        let session = live.get_mut(&hash(name))?;
        if now.duration_since(session.used) >= IDLE {
            return None;
        }
        session.used = now;
        Some(session.held.clone())
    }

    /// Sets the team that a session acts for; without one it is that of the credential.
    pub(crate) fn choose(&self, name: &str, team: Option<String>) {
        if let Some(session) = self.live().get_mut(&hash(name)) {
            session.held.team = team;
        }
    }

    /// Ends a session.
    pub(crate) fn end(&self, name: &str) {
        self.live().remove(&hash(name));
    }
}

/// The header that sets the cookie, or takes it away. One that came over TLS is sent over TLS
/// only.
pub(crate) fn cookie(name: Option<&str>, is_tls: bool) -> HeaderValue {
    let mut text = format!("{COOKIE_NAME}={}", name.unwrap_or_default());
    text.push_str("; Path=/dashboard; HttpOnly; SameSite=Strict");
    if is_tls {
        text.push_str("; Secure");
    }
    if name.is_none() {
        text.push_str("; Max-Age=0");
    }
    HeaderValue::try_from(text).expect("hex digits and our own text")
}

/// The session that a request names.
pub(crate) fn named(parts: &Parts) -> Option<&str> {
    named_in(&parts.headers)
}

/// The session that these headers of a request name.
pub(crate) fn named_in(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_it_is_ended() {
        let sessions = Sessions::default();
        let name = sessions.begin(Secret::new("key".to_owned()));
        assert_eq!(sessions.get(&name).unwrap().credential.expose(), "key");
        assert!(sessions.get("other").is_none());
        sessions.end(&name);
        assert!(sessions.get(&name).is_none());
    }

    #[test]
    fn the_team_of_one_session_is_not_that_of_another() {
        let sessions = Sessions::default();
        let begin = || sessions.begin(Secret::new("key".to_owned()));
        let (one, other) = (begin(), begin());
        sessions.choose(&one, Some("team".to_owned()));
        let team = |name: &str| sessions.get(name).unwrap().team;
        assert_eq!(team(&one).as_deref(), Some("team"));
        assert_eq!(team(&other), None);
        sessions.choose(&one, None);
        assert_eq!(team(&one), None);
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_gives_way() {
        let sessions = Sessions::default();
        let first = sessions.begin(Secret::new("first".to_owned()));
        for _ in 0..MOST {
            sessions.begin(Secret::new("x".to_owned()));
        }
        assert!(sessions.get(&first).is_none());
        assert_eq!(sessions.live().len(), MOST);
    }
}
