//! Ready states: what a build's start command has set up, captured once with its memory and
//! restored for each further sandbox of the build, where that is faster than to start anew.
//!
//! ```text
//! first warm sandbox   boot, start command, ready ── freeze, capture, thaw ──► waits
//! each further one     restore, /init with its own id ───────────────────────► waits
//! ```
//!
//! A ready state was never anybody's: it is captured before a request's token or variables
//! are known to it. It belongs to this process; the next start sweeps it and makes another.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use warren_cluster::{BuildImage, NodeError};
use warren_runtime::{Runtime, RuntimeError, Sandbox};
use warren_service::{Chain, Secret};
use warren_types::{BuildId, NetworkPolicy};

use super::boot::{Booted, Booter};

/// Restores in a row that were slower than the start before a build's are given up.
const SLOW: u32 = 3;

/// What is known of a build.
#[derive(Debug)]
enum State {
    /// Captured; restores take up the key that the captured agent knows.
    Captured {
        init_key: Secret,
        /// How long the start without it took.
        start: Duration,
        /// Restores in a row that took longer.
        slow: u32,
    },
    /// Not to be captured.
    Off,
}

/// The ready states of all builds.
#[derive(Debug)]
pub(crate) struct ReadyStates {
    /// Starts that take less are not worth a capture; `None` turns captures off.
    worth: Option<Duration>,
    states: Mutex<HashMap<BuildId, State>>,
}

impl ReadyStates {
    pub(crate) fn new(worth: Option<Duration>) -> Self {
        Self {
            worth,
            states: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, build: BuildId) -> Option<Secret> {
        match self.lock().get(&build) {
            Some(State::Captured { init_key, .. }) => Some(init_key.clone()),
            _ => None,
        }
    }

    /// Whether a start that took so long is to be captured.
    fn wants(&self, build: BuildId, start: Duration) -> bool {
        self.worth.is_some_and(|worth| start >= worth) && !self.lock().contains_key(&build)
    }

    fn set(&self, build: BuildId, state: State) {
        self.lock().insert(build, state);
    }

    /// Takes note of a restore; false when restores of the build no longer pay.
    fn pays(&self, build: BuildId, took: Duration) -> bool {
        match self.lock().get_mut(&build) {
            Some(State::Captured { start, slow, .. }) => {
                *slow = if took > *start { *slow + 1 } else { 0 };
                *slow < SLOW
            }
            _ => true,
        }
    }

    /// Forgets what is known; true when there was a capture.
    fn take(&self, build: BuildId) -> bool {
        matches!(self.lock().remove(&build), Some(State::Captured { .. }))
    }
}

impl<R: Runtime> Booter<R> {
    /// Boots a sandbox of `image` that has the image's start command running and ready. Its
    /// agent was initialised if there is one, without what a request brings.
    pub(crate) async fn boot_ready(
        &self,
        image: &BuildImage,
        policy: NetworkPolicy,
    ) -> Result<Booted<R::Sandbox>, NodeError> {
        if let Some(restored) = self.restore_ready(image, policy.clone()).await {
            return Ok(restored);
        }
        let booted = self.boot(image, policy).await?;
        self.make_ready(&booted, image).await?;
        Ok(booted)
    }

    /// The same for a sandbox that nobody waits for: captures the ready state if there is
    /// none yet.
    pub(crate) async fn boot_warm(
        &self,
        image: &BuildImage,
    ) -> Result<Booted<R::Sandbox>, NodeError> {
        let policy = NetworkPolicy::default();
        if let Some(restored) = self.restore_ready(image, policy.clone()).await {
            return Ok(restored);
        }
        let begun = Instant::now();
        let booted = self.boot(image, policy).await?;
        self.make_ready(&booted, image).await?;
        let start = begun.elapsed();
        if image.start.is_some() && self.ready.wants(image.build_id, start) {
            self.capture_ready(image, &booted, start).await?;
        }
        Ok(booted)
    }

