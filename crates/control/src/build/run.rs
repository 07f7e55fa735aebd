//! Builds that run, and how they end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::Instrument;
use warren_service::{Chain, Tasks, fault};
use warren_store::{BuildContent, BuildOutcome, BuildReason, StoreError};
use warren_template::build::{BuildFailure, BuildLine, BuildLog, BuildRequest, Built, Collected};
use warren_types::{BuildId, ENVD_VERSION, LogLevel, TeamId, TemplateId};

use super::log::{BuildEntry, BuildLogFile};
use super::{Builds, Running};
use crate::Control;

/// Reason of a build that gave way to a newer one or to its user's wish.
pub(crate) const CANCELLED: &str = "build was cancelled";
const TIMED_OUT: &str = "build timed out";
const WAITED: &str = "build is in waiting state for too long";
const INTERRUPTED: &str =
    "the server stopped while the build was running. Finished steps are kept; start it again.";
const INTERNAL: &str = "An internal error occurred. Please try again or contact support with the \
                        build ID.";
/// How long a cancelled builder may take to clean up before it is left to itself.
const CLEAN_UP: Duration = Duration::from_secs(60);
/// Layers of deleted templates stay for this long: a create may be under way.
const DELETED_GRACE: Duration = Duration::from_secs(3600);

fn line(level: LogLevel, message: String, step: Option<&str>) -> BuildEntry {
    BuildEntry {
        timestamp: Timestamp::now(),
        level,
        message,
        step: step.map(str::to_owned),
    }
}

/// The last line of a build that failed.
pub(super) fn failed_line(message: &str, step: Option<&str>) -> BuildEntry {
    line(LogLevel::Error, format!("Build failed: {message}"), step)
}

fn failed(message: &str) -> BuildOutcome {
    BuildOutcome::Failed(BuildReason {
        message: message.to_owned(),
        step: None,
    })
}

impl Builds {
    /// Opens a build's log off the executor.
    pub(super) async fn create_log(
        self: &Arc<Self>,
        tasks: &Tasks,
        id: BuildId,
    ) -> io::Result<Arc<BuildLogFile>> {
        let logs = Arc::clone(&self.logs);
        let opened = tasks.spawn_blocking(move || logs.create(id)).await;
        opened.map_err(io::Error::other)?
    }

    /// Stops a build that runs and writes the last line of its log. Its row is the
    /// caller's.
    pub(super) fn give_up(&self, id: BuildId, reason: &str) {
        if let Some(running) = self.running().remove(&id) {
            running.log.finish(failed_line(reason, None));
            running.cancel.cancel();
        }
    }
}

impl Control {
    /// Runs a build to its end and writes that down, unless it was given up meanwhile.
    pub(super) async fn run_build(
        self: &Arc<Self>,
        builds: &Arc<Builds>,
        request: BuildRequest,
        running: Running,
    ) {
        let (id, template) = (request.build_id, request.template_id.clone());
        tracing::info!(build_id = %id, template_id = %request.template_id, "a build starts");
        let since = Instant::now();
        let result = self.execute(builds, request, &running).await;
        let _turn = self.build_turn.lock().await;
        if builds.running().remove(&id).is_none() {
            tracing::info!(build_id = %id, "a build was given up");
            return;
        }
        let outcome = match result {
            Ok(built) => {
                let text = format!("Build finished, took {}s", since.elapsed().as_secs());
                running.log.finish(line(LogLevel::Info, text, None));
                BuildOutcome::Ready(Box::new(content(built)))
            }
            Err(failure) => {
                let (message, step) = (failure.message, failure.step);
                running.log.finish(failed_line(&message, step.as_deref()));
                BuildOutcome::Failed(BuildReason { message, step })
            }
        };
        tracing::info!(build_id = %id, is_ready = matches!(outcome, BuildOutcome::Ready(_)),
                       "a build ended");
        if let Err(error) = self.finish_build(id, &outcome).await {
            tracing::error!(build_id = %id, error = %Chain(&error), "a build's end is lost");
            return;
        }
        if matches!(outcome, BuildOutcome::Ready(_)) {
            let control = Arc::clone(self);
            self.tasks
                .spawn(async move { control.keep_ready(&template, id).await });
        }
    }

    /// Has the node capture what the start command of a build sets up. The build is usable
    /// without.
    async fn keep_ready(&self, template: &TemplateId, id: BuildId) {
        let kept = async {
            let build = self.store.build_ready(template, id).await;
            let build = build.map_err(|error| Chain(&error).to_string())?;
            let Some(build) = build else { return Ok(()) };
            let kept = self.node.keep_ready(&self.runnable(build)).await;
            kept.map_err(|error| Chain(&error).to_string())
        };
        if let Err(error) = kept.await {
            tracing::warn!(build_id = %id, error, "the ready state of a build is not captured");
        }
    }

    async fn finish_build(&self, id: BuildId, outcome: &BuildOutcome) -> Result<(), StoreError> {
        let now = Timestamp::now();
        fault::point("build.finishing");
        self.store.build_finish(id, outcome, now).await?;
        fault::point("build.finished");
        self.meters.build(matches!(outcome, BuildOutcome::Ready(_)));
        self.builds.clear();
        Ok(())
    }

