//! What requests leave in the audit trail.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};
use warren_control::{By, NewAudit};
use warren_service::Peer;
use warren_types::TeamId;

use crate::extract::Query;
use crate::operations::{Access, Operation, Trail};
use crate::router::App;

/// Longest target or reason that is kept, in bytes.
const MAX_TEXT: usize = 512;
/// Of requests that come all the time, one in so long is told for each of those who ask.
const FOLD: Duration = Duration::from_secs(60);
/// Most that are remembered for that.
const MAX_FOLDS: usize = 10_000;

/// The address that a request came from.
pub(crate) fn origin(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<Peer>().map(|peer| peer.ip())
}

/// When what comes all the time was last told.
#[derive(Debug, Default)]
pub(crate) struct Folds(Mutex<HashMap<String, Instant>>);

impl Folds {
    /// Whether something like this was not told for a while; it counts as told from now on.
    fn is_due(&self, what: String) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.len() >= MAX_FOLDS {
            told.retain(|_, at| now.duration_since(*at) < FOLD);
            if told.len() >= MAX_FOLDS {
                // Told once too often rather than not at all.
                told.clear();
            }
        }
        let before = told.insert(what.clone(), now);
        let is_due = before.is_none_or(|at| now.duration_since(at) >= FOLD);
        if let Some(at) = before.filter(|_| !is_due) {
            told.insert(what, at);
        }
        is_due
    }
}

/// Put into the answer to a request that made something: its id.
#[derive(Debug, Clone)]
pub(crate) struct Made(pub(crate) String);

/// Marks the answer to a request that made something.
pub(crate) fn made(mut response: Response, id: String) -> Response {
    response.extensions_mut().insert(Made(id));
    response
}

/// Put into every error: what was told.
#[derive(Debug, Clone)]
pub(crate) struct Told(pub(crate) String);

/// What is known of a request before it is handled.
#[derive(Debug)]
pub(crate) struct Entry {
    by: By,
    team: Option<TeamId>,
    action: String,
    target: Option<String>,
    data: Value,
    trail: Trail,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) struct Outcome {
    status: StatusCode,
    made: Option<String>,
    told: Option<String>,
}

impl Outcome {
    /// That of this answer.
    pub(crate) fn of(response: &Response) -> Self {
        let extensions = response.extensions();
        Self {
            status: response.status(),
            made: extensions.get::<Made>().map(|made| made.0.clone()),
            told: extensions.get::<Told>().map(|told| told.0.clone()),
        }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
    text
}

impl Entry {
    /// Of a request whose operation belongs in the trail.
    pub(crate) async fn begin(
        operation: &Operation,
        by: By,
        team: Option<TeamId>,
        parts: &mut Parts,
    ) -> Self {
        let params = RawPathParams::from_request_parts(parts, &()).await.ok();
        let target = params.as_ref().and_then(|params| {
            let mut values = params.iter().map(|(_, value)| value.to_owned());
            values.next()
        });
        Self {
            by,
            team,
            action: format!("{} {}", operation.method, operation.path),
            target: target.map(cut),
            data: match operation.access {
                Access::Volume => path_in_volume(parts).await,
                _ => json!({}),
            },
            trail: operation.trail,
        }
    }

    /// The same of a request that came too early after others: one like it is enough.
    pub(crate) fn too_early(mut self) -> Self {
        self.trail = Trail::Frequent;
        self
    }

    /// Writes the entry, unless the change has written one of its own.
    pub(crate) async fn finish(self, app: &App, outcome: Outcome) {
        let status = outcome.status;
        let failed = status.is_client_error() || status.is_server_error();
        let is_told = match self.trail {
            Trail::Reads => false,
            Trail::Change => failed,
            Trail::Request => true,
            Trail::Frequent => app.folds.is_due(format!(
                "{:?} {} {:?} {}",
                self.by.actor,
                self.action,
                self.target,
                status.as_u16()
            )),
        };
        if !is_told {
            return;
        }
        let target = outcome.made.or(self.target);
        let reason = outcome.told.filter(|_| failed).map(cut);
        let entry = NewAudit {
            by: &self.by,
            team: self.team,
            action: &self.action,
            target: target.as_deref(),
            status: Some(status.as_u16()),
            reason: reason.as_deref(),
            data: self.data,
        };
        app.control.audit_request(entry).await;
    }
}

/// What a request does something to in a volume, from its query.
async fn path_in_volume(parts: &mut Parts) -> Value {
    let Ok(query) = Query::from_request_parts(parts, &()).await;
    let path = query.filled("path").map(str::to_owned);
    path.map_or_else(|| json!({}), |path| json!({ "path": cut(path) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_all_the_time_is_told_once_in_a_while() {
        let folds = Folds::default();
        assert!(folds.is_due("a".to_owned()));
        assert!(!folds.is_due("a".to_owned()));
        assert!(folds.is_due("b".to_owned()));
        let long_ago = Instant::now().checked_sub(FOLD).unwrap();
        folds.0.lock().unwrap().insert("a".to_owned(), long_ago);
        assert!(folds.is_due("a".to_owned()));
        for number in 0..2 * MAX_FOLDS {
            folds.is_due(number.to_string());
        }
        assert!(folds.0.lock().unwrap().len() <= MAX_FOLDS);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(MAX_TEXT);
        assert_eq!(cut(text).len(), MAX_TEXT);
        assert_eq!(
            cut("a".to_owned() + &"é".repeat(MAX_TEXT)).len(),
            MAX_TEXT - 1
        );
        assert_eq!(cut("short".to_owned()), "short");
    }
}
