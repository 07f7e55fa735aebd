//! What requests leave in the audit trail.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde_json::json;
use warren_control::{By, Control, NewAudit};
use warren_types::TeamId;

use crate::operations::{Operation, Trail};

/// Longest target or reason that is kept, in bytes.
const MAX_TEXT: usize = 512;

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
            trail: operation.trail,
        }
    }

    /// Writes the entry, unless the change has written one of its own.
    pub(crate) async fn finish(self, control: &Control, outcome: Outcome) {
        let status = outcome.status;
        let failed = status.is_client_error() || status.is_server_error();
        if !failed && self.trail != Trail::Request {
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
            data: json!({}),
        };
        control.audit_request(entry).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