    /// Restores a build's ready state if there is one. A failure is told, and the state is
    /// given up.
    async fn restore_ready(
        &self,
        image: &BuildImage,
        policy: NetworkPolicy,
    ) -> Option<Booted<R::Sandbox>> {
        let build = image.build_id;
        let init_key = self.ready.key(build)?;
        let begun = Instant::now();
        let from = self.captures.ready(build);
        let restored = async {
            let booted = self
                .restore(image, policy, &from, Some(init_key), Vec::new())
                .await?;
            booted.init(image, &image.env, &self.events_address).await?;
            Ok::<_, NodeError>(booted)
        };
        match restored.await {
            Ok(booted) => {
                let took = begun.elapsed();
                tracing::debug!(build_id = %build, ?took, "restored a ready state");
                if !self.ready.pays(build, took) {
                    tracing::info!(build_id = %build, ?took,
                        "ready states of the build are no longer used: its start is faster");
                    self.give_up_ready(build).await;
                }
                Some(booted)
            }
            Err(error) => {
                tracing::warn!(build_id = %build, error = %Chain(&error),
                    "a ready state could not be restored; the build is started anew each time");
                self.give_up_ready(build).await;
                None
            }
        }
    }

    async fn give_up_ready(&self, build: BuildId) {
        self.ready.set(build, State::Off);
        self.forget_ready_files(build).await;
    }

    /// Captures what the start command has set up. What can't be captured is told once; a
    /// sandbox that can't go on is an error.
    async fn capture_ready(
        &self,
        image: &BuildImage,
        booted: &Booted<R::Sandbox>,
        start: Duration,
    ) -> Result<(), NodeError> {
        let build = image.build_id;
        if let Err(reason) = self.runtime.capabilities().checkpoint {
            // Tools may become ready later, so it is tried again then.
            tracing::debug!(build_id = %build, reason, "no ready state is captured");
            return Ok(());
        }
        let sandbox = booted.sandbox();
        let failed = |error: RuntimeError| NodeError::StartFailed(Box::new(error));
        // What an attempt that was broken off left.
        self.forget_ready_files(build).await;
        sandbox.freeze().await.map_err(failed)?;
        let captured = sandbox.capture(&self.captures.ready(build), true).await;
        sandbox.thaw().await.map_err(failed)?;
        match captured {
            Ok(info) => {
                tracing::info!(build_id = %build, bytes = info.bytes, ?start,
                    "captured a ready state; further sandboxes of the build are restored from it");
                let state = State::Captured {
                    init_key: booted.init_key().clone(),
                    start,
                    slow: 0,
                };
                self.ready.set(build, state);
            }
            Err(error) => {
                tracing::warn!(build_id = %build, error = %Chain(&error),
                    "a ready state could not be captured; the build is started anew each time");
                self.ready.set(build, State::Off);
            }
        }
        Ok(())
    }

    /// Lets go of a build's ready state, which nobody has asked for lately.
    pub(crate) async fn forget_ready(&self, build: BuildId) {
        if self.ready.take(build) {
            self.forget_ready_files(build).await;
        }
    }

    async fn forget_ready_files(&self, build: BuildId) {
        let forgotten = self
            .runtime
            .forget_capture(&self.captures.ready(build))
            .await;
        if let Err(error) = forgotten {
            tracing::error!(build_id = %build, error = %Chain(&error),
                "could not delete a ready state; the next start tries again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restores_that_are_slower_than_the_start_are_given_up() {
        let states = ReadyStates::new(Some(Duration::from_millis(100)));
        let build = BuildId::random();
        let start = Duration::from_secs(1);
        assert!(!states.wants(build, Duration::from_millis(99)));
        assert!(states.wants(build, start));
        let init_key = Secret::new("k".to_owned());
        states.set(
            build,
            State::Captured {
                init_key,
                start,
                slow: 0,
            },
        );
        assert!(!states.wants(build, start));
        let late = 2 * start;
        assert!(states.pays(build, late) && states.pays(build, late));
        assert!(states.pays(build, start), "one that is in time counts anew");
        assert!(states.pays(build, late) && states.pays(build, late));
        assert!(!states.pays(build, late));
        states.set(build, State::Off);
        assert!(states.key(build).is_none() && !states.wants(build, start));
        assert!(!states.take(build));
        assert!(!ReadyStates::new(None).wants(build, start));
    }
}
