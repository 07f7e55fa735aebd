//! Teams.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_wire::Team;

use crate::auth::{Auth, Doer};
use crate::error::ApiError;
use crate::extract::json;
use crate::router::App;

/// `GET /teams`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Doer(by): Doer,
) -> Result<Response, ApiError> {
    let teams = app.control.teams(&caller, &by).await?;
    let teams: Vec<Team> = teams
        .into_iter()
        .map(|entry| Team {
            team_id: entry.team.id.to_string(),
            name: entry.team.name,
            // The clear key: this answer is the only time that it is shown.
            api_key: entry.key.expose().to_owned(),
            is_default: entry.is_default,
        })
        .collect();
    Ok(json(StatusCode::OK, &teams))
}
