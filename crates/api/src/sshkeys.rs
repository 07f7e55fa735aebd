//! Public keys of SSH clients, and where the server speaks SSH.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{Method, StatusCode};
use warren_control::{SshKeyError, SshKeyRecord};
use warren_wire as wire;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{Json, PathText, json, no_content};
use crate::operations::Access;
use crate::router::{App, Table};

type Answer = Result<Response, ApiError>;

/// The routes.
pub(crate) fn routes(table: Table) -> Table {
    const ALL: &str = "/ssh-keys";
    table
        .built(Method::GET, ALL, Access::Key, list)
        .built(Method::POST, ALL, Access::Key, add)
        .built(Method::DELETE, "/ssh-keys/{keyID}", Access::Key, remove)
        .built(Method::GET, "/ssh", Access::Key, server)
}

fn shown(key: SshKeyRecord) -> wire::SshKey {
    wire::SshKey {
        key_id: key.id.to_string(),
        name: key.name,
        public_key: key.public_key,
        fingerprint: key.fingerprint,
        created_at: key.created_at,
        last_used_at: key.last_used_at,
    }
}

/// `GET /ssh-keys`
async fn list(State(app): State<Arc<App>>, Auth(caller): Auth) -> Answer {
    let keys = app.control.ssh_key_list(&caller).await?;
    let keys: Vec<_> = keys.into_iter().map(shown).collect();
    Ok(json(StatusCode::OK, &keys))
}

/// `POST /ssh-keys`
async fn add(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Json(body): Json<wire::NewSshKey>,
) -> Answer {
    let name = body.name.as_deref();
    let key = app
        .control
        .ssh_key_add(&caller, &body.public_key, name)
        .await?;
    Ok(json(StatusCode::CREATED, &shown(key)))
}

/// `DELETE /ssh-keys/{keyID}`
async fn remove(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(key): PathText,
) -> Answer {
    let key = key.parse().map_err(|_| SshKeyError::NotFound)?;
    app.control.ssh_key_remove(&caller, key).await?;
    Ok(no_content())
}

/// `GET /ssh`
async fn server(State(app): State<Arc<App>>, Auth(_): Auth) -> Answer {
    match &app.ssh {
        Some(server) => Ok(json(StatusCode::OK, server)),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "this server does not speak SSH; its operator can start it with --ssh-listen",
        )),
    }
}

impl From<SshKeyError> for ApiError {
    fn from(error: SshKeyError) -> Self {
        use SshKeyError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::NotFound => StatusCode::NOT_FOUND,
            E::Known => StatusCode::CONFLICT,
            E::Malformed | E::Kind(_) | E::Name | E::TooMany => StatusCode::BAD_REQUEST,
        };
        Self::told(status, &error)
    }
}
