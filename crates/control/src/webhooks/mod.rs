//! Lifecycle events: reading them, and the webhooks that they are delivered to.

mod deliver;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use warren_service::Secret;
use warren_store::{DeliveryRecord, EventFilter, EventRecord, StoreError, WebhookRecord};
use warren_types::{EventKind, SandboxId, UnknownEvent, WebhookId};
use warren_webhook::{Sender, UrlError, check_url};
use warren_wire as wire;

use crate::paging::{self, PageError};
use crate::{Caller, Control};

/// Webhooks of a team.
const MAX_WEBHOOKS: u32 = 20;
const MAX_NAME: usize = 128;
const MAX_SECRET: usize = 256;
/// Events in one answer where no number is asked for.
const EVENTS: i64 = 10;
/// Nobody pages further; whoever wants all gets them delivered.
const MAX_OFFSET: i64 = 1_000_000;

/// How events are sent to webhooks.
#[derive(Debug, Clone)]
pub struct WebhookConfig {
    /// Sends them.
    pub sender: Sender,
    /// Time between tries; after the last one an event is given up.
    pub backoff: Vec<Duration>,
}

impl WebhookConfig {
    /// Nine tries within half a day.
    #[must_use]
    pub fn new(sender: Sender) -> Self {
        let backoff = [1, 5, 30, 120, 600, 3600, 3 * 3600, 8 * 3600];
        Self {
            sender,
            backoff: backoff.map(Duration::from_secs).to_vec(),
        }
    }
}

/// Which events are wanted.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// Of this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Of these kinds; none means all.
    pub kinds: Vec<String>,
    /// Oldest first.
    pub ascending: bool,
    /// How many to leave out.
    pub offset: Option<i64>,
    /// At most this many.
    pub limit: Option<i64>,
}

/// A webhook to be made.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// What the team calls it.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// Whether any are sent.
    pub enabled: bool,
    /// Kinds of events wanted.
    pub kinds: Vec<String>,
    /// What deliveries are signed with; made if absent.
    pub secret: Option<Secret>,
}

/// A change of a webhook; what is absent stays.
#[derive(Debug, Clone, Default)]
pub struct WebhookChange {
    /// What the team calls it.
    pub name: Option<String>,
    /// Where events are sent.
    pub url: Option<String>,
    /// Whether any are sent.
    pub enabled: Option<bool>,
    /// Kinds of events wanted.
    pub kinds: Option<Vec<String>>,
    /// What deliveries are signed with.
    pub secret: Option<Secret>,
}

