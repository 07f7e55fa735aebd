//! Webhooks, and what is delivered to them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use warren_service::Secret;
use warren_types::{DeliveryId, EventKind, TeamId, WebhookId};

use crate::error::{malformed, query};
use crate::events::{EventRecord, EventRow};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// An address that a team wants events delivered to.
#[derive(Debug, Clone)]
pub struct WebhookRecord {
    /// Its id.
    pub id: WebhookId,
    /// The team whose events it gets.
    pub team_id: TeamId,
    /// What the team calls it.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// Whether any are sent.
    pub enabled: bool,
    /// The events wanted.
    pub kinds: BTreeSet<EventKind>,
    /// What deliveries are signed with.
    pub secret: Secret,
    /// When it was made.
    pub created_at: Timestamp,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be tried, or tried again.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryState {
    /// The state as the stable word that the database and clients know.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Failed]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// One try of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Why it did not succeed.
    pub error: Option<String>,
}

/// A delivery with its event.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Its id.
    pub id: DeliveryId,
    /// Where to.
    pub webhook_id: WebhookId,
    /// What is delivered.
    pub event: EventRecord,
    /// How far it is.
    pub state: DeliveryState,
    /// When it is tried next, of a pending one.
    pub next_at: Timestamp,
    /// The tries so far, oldest first.
    pub attempts: Vec<AttemptRecord>,
    /// When it was written.
    pub created_at: Timestamp,
}

#[derive(FromRow)]
struct WebhookRow {
    id: String,
    team_id: String,
    name: String,
    url: String,
    enabled: i64,
    kinds: String,
    secret: String,
    created_at: i64,
}

impl TryFrom<WebhookRow> for WebhookRecord {
    type Error = StoreError;

    fn try_from(row: WebhookRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        let kinds = row.kinds.split(',').filter(|kind| !kind.is_empty());
        let kinds: Result<_, _> = kinds.map(str::parse).collect();
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            team_id: row.team_id.parse().map_err(|_| bad("team_id"))?,
            kinds: kinds.map_err(|_| bad("kinds"))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            enabled: row.enabled != 0,
            name: row.name,
            url: row.url,
            secret: Secret::new(row.secret),
        })
    }
}

fn kinds(kinds: &BTreeSet<EventKind>) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    format!(",{},", names.join(","))
}

#[derive(FromRow)]
struct DeliveryRow {
    delivery_id: String,
    webhook_id: String,
    delivery_state: String,
    next_at: i64,
    attempts: String,
    created_at: i64,
    #[sqlx(flatten)]
    event: EventRow,
}

const DELIVERY: &str = "SELECT d.id AS delivery_id, d.webhook_id, d.state AS delivery_state,
                               d.next_at, d.attempts, d.created_at, e.*
                        FROM deliveries d JOIN events e ON e.seq = d.event_seq";

impl TryFrom<DeliveryRow> for DeliveryRecord {
    type Error = StoreError;

    fn try_from(row: DeliveryRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.delivery_id);
        Ok(Self {
            id: row.delivery_id.parse().map_err(|_| bad("id"))?,
            webhook_id: row.webhook_id.parse().map_err(|_| bad("webhook_id"))?,
            state: DeliveryState::parse(&row.delivery_state).ok_or_else(|| bad("state"))?,
            next_at: timestamp(row.next_at, "next_at", &row.delivery_id)?,
            attempts: serde_json::from_str(&row.attempts).map_err(|_| bad("attempts"))?,
            created_at: timestamp(row.created_at, "created_at", &row.delivery_id)?,
            event: row.event.try_into()?,
        })
    }
}

