//! Lifecycle events, and the webhooks that they are delivered to.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Format of [`SandboxEvent`].
pub const EVENT_VERSION: &str = "v2";

/// A lifecycle event: element of lists, and body of deliveries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxEvent {
    /// Names the event: receivers that get it twice can tell.
    pub id: String,
    /// [`EVENT_VERSION`].
    pub version: String,
    /// Kind, such as `sandbox.lifecycle.created`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Further facts.
    pub event_data: Value,
    /// The sandbox.
    pub sandbox_id: String,
    /// The run that it was in.
    pub sandbox_execution_id: String,
    /// Template it was made from.
    pub sandbox_template_id: String,
    /// Build it was made from.
    pub sandbox_build_id: String,
    /// Its team.
    pub sandbox_team_id: String,
}

/// Body of `POST /events/webhooks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewWebhook {
    /// What the team calls it.
    pub name: String,
    /// Where events are sent.
    pub url: String,
    /// Whether any are sent; they are if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Kinds of events wanted.
    pub events: Vec<String>,
    /// What deliveries are signed with; made and returned if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_secret: Option<String>,
}

/// Body of `PATCH /events/webhooks/{webhookID}`; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookChange {
    /// What the team calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where events are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether any are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Kinds of events wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<String>>,
    /// What deliveries are signed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_secret: Option<String>,
}

/// A webhook. Its secret is in the answer to the request that had it made, and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Its id.
    pub id: String,
    /// Its team.
    pub team_id: String,
    /// What the team calls it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether any events are sent.
    pub enabled: bool,
    /// Where events are sent.
    pub url: String,
    /// Kinds of events wanted.
    pub events: Vec<String>,
    /// A secret that was made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_secret: Option<String>,
}

/// The delivery of one event to one webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookDelivery {
    /// Its id, which every try of it bears.
    pub id: String,
    /// The event.
    pub event_id: String,
    /// Kind of the event.
    pub event_type: String,
    /// Sandbox of the event.
    pub sandbox_id: String,
    /// `pending`, `delivered` or `failed`.
    pub status: String,
    /// When the event was written.
    pub created_at: Timestamp,
    /// When it is tried next, while it is pending.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<Timestamp>,
    /// The tries, oldest first.
    pub attempts: Vec<WebhookAttempt>,
}

/// One try of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WebhookAttempt {
    /// When it began.
    pub at: Timestamp,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// Status of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
