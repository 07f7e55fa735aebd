//! Addresses that events are sent to.

use http::Method;
use warren_wire::{NewWebhook, Webhook, WebhookDelivery};

use crate::client::Client;
use crate::error::Error;
use crate::http::{call, gone, json};

const WEBHOOKS: [&str; 2] = ["events", "webhooks"];

impl Client {
    /// Has events of these kinds sent to a URL, signed with the secret that the answer holds
    /// unless one is given.
    ///
    /// # Errors
    /// [`Error`]; status 400 for a URL or a kind that the server does not take.
    pub async fn create_webhook(&self, new: &NewWebhook) -> Result<Webhook, Error> {
        const OPERATION: &str = "make a webhook";
        let request = self.post(&WEBHOOKS, new);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Lists the team's webhooks.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, Error> {
        const OPERATION: &str = "list webhooks";
        let request = self.request(Method::GET, &WEBHOOKS);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Lists what was sent to a webhook lately, and what came of it.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such webhook.
    pub async fn webhook_deliveries(&self, id: &str) -> Result<Vec<WebhookDelivery>, Error> {
        const OPERATION: &str = "list deliveries";
        let request = self.request(Method::GET, &["events", "webhooks", id, "deliveries"]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Deletes a webhook. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_webhook(&self, id: &str) -> Result<bool, Error> {
        let request = self.request(Method::DELETE, &["events", "webhooks", id]);
        gone("delete a webhook", request).await
    }
}
