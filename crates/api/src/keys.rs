//! API keys and access tokens.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{
    AccessTokenRecord, CreatedKey, CreatedToken, KeyView, KeysError, NewKey, UserRecord,
};
use warren_types::{AccessTokenId, ApiKeyId, KeyScope};
use warren_wire as wire;

use crate::auth::{Auth, Doer};
use crate::error::ApiError;
use crate::extract::{Json, PathText, json, no_content};
use crate::router::App;

type Answer = Result<Response, ApiError>;

const KEY_PREFIX: &str = "e2b_";
const TOKEN_PREFIX: &str = "sk_e2b_";
/// Characters of a token after its prefix.
const TOKEN_LENGTH: u32 = 40;

impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        use KeysError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::NotFound | E::NoToken => StatusCode::NOT_FOUND,
            E::Name | E::Expiry => StatusCode::BAD_REQUEST,
            E::Scope | E::Foreign => StatusCode::FORBIDDEN,
            E::TooMany => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                    .should_retry(false);
            }
        };
        Self::new(status, error.to_string())
    }
}

pub(crate) fn key_id(text: &str) -> Result<ApiKeyId, ApiError> {
    let parsed = text.parse();
    parsed.map_err(|_| ApiError::bad_request("Invalid API key ID"))
}

pub(crate) fn token_id(text: &str) -> Result<AccessTokenId, ApiError> {
    let parsed = text.parse();
    parsed.map_err(|_| ApiError::bad_request("Invalid access token ID"))
}

fn user_ref(user: UserRecord) -> wire::UserRef {
    wire::UserRef {
        id: user.id.to_string(),
        email: Some(user.email),
    }
}

pub(crate) fn shown_key(view: KeyView) -> wire::TeamApiKey {
    let key = view.record;
    wire::TeamApiKey {
        id: key.id.to_string(),
        name: key.name,
        mask: wire::Mask {
            prefix: KEY_PREFIX.to_owned(),
            value_length: key.value_length,
            masked_value_prefix: key.mask_prefix,
            masked_value_suffix: key.mask_suffix,
        },
        created_at: key.created_at,
        created_by: view.created_by.map(user_ref),
        last_used: key.last_used_at,
        scope: key.scope,
        expires_at: key.expires_at,
    }
}

pub(crate) fn created_key(made: CreatedKey) -> Response {
    let body = wire::CreatedTeamApiKey {
        // The clear key: this answer is the only time that it is shown.
        key: made.clear.expose().to_owned(),
        shown: shown_key(made.view),
    };
    json(StatusCode::CREATED, &body)
}

pub(crate) fn shown_token(token: AccessTokenRecord) -> wire::AccessToken {
    wire::AccessToken {
        id: token.id.to_string(),
        name: token.name,
        mask: wire::Mask {
            prefix: TOKEN_PREFIX.to_owned(),
            value_length: TOKEN_LENGTH,
            masked_value_prefix: token.mask_prefix,
            masked_value_suffix: token.mask_suffix,
        },
        created_at: token.created_at,
        last_used: token.last_used_at,
        scope: token.scope,
        expires_at: token.expires_at,
    }
}

pub(crate) fn created_token(made: CreatedToken) -> Response {
    let body = wire::CreatedAccessToken {
        // The clear token: this answer is the only time that it is shown.
        token: made.clear.expose().to_owned(),
        shown: shown_token(made.record),
    };
    json(StatusCode::CREATED, &body)
}

/// `GET /api-keys`
pub(crate) async fn list(State(app): State<Arc<App>>, Auth(caller): Auth) -> Answer {
    let keys = app.control.key_list(caller.team.id).await?;
    let keys: Vec<wire::TeamApiKey> = keys.into_iter().map(shown_key).collect();
    Ok(json(StatusCode::OK, &keys))
}

/// `POST /api-keys`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Doer(by): Doer,
    Json(body): Json<wire::NewApiKey>,
) -> Answer {
    let (scope, until) = (body.scope, body.expires_at);
    let made = app
        .control
        .key_create_own(&caller, &by, &body.name, scope, until);
    Ok(created_key(made.await?))
}

/// `PATCH /api-keys/{apiKeyID}`
pub(crate) async fn rename(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Doer(by): Doer,
    PathText(id): PathText,
    Json(body): Json<wire::Rename>,
) -> Answer {
    let id = key_id(&id)?;
    let renamed = app.control.key_rename_own(&caller, &by, id, &body.name);
    Ok(json(StatusCode::OK, &shown_key(renamed.await?)))
}

/// `DELETE /api-keys/{apiKeyID}`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Doer(by): Doer,
    PathText(id): PathText,
) -> Answer {
    let id = key_id(&id)?;
    app.control.key_delete_own(&caller, &by, id).await?;
    Ok(no_content())
}

/// `POST /access-tokens`
pub(crate) async fn token_create(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Doer(by): Doer,
    Json(body): Json<wire::NewApiKey>,
) -> Answer {
    let user = caller.user.ok_or(warren_control::AuthError::Missing)?;
    let new = NewKey {
        name: body.name,
        scope: body.scope.unwrap_or(KeyScope::Full),
        expires_at: body.expires_at,
        created_by: Some(user),
    };
    Ok(created_token(
        app.control.token_create(&by, user, new).await?,
    ))
}

/// `DELETE /access-tokens/{accessTokenID}`
pub(crate) async fn token_delete(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Doer(by): Doer,
    PathText(id): PathText,
) -> Answer {
    let user = caller.user.ok_or(warren_control::AuthError::Missing)?;
    app.control.token_delete(&by, user, token_id(&id)?).await?;
    Ok(no_content())
}
