//! Sandboxes one by one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use warren_control::{
    Caller, Control, NewSandbox, Resume, VERSION_1_TIMEOUT_S, VERSION_2_TIMEOUT_S,
};
use warren_types::SandboxId;
use warren_wire as wire;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{Json, OptionalJson, SandboxPath, detached, json, no_content};
use crate::router::App;
use crate::trail::made;
use crate::{convert, idempotent};

type Answer = Result<Response, ApiError>;

/// Longest refresh in seconds, and the default.
const MAX_REFRESH_S: i32 = 3600;
const REFRESH_S: i32 = 15;

async fn created(control: Arc<Control>, caller: Arc<Caller>, request: NewSandbox) -> Response {
    match control.create(&caller, request).await {
        Ok(sandbox) => {
            let id = sandbox.record.id.to_string();
            made(json(StatusCode::CREATED, &convert::sandbox(sandbox)), id)
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// `POST /sandboxes`
pub(crate) async fn create_v1(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Json(body): Json<wire::NewSandbox>,
) -> Answer {
    let secure = body.secure.unwrap_or(false);
    let request = convert::new_sandbox(body, secure, VERSION_1_TIMEOUT_S)?;
    let control = Arc::clone(&app.control);
    detached(&app.control, async move {
        created(Arc::clone(&control), Arc::clone(&caller), request).await
    })
    .await
}

/// `POST /v2/sandboxes`
pub(crate) async fn create_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    headers: HeaderMap,
    Json(mut body): Json<wire::NewSandbox>,
) -> Answer {
    // Not a field of this version.
    body.secure = None;
    let control = Arc::clone(&app.control);
    let Some(key) = idempotent::key(&headers)? else {
        let request = convert::new_sandbox(body, true, VERSION_2_TIMEOUT_S)?;
        let work = created(control, caller, request);
        return detached(&app.control, work).await;
    };
    let parsed = serde_json::to_string(&body).map_err(|error| ApiError::internal(&error))?;
    let request = convert::new_sandbox(body, true, VERSION_2_TIMEOUT_S)?;
    detached(&app.control, async move {
        let fingerprint = format!("POST /v2/sandboxes\n{parsed}");
        let work = created(Arc::clone(&control), Arc::clone(&caller), request);
        idempotent::once(
            Arc::clone(&control),
            Arc::clone(&caller),
            &key,
            &fingerprint,
            work,
        )
        .await
    })
    .await
}

/// `GET /sandboxes/{sandboxID}`
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
) -> Answer {
    let sandbox = app.control.get(&caller, &id).await?;
    Ok(json(StatusCode::OK, &convert::detail(sandbox)))
}

/// `DELETE /sandboxes/{sandboxID}`
pub(crate) async fn kill(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
) -> Answer {
    let control = Arc::clone(&app.control);
    detached(
        &app.control,
        async move { control.kill(&caller, &id).await },
    )
    .await??;
    Ok(no_content())
}

async fn connected(
    app: &App,
    caller: Arc<Caller>,
    id: SandboxId,
    request: Resume,
    zero_allowed: bool,
) -> Answer {
    let control = Arc::clone(&app.control);
    let work = async move { control.connect(&caller, &id, request, zero_allowed).await };
    let (sandbox, was_paused) = detached(&app.control, work).await??;
    let status = if was_paused {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok(json(status, &convert::sandbox(sandbox)))
}

/// `POST /sandboxes/{sandboxID}/connect`
pub(crate) async fn connect_v1(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    Json(body): Json<wire::Connect>,
) -> Answer {
    let seconds = body
        .timeout
        .ok_or_else(|| ApiError::validation("timeout is required"))?;
    let request = Resume {
        timeout_s: seconds.into(),
        memory: body.memory.unwrap_or(true),
        auto_pause: None,
    };
    connected(&app, caller, id, request, true).await
}

/// `POST /v2/sandboxes/{sandboxID}/connect`
pub(crate) async fn connect_v2(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<wire::Connect>,
) -> Answer {
    let request = Resume {
        timeout_s: body.timeout.map_or(VERSION_2_TIMEOUT_S, i64::from),
        memory: body.memory.unwrap_or(true),
        auto_pause: None,
    };
    connected(&app, caller, id, request, false).await
}

/// `POST /sandboxes/{sandboxID}/resume`
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<wire::Resume>,
) -> Answer {
    let request = Resume {
        timeout_s: body.timeout.map_or(VERSION_1_TIMEOUT_S, i64::from),
        memory: body.memory.unwrap_or(true),
        auto_pause: body.auto_pause,
    };
    let control = Arc::clone(&app.control);
    let work = async move { control.resume(&caller, &id, request).await };
    let sandbox = detached(&app.control, work).await??;
    Ok(json(StatusCode::CREATED, &convert::sandbox(sandbox)))
}

/// `POST /sandboxes/{sandboxID}/pause`
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<wire::Pause>,
) -> Answer {
    let memory = body.memory.unwrap_or(true);
    let healthy = body.require_healthy_guest.unwrap_or(false);
    let control = Arc::clone(&app.control);
    let work = async move { control.pause(&caller, &id, memory, healthy).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}

/// `POST /sandboxes/{sandboxID}/timeout`
pub(crate) async fn timeout(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    Json(body): Json<wire::Timeout>,
) -> Answer {
    let seconds = u64::try_from(body.timeout)
        .map_err(|_| ApiError::validation("timeout must not be negative"))?;
    let control = Arc::clone(&app.control);
    let work = async move { control.set_timeout(&caller, &id, seconds).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}

/// `POST /sandboxes/{sandboxID}/refreshes`
pub(crate) async fn refresh(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    OptionalJson(body): OptionalJson<wire::Refresh>,
) -> Answer {
    let seconds = body.duration.unwrap_or(REFRESH_S);
    if !(0..=MAX_REFRESH_S).contains(&seconds) {
        return Err(ApiError::validation("duration must be between 0 and 3600"));
    }
    let control = Arc::clone(&app.control);
    let seconds = u64::from(seconds.unsigned_abs());
    let work = async move { control.refresh(&caller, &id, seconds).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}

/// `PUT /sandboxes/{sandboxID}/network`
pub(crate) async fn network(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(id): SandboxPath,
    Json(body): Json<wire::NetworkUpdate>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let update = convert::network_update(body);
    let work = async move { control.set_network(&caller, &id, update).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}