/// Why a request about events or webhooks was refused.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Unknown, or another team's.
    #[error("Webhook not found")]
    NotFound,
    /// This server has none.
    #[error("webhooks are not enabled")]
    Disabled,
    /// Empty or too long.
    #[error("validation error: name must have 1 to {MAX_NAME} characters")]
    Name,
    /// Empty or too long.
    #[error("validation error: signatureSecret must have 1 to {MAX_SECRET} characters")]
    Secret,
    /// Nothing can be sent there.
    #[error("validation error: url: {0}")]
    Url(#[from] UrlError),
    /// It would never get anything.
    #[error("validation error: events must not be empty")]
    NoEvents,
    /// No event is called that.
    #[error("validation error: {0}")]
    Event(#[from] UnknownEvent),
    /// The team has its fill.
    #[error("you have reached the maximum number of webhooks ({MAX_WEBHOOKS})")]
    TooMany,
    /// A bad page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A bad page.
    #[error("validation error: offset must be between 0 and {MAX_OFFSET}")]
    Offset,
    /// The database failed.
    #[error("read or write webhooks")]
    Store(#[from] StoreError),
}

/// An event as clients and webhooks get it.
#[must_use]
pub fn event_body(event: &EventRecord) -> wire::SandboxEvent {
    wire::SandboxEvent {
        id: event.id.to_string(),
        version: wire::EVENT_VERSION.to_owned(),
        kind: event.kind.as_str().to_owned(),
        timestamp: event.at,
        event_data: event.data.clone(),
        sandbox_id: event.sandbox_id.to_string(),
        sandbox_execution_id: event.run_id.to_string(),
        sandbox_template_id: event.template_id.to_string(),
        sandbox_build_id: event.build_id.to_string(),
        sandbox_team_id: event.team_id.to_string(),
    }
}

fn kinds<S: FromIterator<EventKind>>(names: &[String]) -> Result<S, UnknownEvent> {
    names.iter().map(|name| name.parse()).collect()
}

fn wanted(names: &[String]) -> Result<BTreeSet<EventKind>, WebhookError> {
    let kinds: BTreeSet<EventKind> = kinds(names)?;
    if kinds.is_empty() {
        return Err(WebhookError::NoEvents);
    }
    Ok(kinds)
}

fn checked_name(name: String) -> Result<String, WebhookError> {
    let is_fine = (1..=MAX_NAME).contains(&name.chars().count());
    is_fine.then_some(name).ok_or(WebhookError::Name)
}

fn checked_secret(secret: Secret) -> Result<Secret, WebhookError> {
    let is_fine = (1..=MAX_SECRET).contains(&secret.expose().len());
    is_fine.then_some(secret).ok_or(WebhookError::Secret)
}

fn random_secret() -> Secret {
    let bytes: [u8; 24] = rand::rng().random();
    Secret::new(format!("whsec_{}", hex::encode(bytes)))
}

fn number(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

impl Control {
    /// What befell the caller's sandboxes, also those that are gone.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn event_list(
        &self,
        caller: &Caller,
        query: EventQuery,
    ) -> Result<Vec<EventRecord>, WebhookError> {
        let (limit, offset) = page(query.limit, query.offset)?;
        let filter = EventFilter {
            team: caller.team.id,
            sandbox: query.sandbox,
            kinds: kinds(&query.kinds)?,
            ascending: query.ascending,
            offset,
            limit,
        };
        Ok(self.store.event_list(&filter).await?)
    }

    fn sender(&self) -> Result<&Sender, WebhookError> {
        let config = self.config.webhooks.as_ref();
        config
            .map(|config| &config.sender)
            .ok_or(WebhookError::Disabled)
    }

    /// Makes a webhook. Returns it, and whether its secret was made too.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn webhook_create(
        &self,
        caller: &Caller,
        new: NewWebhook,
    ) -> Result<(WebhookRecord, bool), WebhookError> {
        let url = check_url(&new.url, self.sender()?.allows_private())?;
        let given = new.secret.map(checked_secret).transpose()?;
        let is_made = given.is_none();
        let webhook = WebhookRecord {
            id: WebhookId::random(),
            team_id: caller.team.id,
            name: checked_name(new.name)?,
            url: url.into(),
            enabled: new.enabled,
            kinds: wanted(&new.kinds)?,
            secret: given.unwrap_or_else(random_secret),
            created_at: crate::create::micros(Timestamp::now()),
        };
        if self.store.webhook_insert(&webhook, MAX_WEBHOOKS).await? {
            Ok((webhook, is_made))
        } else {
            Err(WebhookError::TooMany)
        }
    }

    /// The caller's webhooks, oldest first.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn webhook_list(&self, caller: &Caller) -> Result<Vec<WebhookRecord>, WebhookError> {
        Ok(self.store.webhook_list(caller.team.id).await?)
    }

    /// A webhook of the caller's.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn webhook_get(
        &self,
        caller: &Caller,
        id: WebhookId,
    ) -> Result<WebhookRecord, WebhookError> {
        let found = self.store.webhook_get(id).await?;
        found
            .filter(|webhook| webhook.team_id == caller.team.id)
            .ok_or(WebhookError::NotFound)
    }

    /// Changes a webhook. What waits for it goes to where it leads then.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn webhook_update(
        &self,
        caller: &Caller,
        id: WebhookId,
        change: WebhookChange,
    ) -> Result<WebhookRecord, WebhookError> {
        let mut webhook = self.webhook_get(caller, id).await?;
        if let Some(name) = change.name {
            webhook.name = checked_name(name)?;
        }
        if let Some(url) = change.url {
            webhook.url = check_url(&url, self.sender()?.allows_private())?.into();
        }
        if let Some(enabled) = change.enabled {
            webhook.enabled = enabled;
        }
        if let Some(kinds) = change.kinds {
            webhook.kinds = wanted(&kinds)?;
        }
        if let Some(secret) = change.secret {
            webhook.secret = checked_secret(secret)?;
        }
        if self.store.webhook_update(&webhook).await? {
            Ok(webhook)
        } else {
            Err(WebhookError::NotFound)
        }
    }

    /// Deletes a webhook and what waits for it.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn webhook_delete(&self, caller: &Caller, id: WebhookId) -> Result<(), WebhookError> {
        if self.store.webhook_delete(caller.team.id, id).await? {
            Ok(())
        } else {
            Err(WebhookError::NotFound)
        }
    }

    /// What was and will be delivered to a webhook, newest first.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub async fn webhook_deliveries(
        &self,
        caller: &Caller,
        id: WebhookId,
        limit: Option<i64>,
        offset: Option<i64>,
    ) -> Result<Vec<DeliveryRecord>, WebhookError> {
        self.webhook_get(caller, id).await?;
        let (limit, offset) = page(limit, offset)?;
        Ok(self.store.delivery_list(id, limit, offset).await?)
    }
}

/// Checks how many are asked for, and how many are to be left out.
fn page(limit: Option<i64>, offset: Option<i64>) -> Result<(u32, u32), WebhookError> {
    let limit = paging::limit(Some(limit.unwrap_or(EVENTS)))?;
    let offset = offset.unwrap_or(0);
    if !(0..=MAX_OFFSET).contains(&offset) {
        return Err(WebhookError::Offset);
    }
    Ok((u32::try_from(limit).unwrap_or(u32::MAX), number(offset)))
}

/// Webhooks that something is being sent to.
#[derive(Debug, Default)]
pub(crate) struct Busy(Mutex<BTreeSet<WebhookId>>);

impl Busy {
    fn enter(&self, id: WebhookId) -> bool {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        busy.insert(id)
    }

    fn leave(&self, id: WebhookId) {
        let mut busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        busy.remove(&id);
    }

    fn has(&self, id: WebhookId) -> bool {
        let busy = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        busy.contains(&id)
    }
}
