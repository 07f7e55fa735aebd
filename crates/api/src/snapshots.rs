//! Snapshots and forks of sandboxes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{Snapshot, SnapshotQuery, VERSION_1_TIMEOUT_S};
use warren_wire as wire;

use crate::auth::Auth;
use crate::convert;
use crate::error::ApiError;
use crate::extract::{OptionalJson, Query, SandboxPath, detached, json, sandbox_id};
use crate::list::with_next;
use crate::router::App;

type Answer = Result<Response, ApiError>;

fn shown(snapshot: Snapshot) -> wire::Snapshot {
    wire::Snapshot {
        snapshot_id: snapshot.id,
        names: snapshot.names,
    }
}

/// `POST /sandboxes/{sandboxID}/snapshots`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<wire::NewSnapshot>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let work = async move {
        let (name, memory) = (body.name.as_deref(), body.memory.unwrap_or(true));
        control.snapshot(&caller, &id, name, memory).await
    };
    let snapshot = detached(&app.control, work).await??;
    Ok(json(StatusCode::CREATED, &shown(snapshot)))
}

/// `GET /snapshots`
pub(crate) async fn list(State(app): State<Arc<App>>, Auth(caller): Auth, query: Query) -> Answer {
    let wanted = SnapshotQuery {
        sandbox: query.filled("sandboxID").map(sandbox_id).transpose()?,
        name: query.filled("name").map(str::to_owned),
        limit: query.integer("limit")?,
        cursor: query.filled("nextToken").map(str::to_owned),
    };
    let (snapshots, next) = app.control.snapshot_list(&caller, wanted).await?;
    let listed: Vec<wire::Snapshot> = snapshots.into_iter().map(shown).collect();
    Ok(with_next(json(StatusCode::OK, &listed), next.as_deref()))
}

/// `POST /sandboxes/{sandboxID}/fork`
pub(crate) async fn fork(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<wire::Fork>,
) -> Answer {
    let count = body.count.map_or(1, i64::from);
    let timeout = body.timeout.map_or(VERSION_1_TIMEOUT_S, i64::from);
    let control = Arc::clone(&app.control);
    let work = async move { control.fork(&caller, &id, count, timeout).await };
    let copies = detached(&app.control, work).await??;
    let entries: Vec<wire::ForkResult> = copies
        .into_iter()
        .map(|copy| match copy {
            Ok(sandbox) => wire::ForkResult::Sandbox(Box::new(convert::sandbox(sandbox))),
            Err(error) => wire::ForkResult::Error(ApiError::from(error).into_body()),
        })
        .collect();
    Ok(json(StatusCode::CREATED, &entries))
}
