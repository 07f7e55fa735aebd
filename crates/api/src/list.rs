//! Lists of sandboxes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use warren_control::{ListQuery, Order};
use warren_wire::ListedSandbox;

use crate::auth::Auth;
use crate::convert;
use crate::error::ApiError;
use crate::extract::{Query, json};
use crate::router::App;

/// Cursor of the next page.
pub(crate) static NEXT_TOKEN: HeaderName = HeaderName::from_static("x-next-token");
static TOTAL_RUNNING: HeaderName = HeaderName::from_static("x-total-running");

/// Adds the cursor of the next page, if there is one.
pub(crate) fn with_next(mut response: Response, next: Option<&str>) -> Response {
    if let Some(next) = next.and_then(|next| HeaderValue::from_str(next).ok()) {
        response.headers_mut().insert(NEXT_TOKEN.clone(), next);
    }
    response
}

/// `GET /sandboxes`
pub(crate) async fn list_v1(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    query: Query,
) -> Result<Response, ApiError> {
    let sandboxes = app
        .control
        .list_running(&caller, query.text("metadata"))
        .await?;
    let listed: Vec<ListedSandbox> = sandboxes.into_iter().map(convert::listed).collect();
    Ok(json(StatusCode::OK, &listed))
}

/// `GET /v2/sandboxes`
pub(crate) async fn list_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    query: Query,
) -> Result<Response, ApiError> {
    let page = app.control.list(&caller, list_query(&query)?).await?;
    let listed: Vec<ListedSandbox> = page.sandboxes.into_iter().map(convert::listed).collect();
    let mut response = with_next(json(StatusCode::OK, &listed), page.next.as_deref());
    if let Some(total) = page.total_running {
        response
            .headers_mut()
            .insert(TOTAL_RUNNING.clone(), HeaderValue::from(total));
    }
    Ok(response)
}

fn list_query(query: &Query) -> Result<ListQuery, ApiError> {
    let (mut running, mut paused) = (false, false);
    for state in query.list("state") {
        match state {
            "running" => running = true,
            "paused" => paused = true,
            _ => return Err(ApiError::validation("state must be running or paused")),
        }
    }
    let order = match query.filled("order") {
        None | Some("desc") => Order::Descending,
        Some("asc") => Order::Ascending,
        Some(_) => return Err(ApiError::validation("order must be asc or desc")),
    };
    let started_after = query
        .filled("startedAfter")
        .map(str::parse::<Timestamp>)
        .transpose();
    Ok(ListQuery {
        running,
        paused,
        metadata: query.text("metadata").map(str::to_owned),
        order,
        started_after: started_after
            .map_err(|_| ApiError::validation("startedAfter must be a date and time"))?,
        template: query.filled("template").map(str::to_owned),
        limit: query.integer("limit")?,
        cursor: query.filled("nextToken").map(str::to_owned),
    })
}
