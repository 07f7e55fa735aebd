//! What befell sandboxes, and the webhooks that are told.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use warren_control::{DeliveryRecord, EventQuery, NewWebhook, WebhookChange, WebhookRecord};
use warren_types::{EventKind, WebhookId};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::sandbox::sandbox_id;
use crate::view::{EventRow, moment};
use crate::visitor::{Frame, Posted, SignedIn};

/// Events and deliveries of one page.
const PAGE: i64 = 50;

#[derive(Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    sandbox: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    offset: i64,
}

#[derive(Template)]
#[template(path = "events.html")]
struct EventsPage {
    frame: Option<Frame>,
    sandbox: String,
    kind: String,
    kinds: [&'static str; 6],
    events: Vec<EventRow>,
    next: Option<i64>,
}

/// `GET /dashboard/events`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(filter): Query<Filter>,
) -> Answer {
    let sandbox = filter.sandbox.trim();
    let query = EventQuery {
        sandbox: (!sandbox.is_empty())
            .then(|| sandbox_id(sandbox))
            .transpose()?,
        kinds: Some(filter.kind.clone())
            .filter(|kind| !kind.is_empty())
            .into_iter()
            .collect(),
        offset: Some(filter.offset),
        limit: Some(PAGE),
        ..EventQuery::default()
    };
    let events = app.control.event_list(&visitor.caller, query).await?;
    let is_full = i64::try_from(events.len()).is_ok_and(|count| count == PAGE);
    html(&EventsPage {
        frame: visitor.frame("events"),
        sandbox: sandbox.to_owned(),
        kind: filter.kind,
        kinds: EventKind::ALL.map(EventKind::as_str),
        events: events.iter().map(EventRow::new).collect(),
        next: is_full.then_some(filter.offset + PAGE),
    })
}

#[derive(Debug)]
struct WebhookRow {
    id: String,
    name: String,
    url: String,
    enabled: bool,
    kinds: String,
    created: String,
}

impl WebhookRow {
    fn new(webhook: &WebhookRecord) -> Self {
        let kinds: Vec<&str> = webhook.kinds.iter().map(|kind| short(*kind)).collect();
        Self {
            id: webhook.id.to_string(),
            name: webhook.name.clone(),
            url: webhook.url.clone(),
            enabled: webhook.enabled,
            kinds: kinds.join(", "),
            created: moment(webhook.created_at),
        }
    }
}

fn short(kind: EventKind) -> &'static str {
    let name = kind.as_str();
    name.rsplit('.').next().unwrap_or(name)
}

#[derive(Template)]
#[template(path = "webhooks.html")]
struct WebhooksPage {
    frame: Option<Frame>,
    webhooks: Vec<WebhookRow>,
    kinds: Vec<(&'static str, &'static str)>,
    /// Shown once: what a new webhook's deliveries are signed with.
    secret: Option<String>,
}

async fn webhooks_page(app: &App, visitor: &SignedIn, secret: Option<String>) -> Answer {
    let webhooks = app.control.webhook_list(&visitor.caller).await?;
    html(&WebhooksPage {
        frame: visitor.frame("events"),
        webhooks: webhooks.iter().map(WebhookRow::new).collect(),
        kinds: EventKind::ALL
            .map(|kind| (kind.as_str(), short(kind)))
            .to_vec(),
        secret,
    })
}

/// `GET /dashboard/webhooks`
pub(crate) async fn webhooks(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    webhooks_page(&app, &visitor, None).await
}

/// A field for each kind, since forms repeat names and the reader of forms does not.
#[derive(Deserialize)]
pub(crate) struct Creation {
    name: String,
    url: String,
    created: Option<String>,
    updated: Option<String>,
    paused: Option<String>,
    resumed: Option<String>,
    checkpointed: Option<String>,
    killed: Option<String>,
}

impl Creation {
    fn kinds(&self) -> Vec<String> {
        let chosen = [
            (&self.created, EventKind::Created),
            (&self.updated, EventKind::Updated),
            (&self.paused, EventKind::Paused),
            (&self.resumed, EventKind::Resumed),
            (&self.checkpointed, EventKind::Checkpointed),
            (&self.killed, EventKind::Killed),
        ];
        let kinds = chosen.into_iter().filter(|(mark, _)| mark.is_some());
        kinds.map(|(_, kind)| kind.as_str().to_owned()).collect()
    }
}

/// `POST /dashboard/webhooks`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let (control, caller) = (Arc::clone(&app.control), Arc::clone(&visitor.caller));
    let new = NewWebhook {
        kinds: creation.kinds(),
        name: creation.name.trim().to_owned(),
        url: creation.url.trim().to_owned(),
        enabled: true,
        secret: None,
    };
    let made = detached(
        &app,
        async move { control.webhook_create(&caller, new).await },
    );
    let (webhook, _) = made.await??;
    webhooks_page(&app, &visitor, Some(webhook.secret.expose().to_owned())).await
}

fn webhook_id(text: &str) -> Result<WebhookId, PageError> {
    text.parse()
        .map_err(|_| PageError::NotFound("webhook".to_owned()))
}

#[derive(Deserialize)]
pub(crate) struct Switch {
    enabled: bool,
}

/// `POST /dashboard/webhooks/{id}/switch`
pub(crate) async fn switch(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, switch): Posted<Switch>,
) -> Answer {
    let (control, id) = (Arc::clone(&app.control), webhook_id(&id)?);
    let change = WebhookChange {
        enabled: Some(switch.enabled),
        ..WebhookChange::default()
    };
    detached(&app, async move {
        control.webhook_update(&visitor.caller, id, change).await
    })
    .await??;
    back_to("/dashboard/webhooks")
}

/// `POST /dashboard/webhooks/{id}/delete`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, id) = (Arc::clone(&app.control), webhook_id(&id)?);
    detached(&app, async move {
        control.webhook_delete(&visitor.caller, id).await
    })
    .await??;
    back_to("/dashboard/webhooks")
}

#[derive(Debug)]
struct DeliveryRow {
    at: String,
    event: &'static str,
    sandbox: String,
    state: &'static str,
    attempts: usize,
    last: String,
}

impl DeliveryRow {
    fn new(delivery: &DeliveryRecord) -> Self {
        let last = delivery.attempts.last().map_or(String::new(), |attempt| {
            let answer = match (attempt.status, &attempt.error) {
                (_, Some(error)) => error.clone(),
                (Some(status), None) => status.to_string(),
                (None, None) => "no answer".to_owned(),
            };
            format!("{answer}, {} ms", attempt.duration_ms)
        });
        Self {
            at: moment(delivery.created_at),
            event: short(delivery.event.kind),
            sandbox: delivery.event.sandbox_id.to_string(),
            state: delivery.state.as_str(),
            attempts: delivery.attempts.len(),
            last,
        }
    }
}

#[derive(Template)]
#[template(path = "webhook.html")]
struct WebhookPage {
    frame: Option<Frame>,
    webhook: WebhookRow,
    deliveries: Vec<DeliveryRow>,
}

/// `GET /dashboard/webhooks/{id}`
pub(crate) async fn webhook(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
) -> Answer {
    let id = webhook_id(&id)?;
    let webhook = app.control.webhook_get(&visitor.caller, id).await?;
    let deliveries = app
        .control
        .webhook_deliveries(&visitor.caller, id, Some(PAGE), None)
        .await?;
    html(&WebhookPage {
        frame: visitor.frame("events"),
        webhook: WebhookRow::new(&webhook),
        deliveries: deliveries.iter().map(DeliveryRow::new).collect(),
    })
}
