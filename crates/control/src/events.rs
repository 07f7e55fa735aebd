//! What nodes tell on their own, written down by one task.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use warren_cluster::NodeEvent;
use warren_service::Chain;
use warren_store::StoreError;
use warren_types::{EndReason, SandboxEnd, SandboxId};

use crate::Control;

/// Ends told before their sandbox had a row wait for milliseconds. From this many on, old
/// ones are dropped: they are of sandboxes that were given up.
const MANY_EARLY_ENDS: usize = 1000;
const EARLY_END_AGE: Duration = Duration::from_secs(120);
/// A database that fails is asked again after this, so that no end is lost.
const RETRY: Duration = Duration::from_millis(500);
const RETRIES: u32 = 20;

impl Control {
    /// Starts the background work: writing down what the node tells, and forgetting what
    /// is old. Stops with [`Control::stop`].
    pub fn run(self: &Arc<Self>) {
        let Some(events) = self.node.take_events() else {
            tracing::error!("the node's events are taken already: ends will go unrecorded");
            return;
        };
        let control = Arc::clone(self);
        self.tasks
            .spawn(async move { control.follow(events).await });
        let control = Arc::clone(self);
        self.tasks.spawn(async move { control.expire().await });
        let control = Arc::clone(self);
        self.tasks.spawn(async move { control.deliver().await });
        let control = Arc::clone(self);
        self.tasks
            .spawn(async move { control.keep_volumes().await });
        let control = Arc::clone(self);
        self.tasks
            .spawn(async move { control.watch_memory().await });
    }

    async fn follow(&self, mut events: mpsc::Receiver<NodeEvent>) {
        let stop = self.tasks.stop_token().clone();
        loop {
            let event = tokio::select! {
                // Events that are there already are written down before stopping.
                biased;
                event = events.recv() => event,
                () = stop.cancelled() => None,
            };
            match event {
                Some(event) => self.write(event).await,
                None => return,
            }
        }
    }

    async fn write(&self, event: NodeEvent) {
        let mut tries = 0;
        while let Err(error) = self.write_once(&event).await {
            tries += 1;
            if tries >= RETRIES {
                tracing::error!(error = %Chain(&error), "an event of the node was lost");
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn write_once(&self, event: &NodeEvent) -> Result<(), StoreError> {
        match event {
            NodeEvent::Ended { id, end } => self.ended(id, *end).await,
            NodeEvent::Changed(view) => self.follow_change(view).await.map(drop),
            NodeEvent::Metrics(samples) => {
                self.activity.note(samples);
                self.store.metrics_insert(samples).await
            }
        }
    }

    /// Notes an end. It may come before the create has written its row: the note is left
    /// first, so that whoever comes second finds what the other one did.
    pub(crate) async fn ended(&self, id: &SandboxId, end: SandboxEnd) -> Result<(), StoreError> {
        self.recent_ends.note(id, end);
        self.activity.forget(id);
        {
            let mut early = self
                .early_ends
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if early.len() >= MANY_EARLY_ENDS {
                let old = end.at.checked_sub(EARLY_END_AGE).unwrap_or(end.at);
                early.retain(|_, end| end.at > old);
            }
            early.insert(id.clone(), end);
        }
        // The place is free before the end can be seen, and again below in case the create
        // took it only now.
        self.quota.release(id);
        let is_presumed = self.lock_presumed().contains(id);
        let known = if is_presumed {
            self.store.sandbox_correct_end(id, &end).await?;
            self.lock_presumed().remove(id);
            true
        } else {
            self.write_end(id, &end).await?
        };
        self.quota.release(id);
        if known || self.store.sandbox_is_known(id).await? {
            self.take_early_end(id);
        }
        Ok(())
    }

    pub(crate) fn take_early_end(&self, id: &SandboxId) -> Option<SandboxEnd> {
        self.early_ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
    }

    /// Writes an end down that was told before the row was there.
    pub(crate) async fn apply_early_end(&self, id: &SandboxId) -> Result<(), StoreError> {
        if let Some(end) = self.take_early_end(id) {
            self.quota.release(id);
            self.write_end(id, &end).await?;
        }
        Ok(())
    }

    /// Writes an end down, unless one is; returns whether it did.
    pub(crate) async fn write_end(
        &self,
        id: &SandboxId,
        end: &SandboxEnd,
    ) -> Result<bool, StoreError> {
        let written = self.store.sandbox_end(id, end).await?;
        if written {
            self.meters.end(end.reason);
        }
        Ok(written)
    }
}

/// Ends remembered for those who ask in vain.
const MANY_RECENT_ENDS: usize = 4096;

/// How sandboxes ended lately that nobody wanted to end: their clients are told.
#[derive(Debug, Default)]
pub(crate) struct RecentEnds(Mutex<(HashMap<SandboxId, SandboxEnd>, VecDeque<SandboxId>)>);

impl RecentEnds {
    pub(crate) fn note(&self, id: &SandboxId, end: SandboxEnd) {
        if matches!(end.reason, EndReason::Killed | EndReason::TimedOut) {
            return;
        }
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (by_id, order) = &mut *ends;
        if by_id.insert(id.clone(), end).is_none() {
            order.push_back(id.clone());
        }
        if order.len() > MANY_RECENT_ENDS
            && let Some(oldest) = order.pop_front()
        {
            by_id.remove(&oldest);
        }
    }

    fn get(&self, id: &SandboxId) -> Option<SandboxEnd> {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.0.get(id).copied()
    }
}

impl Control {
    /// How a sandbox ended, if it did so lately and neither a client nor the clock wanted
    /// it to. For whoever knows its id.
    #[must_use]
    pub fn recent_end(&self, id: &SandboxId) -> Option<SandboxEnd> {
        self.recent_ends.get(id)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn only_the_last_odd_ends_are_remembered() {
        let ends = RecentEnds::default();
        let end = |reason| SandboxEnd::new(reason, Timestamp::UNIX_EPOCH);
        let (first, second) = (SandboxId::random(), SandboxId::random());
        ends.note(&first, end(EndReason::Killed));
        assert_eq!(ends.get(&first), None);
        ends.note(&first, end(EndReason::HostRestarted));
        ends.note(&first, end(EndReason::Crashed));
        ends.note(&second, end(EndReason::OutOfMemory));
        assert_eq!(ends.get(&first), Some(end(EndReason::Crashed)));
        for _ in 1..MANY_RECENT_ENDS {
            ends.note(&SandboxId::random(), end(EndReason::Crashed));
        }
        assert_eq!(ends.get(&first), None);
        assert_eq!(ends.get(&second), Some(end(EndReason::OutOfMemory)));
    }
}
