//! Volumes.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{VolumeError, VolumeRecord, VolumeView, VolumesError};
use warren_service::Chain;
use warren_types::VolumeId;
use warren_wire as wire;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{Json, PathText, detached, json, no_content};
use crate::router::App;

type Answer = Result<Response, ApiError>;

impl From<VolumesError> for ApiError {
    fn from(error: VolumesError) -> Self {
        use VolumesError as E;
        let status = match &error {
            E::Host(cause @ (VolumeError::Bucket(_) | VolumeError::Elsewhere(_))) => {
                return Self::new(unavailable(cause), cause.to_string());
            }
            E::Store(_) | E::Host(_) => return Self::internal(&error),
            E::Disabled => StatusCode::FORBIDDEN,
            E::Name | E::Taken(_) => StatusCode::BAD_REQUEST,
            E::TooMany(_) => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                    .should_retry(false);
            }
            E::NotFound => StatusCode::NOT_FOUND,
        };
        Self::new(status, error.to_string())
    }
}

/// What a client is told of a volume that can't be had now. The cause is the operator's.
pub(crate) fn unavailable(error: &VolumeError) -> StatusCode {
    match error {
        VolumeError::Elsewhere(_) => StatusCode::CONFLICT,
        _ => {
            tracing::error!(error = %Chain(error), "the storage of volumes failed");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

fn id(text: &str) -> Result<VolumeId, ApiError> {
    let parsed = text.parse();
    parsed.map_err(|_| ApiError::bad_request("Invalid volume ID"))
}

fn shown(record: VolumeRecord) -> wire::Volume {
    wire::Volume {
        volume_id: record.id.to_string(),
        name: record.name,
    }
}

fn with_token(view: VolumeView) -> wire::VolumeAndToken {
    wire::VolumeAndToken {
        volume: shown(view.record),
        token: view.token.expose().to_owned(),
        domain: view.domain,
    }
}

/// `POST /volumes`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Json(body): Json<wire::NewVolume>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let work = async move { control.volume_create(&caller, body.name).await };
    let made = detached(&app.control, work).await??;
    Ok(json(StatusCode::CREATED, &with_token(made)))
}

/// `GET /volumes`
pub(crate) async fn list(State(app): State<Arc<App>>, Auth(caller): Auth) -> Answer {
    let volumes = app.control.volume_list(&caller).await?;
    let volumes: Vec<_> = volumes.into_iter().map(shown).collect();
    Ok(json(StatusCode::OK, &volumes))
}

/// `GET /volumes/{volumeID}`
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(volume): PathText,
) -> Answer {
    let found = app.control.volume_get(&caller, id(&volume)?).await?;
    Ok(json(StatusCode::OK, &with_token(found)))
}

/// `DELETE /volumes/{volumeID}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(volume): PathText,
) -> Answer {
    let id = id(&volume)?;
    let control = Arc::clone(&app.control);
    let work = async move { control.volume_delete(&caller, id).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}
