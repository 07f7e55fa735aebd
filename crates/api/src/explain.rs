//! Why something ended or was refused, for the operator and for a team. Not of E2B's API.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{ExplainError, Explanation};
use warren_wire as wire;

use crate::admin::shown_entry;
use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{PathText, json};
use crate::router::App;

type Answer = Result<Response, ApiError>;

impl From<ExplainError> for ApiError {
    fn from(error: ExplainError) -> Self {
        match &error {
            ExplainError::Store(_) => Self::internal(&error),
            ExplainError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, error.to_string()),
        }
    }
}

fn shown(told: Explanation) -> Response {
    let events = told.events.into_iter().map(|event| wire::ExplainedEvent {
        timestamp: event.at,
        kind: event.kind.as_str().to_owned(),
    });
    let body = wire::Explanation {
        summary: told.summary,
        events: events.collect(),
        trail: told.trail.into_iter().map(shown_entry).collect(),
        log: told.log,
    };
    json(StatusCode::OK, &body)
}

/// `GET /explain`
pub(crate) async fn refusals(State(app): State<Arc<App>>, Auth(caller): Auth) -> Answer {
    let told = app.control.refusals(caller.team.id).await;
    Ok(shown(told.map_err(|error| ApiError::internal(&error))?))
}

/// `GET /explain/{id}`
pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(id): PathText,
) -> Answer {
    let told = app.control.explain(&id, Some(caller.team.id)).await?;
    Ok(shown(told))
}

/// `GET /admin/explain/{id}`
pub(crate) async fn any(State(app): State<Arc<App>>, PathText(id): PathText) -> Answer {
    Ok(shown(app.control.explain(&id, None).await?))
}