impl Store {
    /// Adds a webhook unless the team has `limit` of them. Returns whether it was added.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn webhook_insert(
        &self,
        webhook: &WebhookRecord,
        limit: u32,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "INSERT INTO webhooks (id, team_id, name, url, enabled, kinds, secret, created_at)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE (SELECT COUNT(*) FROM webhooks WHERE team_id = $2) < $9",
        )
        .bind(webhook.id.to_string())
        .bind(webhook.team_id.to_string())
        .bind(&webhook.name)
        .bind(&webhook.url)
        .bind(i64::from(webhook.enabled))
        .bind(kinds(&webhook.kinds))
        // Every delivery is signed with it.
        .bind(webhook.secret.expose())
        .bind(micros(webhook.created_at))
        .bind(i64::from(limit))
        .execute(&self.writer)
        .await
        .map_err(query("add webhook"))?;
        Ok(done.rows_affected() > 0)
    }

    /// The webhooks of a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn webhook_list(&self, team: TeamId) -> Result<Vec<WebhookRecord>, StoreError> {
        let rows: Vec<WebhookRow> =
            sqlx::query_as("SELECT * FROM webhooks WHERE team_id = $1 ORDER BY created_at, id")
                .bind(team.to_string())
                .fetch_all(&self.reader)
                .await
                .map_err(query("list webhooks"))?;
        rows.into_iter().map(WebhookRecord::try_from).collect()
    }

    /// A webhook, whosever it is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn webhook_get(&self, id: WebhookId) -> Result<Option<WebhookRecord>, StoreError> {
        let row: Option<WebhookRow> = sqlx::query_as("SELECT * FROM webhooks WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("read webhook"))?;
        row.map(WebhookRecord::try_from).transpose()
    }

    /// Replaces what can change of a webhook: all but its id, team and age. Returns whether
    /// there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn webhook_update(&self, webhook: &WebhookRecord) -> Result<bool, StoreError> {
        let done = sqlx::query(
            "UPDATE webhooks SET name = $3, url = $4, enabled = $5, kinds = $6, secret = $7
             WHERE id = $1 AND team_id = $2",
        )
        .bind(webhook.id.to_string())
        .bind(webhook.team_id.to_string())
        .bind(&webhook.name)
        .bind(&webhook.url)
        .bind(i64::from(webhook.enabled))
        .bind(kinds(&webhook.kinds))
        // Every delivery is signed with it.
        .bind(webhook.secret.expose())
        .execute(&self.writer)
        .await
        .map_err(query("change webhook"))?;
        self.outbox.notify_one();
        Ok(done.rows_affected() > 0)
    }

    /// Deletes a webhook of the team and its deliveries. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn webhook_delete(&self, team: TeamId, id: WebhookId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM webhooks WHERE id = $1 AND team_id = $2")
            .bind(id.to_string())
            .bind(team.to_string())
            .execute(&self.writer)
            .await
            .map_err(query("delete webhook"))?;
        Ok(done.rows_affected() > 0)
    }

    /// Resolves when deliveries may have been written since the last time.
    pub async fn outbox_changed(&self) {
        self.outbox.notified().await;
    }

    /// The enabled webhooks that something is to be delivered to, with the time of the next.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn outbox(&self) -> Result<Vec<(WebhookId, Timestamp)>, StoreError> {
        let rows: Vec<(String, i64)> = sqlx::query_as(
            "SELECT d.webhook_id, MIN(d.next_at) FROM deliveries d
             JOIN webhooks w ON w.id = d.webhook_id
             WHERE d.state = 'pending' AND w.enabled = 1 GROUP BY d.webhook_id",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("look for deliveries"))?;
        rows.into_iter()
            .map(|(id, at)| {
                let webhook = id.parse().map_err(|_| malformed("webhook_id", &id))?;
                Ok((webhook, timestamp(at, "next_at", &id)?))
            })
            .collect()
    }

    /// Up to `limit` deliveries to a webhook that are due, in the order of their events.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn deliveries_due(
        &self,
        webhook: WebhookId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let statement = format!(
            "{DELIVERY} WHERE d.webhook_id = $1 AND d.state = 'pending' AND d.next_at <= $2
             ORDER BY d.event_seq LIMIT $3"
        );
        let rows: Vec<DeliveryRow> = sqlx::query_as(&statement)
            .bind(webhook.to_string())
            .bind(micros(now))
            .bind(i64::from(limit))
            .fetch_all(&self.reader)
            .await
            .map_err(query("read deliveries"))?;
        rows.into_iter().map(DeliveryRecord::try_from).collect()
    }

    /// Deliveries to a webhook, newest first, leaving out `offset`.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn delivery_list(
        &self,
        webhook: WebhookId,
        limit: u32,
        offset: u32,
    ) -> Result<Vec<DeliveryRecord>, StoreError> {
        let statement = format!(
            "{DELIVERY} WHERE d.webhook_id = $1
             ORDER BY d.created_at DESC, d.event_seq DESC LIMIT $2 OFFSET $3"
        );
        let rows: Vec<DeliveryRow> = sqlx::query_as(&statement)
            .bind(webhook.to_string())
            .bind(i64::from(limit))
            .bind(i64::from(offset))
            .fetch_all(&self.reader)
            .await
            .map_err(query("list deliveries"))?;
        rows.into_iter().map(DeliveryRecord::try_from).collect()
    }

    /// Writes down what became of a try.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn delivery_tried(&self, delivery: &DeliveryRecord) -> Result<(), StoreError> {
        let attempts = serde_json::to_string(&delivery.attempts)
            .map_err(|_| malformed("attempts", &delivery.id.to_string()))?;
        sqlx::query("UPDATE deliveries SET state = $2, next_at = $3, attempts = $4 WHERE id = $1")
            .bind(delivery.id.to_string())
            .bind(delivery.state.as_str())
            .bind(micros(delivery.next_at))
            .bind(attempts)
            .execute(&self.writer)
            .await
            .map_err(query("write down a delivery"))?;
        Ok(())
    }
}