    #[tracing::instrument(
        name = "build", skip_all,
        fields(template_id = %request.template_id, build_id = %request.build_id)
    )]
    async fn execute(
        &self,
        builds: &Arc<Builds>,
        request: BuildRequest,
        running: &Running,
    ) -> Result<Built, BuildFailure> {
        let failure = |message: &str| BuildFailure {
            message: message.to_owned(),
            step: None,
        };
        let log = Arc::clone(&running.log);
        let sink = BuildLog::new(move |line: BuildLine| {
            log.push(BuildEntry {
                timestamp: line.at,
                level: line.level,
                message: line.message,
                step: line.step,
            });
        });
        let (builder, cancel) = (Arc::clone(&builds.builder), running.cancel.clone());
        // In a task of its own, so that a fault in it fails this build and nothing else.
        let mut work = self
            .tasks
            .spawn(async move { builder.build(request, sink, cancel).await }.in_current_span());
        let why = tokio::select! {
            result = &mut work => {
                let result = result.unwrap_or_else(|error| {
                    tracing::error!(%error, "a builder failed");
                    Err(failure(INTERNAL))
                });
                // A cancelled builder's own words are not for the user.
                let is_cut = result.is_err() && running.cancel.is_cancelled();
                return if is_cut { Err(failure(INTERRUPTED)) } else { result };
            }
            () = tokio::time::sleep(self.config.limits.build_time) => TIMED_OUT,
            () = running.cancel.cancelled() => INTERRUPTED,
        };
        running.cancel.cancel();
        if tokio::time::timeout(CLEAN_UP, work).await.is_err() {
            tracing::error!("a builder does not end though it was cancelled");
        }
        Err(failure(why))
    }

    /// Gives up a team's builds that wait or run. Returns how many. Must run to its end
    /// once begun.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn builds_cancel(&self, team: TeamId) -> Result<usize, StoreError> {
        let _turn = self.build_turn.lock().await;
        let open = self.store.build_list_open(team).await?;
        let mut cancelled = 0;
        for id in open {
            if let Some(builds) = &self.building {
                builds.give_up(id, CANCELLED);
            }
            let now = Timestamp::now();
            let done = self.store.build_finish(id, &failed(CANCELLED), now).await?;
            cancelled += usize::from(done);
        }
        Ok(cancelled)
    }

    /// Fails the builds that ran when the server was last stopped, and removes what uploads
    /// left. Nobody else may build meanwhile.
    pub(crate) async fn recover_builds(&self) -> Result<(), StoreError> {
        for id in self.store.build_list_running().await? {
            if let Some(builds) = &self.building {
                match builds.create_log(&self.tasks, id).await {
                    Ok(log) => log.finish(failed_line(INTERRUPTED, None)),
                    Err(error) => {
                        tracing::warn!(build_id = %id, %error, "a build's log can't be ended");
                    }
                }
            }
            let now = Timestamp::now();
            self.store
                .build_finish(id, &failed(INTERRUPTED), now)
                .await?;
        }
        if let Some(builds) = &self.building {
            let archives = Arc::clone(&builds.archives);
            self.sweep("half uploads", move || archives.sweep_partial())
                .await;
        }
        Ok(())
    }

    /// Gives up builds that wait for too long; removes old logs and archives.
    pub(crate) async fn tidy_builds(&self, now: Timestamp) -> Result<(), StoreError> {
        let turn = self.build_turn.lock().await;
        let limit = self.config.limits.build_wait;
        let before = now.checked_sub(limit).unwrap_or(Timestamp::MIN);
        self.store.build_expire_waiting(before, WAITED, now).await?;
        drop(turn);
        if let Some(builds) = &self.building {
            let (logs, age) = (Arc::clone(&builds.logs), self.config.retention);
            self.sweep("logs of builds", move || logs.sweep(age)).await;
            let archives = Arc::clone(&builds.archives);
            self.sweep("uploaded archives", move || archives.sweep())
                .await;
        }
        Ok(())
    }

    /// Has the builder remove layers that nothing names, if it is the time for it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn collect_layers(&self, now: Timestamp) -> Result<(), StoreError> {
        let Some(builds) = &self.building else {
            return Ok(());
        };
        let since = now.checked_sub(DELETED_GRACE).unwrap_or(Timestamp::MIN);
        let in_use = self.store.build_layers(since).await?;
        match builds.builder.collect(in_use).await {
            Ok(Some(removed)) if removed != Collected::default() => {
                tracing::info!(?removed, "removed unused layers");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::error!(error = %Chain(&error), "unused layers could not be removed");
            }
        }
        Ok(())
    }

    async fn sweep<F>(&self, what: &'static str, work: F)
    where
        F: FnOnce() -> io::Result<()> + Send + 'static,
    {
        let done = self.tasks.spawn_blocking(work).await;
        if let Err(error) = done.map_err(io::Error::other).flatten() {
            tracing::error!(%error, what, "old files could not be removed");
        }
    }
}

/// Variables that steps may change for one another; in a sandbox the agent knows better.
const BUILD_ONLY: [&str; 3] = ["PATH", "HOME", "USER"];

fn content(built: Built) -> BuildContent {
    let image = built.image;
    let mut env = image.env.clone();
    env.retain(|name, _| !BUILD_ONLY.contains(&name.as_str()));
    BuildContent {
        layers: image.layers,
        env,
        build_env: Some(image.env),
        default_user: image.default_user,
        default_workdir: image.default_workdir,
        start: image.start,
        capture: None,
        resources: image.resources,
        envd_version: ENVD_VERSION.to_owned(),
    }
}
