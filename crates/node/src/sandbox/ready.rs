//! Ready states: what a build's start command has set up, captured once with its memory and
//! restored for each further sandbox of the build, where that is faster than to start anew.
//!
//! ```text
//! source            boot, start command, ready ── freeze, capture ──► destroyed
//!                   when its build is made, or else when the first warm one is wanted
//! each warm one     restore, /init with its own id ─────────────────► waits
//! ```
//!
//! A ready state was never anybody's: it is captured before a request's token or variables
//! are known to it. Nor is its source ever: the processes in it were told its id, which opens
//! a sandbox's ports to whoever knows it. One that was made with its build stays as long as
//! that; another goes when nobody has asked for the build lately. Both outlive the server,
//! unless the next one brings other programs into sandboxes.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use warren_cluster::{BuildImage, NodeError};
use warren_runtime::{Runtime, RuntimeError, Sandbox};
use warren_service::{Chain, Secret, fault};
use warren_types::{BuildId, NetworkPolicy};

use super::boot::{Booted, Booter};
use crate::captures::ReadyMeta;

/// A first restore that takes less proves itself, however fast the start was.
const FAST_ENOUGH: Duration = Duration::from_millis(250);

/// What is known of a build.
#[derive(Debug)]
enum State {
    /// Captured.
    Captured {
        /// The key that the captured agent knows.
        init_key: Secret,
        /// It stays as long as the build.
        is_kept: bool,
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

    /// Forgets what is known; true when there was a capture.
    fn take(&self, build: BuildId) -> bool {
        matches!(self.lock().remove(&build), Some(State::Captured { .. }))
    }

    /// Whether it may be forgotten when nobody asks for it.
    fn may_go(&self, build: BuildId) -> bool {
        !matches!(
            self.lock().get(&build),
            Some(State::Captured { is_kept: true, .. })
        )
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
        self.boot_captured(image, false).await
    }

    /// Captures the ready state of a build that was just made, where that is worth it.
    pub(crate) async fn keep_ready(&self, image: &BuildImage) -> Result<(), NodeError> {
        let is_wanted = image.start.is_some()
            && image.capture.is_none()
            && self.ready.wants(image.build_id, Duration::MAX)
            && self.runtime.capabilities().checkpoint.is_ok();
        if is_wanted {
            self.boot_captured(image, true).await?.discard().await;
        }
        Ok(())
    }

    /// Takes up the ready states that an earlier process has captured with the same programs.
    /// Returns their builds.
    pub(crate) fn adopt_ready(&self) -> io::Result<HashSet<BuildId>> {
        let mut adopted = HashSet::new();
        for (build, meta) in self.captures.ready_states()? {
            if meta.programs == self.guest_programs() && self.ready.wants(build, Duration::MAX) {
                let state = State::Captured {
                    init_key: meta.init_key,
                    is_kept: meta.is_kept,
                };
                self.ready.set(build, state);
                adopted.insert(build);
            }
        }
        Ok(adopted)
    }

    async fn boot_captured(
        &self,
        image: &BuildImage,
        is_kept: bool,
    ) -> Result<Booted<R::Sandbox>, NodeError> {
        let policy = NetworkPolicy::default();
        if let Some(restored) = self.restore_ready(image, policy.clone()).await {
            return Ok(restored);
        }
        let begun = Instant::now();
        let booted = self.boot(image, policy.clone()).await?;
        self.make_ready(&booted, image).await?;
        let start = begun.elapsed();
        let is_wanted = image.start.is_some() && self.ready.wants(image.build_id, start);
        if !is_wanted || !self.capture_ready(image, &booted).await? {
            return Ok(booted);
        }
        let init_key = booted.init_key().clone();
        booted.discard().await;
        fault::point("ready.captured");
        let meta = ReadyMeta {
            init_key,
            programs: self.guest_programs(),
            is_kept,
        };
        if let Some(restored) = self.prove(image, meta, start).await {
            return Ok(restored);
        }
        self.boot_ready(image, policy).await
    }

    /// Restores a build's ready state if there is one. After a failure it is given up.
    async fn restore_ready(
        &self,
        image: &BuildImage,
        policy: NetworkPolicy,
    ) -> Option<Booted<R::Sandbox>> {
        let init_key = self.ready.key(image.build_id)?;
        self.restore_from_ready(image, policy, init_key).await
    }

    /// Restores a state that was just captured, and from then on keeps it if that was faster
    /// than the start was. Both ran under the same load, which later restores may not.
    async fn prove(
        &self,
        image: &BuildImage,
        meta: ReadyMeta,
        start: Duration,
    ) -> Option<Booted<R::Sandbox>> {
        let build = image.build_id;
        let begun = Instant::now();
        let policy = NetworkPolicy::default();
        let restored = self
            .restore_from_ready(image, policy, meta.init_key.clone())
            .await?;
        let took = begun.elapsed();
        if pays(took, start) {
            tracing::info!(build_id = %build, ?start, ?took,
                "captured a ready state; sandboxes of the build are restored from it");
            self.note_ready(build, meta).await;
        } else {
            tracing::info!(build_id = %build, ?start, ?took,
                "a ready state is not used: the start of the build is faster");
            self.give_up_ready(build).await;
        }
        Some(restored)
    }

    /// Makes a capture a ready state, also for processes to come.
    async fn note_ready(&self, build: BuildId, meta: ReadyMeta) {
        if let Err(error) = self.captures.write_ready(build, &meta) {
            tracing::error!(build_id = %build, %error, "a ready state could not be noted");
            return self.give_up_ready(build).await;
        }
        fault::point("ready.noted");
        let state = State::Captured {
            init_key: meta.init_key,
            is_kept: meta.is_kept,
        };
        self.ready.set(build, state);
    }

    async fn restore_from_ready(
        &self,
        image: &BuildImage,
        policy: NetworkPolicy,
        init_key: Secret,
    ) -> Option<Booted<R::Sandbox>> {
        let build = image.build_id;
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

    /// Captures what the start command has set up. Whether it did; what can't be captured is
    /// told once. A sandbox that was captured stays frozen.
    async fn capture_ready(
        &self,
        image: &BuildImage,
        booted: &Booted<R::Sandbox>,
    ) -> Result<bool, NodeError> {
        let build = image.build_id;
        if let Err(reason) = self.runtime.capabilities().checkpoint {
            // Tools may become ready later, so it is tried again then.
            tracing::debug!(build_id = %build, reason, "no ready state is captured");
            return Ok(false);
        }
        let sandbox = booted.sandbox();
        let failed = |error: RuntimeError| NodeError::StartFailed(Box::new(error));
        // What an attempt that was broken off left.
        self.forget_ready_files(build).await;
        sandbox.freeze().await.map_err(failed)?;
        let Err(error) = sandbox.capture(&self.captures.ready(build), true).await else {
            return Ok(true);
        };
        tracing::warn!(build_id = %build, error = %Chain(&error),
            "a ready state could not be captured; the build is started anew each time");
        self.ready.set(build, State::Off);
        sandbox.thaw().await.map_err(failed)?;
        Ok(false)
    }

    /// Lets go of a build's ready state, which nobody has asked for lately.
    pub(crate) async fn forget_ready(&self, build: BuildId) {
        if self.ready.may_go(build) && self.ready.take(build) {
            self.forget_ready_files(build).await;
        }
    }

    /// Lets go of the ready state of a build that is gone.
    pub(crate) async fn drop_ready(&self, build: BuildId) {
        self.ready.take(build);
        self.forget_ready_files(build).await;
    }

    async fn forget_ready_files(&self, build: BuildId) {
        if let Err(error) = self.captures.forget_ready_meta(build) {
            tracing::error!(build_id = %build, %error, "could not forget a ready state");
        }
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

/// Whether a restore that took so long is worth it beside such a start.
fn pays(took: Duration, start: Duration) -> bool {
    took < start.max(FAST_ENOUGH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_starts_are_captured_and_only_faster_restores_used() {
        let states = ReadyStates::new(Some(Duration::from_millis(100)));
        let build = BuildId::random();
        let start = Duration::from_secs(1);
        assert!(!states.wants(build, Duration::from_millis(99)));
        assert!(states.wants(build, start));
        assert!(pays(start / 2, start) && !pays(2 * start, start));
        assert!(pays(FAST_ENOUGH / 2, Duration::ZERO));
        let captured = |is_kept| State::Captured {
            init_key: Secret::new("k".to_owned()),
            is_kept,
        };
        states.set(build, captured(true));
        assert!(!states.may_go(build));
        states.set(build, captured(false));
        assert!(states.may_go(build));
        assert!(states.key(build).is_some() && !states.wants(build, start));
        states.set(build, State::Off);
        assert!(states.key(build).is_none() && !states.wants(build, start));
        assert!(!states.take(build));
        assert!(!ReadyStates::new(None).wants(build, start));
    }
}
