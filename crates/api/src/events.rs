//! Lifecycle events and webhooks.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{
    Caller, DeliveryRecord, DeliveryState, EventQuery, NewWebhook, WebhookChange, WebhookError,
    WebhookRecord, event_body,
};
use warren_service::Secret;
use warren_types::{EventKind, SandboxId, WebhookId};
use warren_wire as wire;

use crate::auth::Auth;
use crate::error::ApiError;
use crate::extract::{Json, PathText, Query, SandboxPath, json, no_content};
use crate::router::App;

type Answer = Result<Response, ApiError>;

impl From<WebhookError> for ApiError {
    fn from(error: WebhookError) -> Self {
        use WebhookError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::NotFound => StatusCode::NOT_FOUND,
            E::Disabled => StatusCode::FORBIDDEN,
            E::TooMany => {
                return Self::new(StatusCode::TOO_MANY_REQUESTS, error.to_string())
                    .should_retry(false);
            }
            E::Name
            | E::Secret
            | E::Url(_)
            | E::NoEvents
            | E::Event(_)
            | E::Page(_)
            | E::Offset => StatusCode::BAD_REQUEST,
        };
        Self::new(status, error.to_string())
    }
}

fn id(text: &str) -> Result<WebhookId, ApiError> {
    let parsed = text.parse();
    parsed.map_err(|_| ApiError::bad_request("Invalid webhook ID"))
}

fn shown(webhook: &WebhookRecord) -> wire::Webhook {
    let events = webhook.kinds.iter().map(|kind| kind.as_str().to_owned());
    wire::Webhook {
        id: webhook.id.to_string(),
        team_id: webhook.team_id.to_string(),
        name: webhook.name.clone(),
        created_at: webhook.created_at,
        enabled: webhook.enabled,
        url: webhook.url.clone(),
        events: events.collect(),
        signature_secret: None,
    }
}

fn delivery(record: DeliveryRecord) -> wire::WebhookDelivery {
    let attempts = record
        .attempts
        .into_iter()
        .map(|attempt| wire::WebhookAttempt {
            at: attempt.at,
            duration_ms: attempt.duration_ms,
            status_code: attempt.status,
            error: attempt.error,
        });
    wire::WebhookDelivery {
        id: record.id.to_string(),
        event_id: record.event.id.to_string(),
        event_type: record.event.kind.as_str().to_owned(),
        sandbox_id: record.event.sandbox_id.to_string(),
        status: record.state.as_str().to_owned(),
        created_at: record.created_at,
        next_attempt_at: (record.state == DeliveryState::Pending).then_some(record.next_at),
        attempts: attempts.collect(),
    }
}

async fn listed(app: &App, caller: &Caller, sandbox: Option<SandboxId>, query: &Query) -> Answer {
    let ascending = match query.filled("orderAsc") {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => return Err(ApiError::validation("orderAsc must be true or false")),
    };
    let kinds = query.list("types");
    if kinds.len() > EventKind::ALL.len() {
        return Err(ApiError::validation(
            "types names more events than there are",
        ));
    }
    let events = EventQuery {
        sandbox,
        kinds: kinds.into_iter().map(str::to_owned).collect(),
        ascending,
        offset: query.integer("offset")?,
        limit: query.integer("limit")?,
    };
    let events = app.control.event_list(caller, events).await?;
    let events: Vec<_> = events.iter().map(event_body).collect();
    Ok(json(StatusCode::OK, &events))
}

/// `GET /events/sandboxes`
pub(crate) async fn list(State(app): State<Arc<App>>, Auth(caller): Auth, query: Query) -> Answer {
    listed(&app, &caller, None, &query).await
}

/// `GET /events/sandboxes/{sandboxID}`
pub(crate) async fn list_one(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    SandboxPath(sandbox): SandboxPath,
    query: Query,
) -> Answer {
    listed(&app, &caller, Some(sandbox), &query).await
}

/// `POST /events/webhooks`
pub(crate) async fn webhook_create(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    Json(body): Json<wire::NewWebhook>,
) -> Answer {
    let new = NewWebhook {
        name: body.name,
        url: body.url,
        enabled: body.enabled.unwrap_or(true),
        kinds: body.events,
        secret: body.signature_secret.map(Secret::new),
    };
    let (made, is_secret_made) = app.control.webhook_create(&caller, new).await?;
    let mut answer = shown(&made);
    // Only this once, to whom it was made for.
    answer.signature_secret = is_secret_made.then(|| made.secret.expose().to_owned());
    Ok(json(StatusCode::CREATED, &answer))
}

/// `GET /events/webhooks`
pub(crate) async fn webhook_list(State(app): State<Arc<App>>, Auth(caller): Auth) -> Answer {
    let webhooks = app.control.webhook_list(&caller).await?;
    let webhooks: Vec<_> = webhooks.iter().map(shown).collect();
    Ok(json(StatusCode::OK, &webhooks))
}

/// `GET /events/webhooks/{webhookID}`
pub(crate) async fn webhook_get(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(webhook): PathText,
) -> Answer {
    let found = app.control.webhook_get(&caller, id(&webhook)?).await?;
    Ok(json(StatusCode::OK, &shown(&found)))
}

/// `PATCH /events/webhooks/{webhookID}`
pub(crate) async fn webhook_update(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(webhook): PathText,
    Json(body): Json<wire::WebhookChange>,
) -> Answer {
    let change = WebhookChange {
        name: body.name,
        url: body.url,
        enabled: body.enabled,
        kinds: body.events,
        secret: body.signature_secret.map(Secret::new),
    };
    let changed = app
        .control
        .webhook_update(&caller, id(&webhook)?, change)
        .await?;
    Ok(json(StatusCode::OK, &shown(&changed)))
}

/// `DELETE /events/webhooks/{webhookID}`
pub(crate) async fn webhook_delete(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(webhook): PathText,
) -> Answer {
    app.control.webhook_delete(&caller, id(&webhook)?).await?;
    Ok(no_content())
}

/// `GET /events/webhooks/{webhookID}/deliveries`
pub(crate) async fn deliveries(
    State(app): State<Arc<App>>,
    Auth(caller): Auth,
    PathText(webhook): PathText,
    query: Query,
) -> Answer {
    let (limit, offset) = (query.integer("limit")?, query.integer("offset")?);
    let all = app
        .control
        .webhook_deliveries(&caller, id(&webhook)?, limit, offset)
        .await?;
    let all: Vec<_> = all.into_iter().map(delivery).collect();
    Ok(json(StatusCode::OK, &all))
}
