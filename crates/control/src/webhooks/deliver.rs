//! Delivery: what the database says is to be sent is sent until its receiver takes it or the
//! tries run out. A try is written down after it was made: after a crash it is made again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use jiff::Timestamp;
use tokio::sync::Semaphore;
use warren_service::Chain;
use warren_store::{AttemptRecord, DeliveryRecord, DeliveryState, StoreError, WebhookRecord};
use warren_types::WebhookId;
use warren_webhook::Message;

use super::{Busy, WebhookConfig, event_body};
use crate::Control;

/// Tries to one webhook at a time.
const AT_ONCE: usize = 4;
/// Tries to all webhooks at a time.
const AT_ONCE_TOGETHER: usize = 64;
/// Deliveries read at a time.
const BATCH: u32 = 50;
/// The outbox is looked at this often, whatever happens.
const LOOK: Duration = Duration::from_secs(60);
/// A database that failed is asked again after this.
const RETRY: Duration = Duration::from_secs(5);

impl Control {
    /// Delivers events until the server stops.
    pub(crate) async fn deliver(self: &Arc<Self>) {
        let Some(config) = self.config.webhooks.clone() else {
            return;
        };
        let stop = self.tasks.stop_token().clone();
        let (busy, slots) = (
            Arc::<Busy>::default(),
            Arc::new(Semaphore::new(AT_ONCE_TOGETHER)),
        );
        let config = Arc::new(config);
        let done = Arc::new(tokio::sync::Notify::new());
        loop {
            let wait = match self.store.outbox().await {
                Ok(outbox) => {
                    let now = Timestamp::now();
                    let mut wait = LOOK;
                    for (webhook, next_at) in outbox {
                        if busy.has(webhook) {
                            continue;
                        }
                        if next_at > now {
                            wait = wait.min(until(now, next_at));
                            continue;
                        }
                        busy.enter(webhook);
                        let (control, busy, done) =
                            (Arc::clone(self), Arc::clone(&busy), Arc::clone(&done));
                        let (config, slots) = (Arc::clone(&config), Arc::clone(&slots));
                        self.tasks.spawn(async move {
                            control.deliver_to(webhook, &config, &slots).await;
                            busy.leave(webhook);
                            done.notify_one();
                        });
                    }
                    wait
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "the outbox can't be read");
                    RETRY
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.store.outbox_changed() => {}
                () = done.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sends a webhook what is due.
    async fn deliver_to(&self, id: WebhookId, config: &WebhookConfig, slots: &Semaphore) {
        let stop = self.tasks.stop_token();
        while !stop.is_cancelled() {
            let failed = |error: &StoreError| {
                tracing::error!(webhook_id = %id, error = %Chain(error), "deliveries can't be read");
            };
            let webhook = match self.store.webhook_get(id).await {
                Ok(Some(webhook)) if webhook.enabled => webhook,
                Ok(_) => return,
                Err(error) => return failed(&error),
            };
            let due = self.store.deliveries_due(id, Timestamp::now(), BATCH).await;
            let due = match due {
                Ok(due) if due.is_empty() => return,
                Ok(due) => due,
                Err(error) => return failed(&error),
            };
            let tries = futures_util::stream::iter(due)
                .map(|delivery| self.try_once(&webhook, delivery, config, slots))
                .buffer_unordered(AT_ONCE);
            let written = tries.all(std::future::ready);
            let is_written = tokio::select! {
                is_written = written => is_written,
                () = stop.cancelled() => return,
            };
            if !is_written {
                // It would be sent again and again without pause.
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Makes one try and writes it down. Returns whether that went well.
    async fn try_once(
        &self,
        webhook: &WebhookRecord,
        mut delivery: DeliveryRecord,
        config: &WebhookConfig,
        slots: &Semaphore,
    ) -> bool {
        let Ok(_slot) = slots.acquire().await else {
            return false;
        };
        let (at, began) = (Timestamp::now(), Instant::now());
        let sent = match serde_json::to_vec(&event_body(&delivery.event)) {
            Ok(body) => {
                let message = Message {
                    url: &webhook.url,
                    body,
                    secret: &webhook.secret,
                    webhook_id: webhook.id.to_string(),
                    delivery_id: delivery.id.to_string(),
                };
                let sent = config.sender.send(message).await;
                sent.map_err(|error| (error.status(), error.to_string()))
            }
            Err(error) => Err((None, error.to_string())),
        };
        let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (status, error) = match sent {
            Ok(status) => (Some(status), None),
            Err((status, error)) => (status, Some(error)),
        };
        delivery.state = match (&error, config.backoff.get(delivery.attempts.len())) {
            (None, _) => DeliveryState::Delivered,
            (Some(_), Some(pause)) => {
                let now = Timestamp::now();
                delivery.next_at = now.checked_add(*pause).unwrap_or(now);
                DeliveryState::Pending
            }
            (Some(_), None) => DeliveryState::Failed,
        };
        tracing::debug!(webhook_id = %webhook.id, delivery_id = %delivery.id, ?status, error,
            "tried to deliver an event");
        delivery.attempts.push(AttemptRecord {
            at,
            duration_ms,
            status,
            error,
        });
        let written = self.store.delivery_tried(&delivery).await;
        if let Err(error) = &written {
            tracing::error!(delivery_id = %delivery.id, error = %Chain(error),
                "a delivery can't be written down; it will be made again");
        }
        written.is_ok()
    }
}

fn until(now: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
}
