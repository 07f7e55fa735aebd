//! The last phase: the configuration of the finished root, and the start and ready commands.

use std::time::Duration;

use tokio::time::Instant;
use warren_cluster::{BuildImage, BuildSandbox};
use warren_service::{Chain, fault};
use warren_types::{LogLevel, StartCommand};

use super::cache::State;
use super::engine::{Build, Wanted};
use super::phase::{Lines, Phase};
use super::plan;
use super::port::{BuildFailure, Built, Source};
use crate::agent::{self, AgentError, Program};

const CONFIGURE_SCRIPT: &str = include_str!("scripts/configure.sh");
const CONFIGURE_LIMIT: Duration = Duration::from_secs(300);
/// What tells that a start command without one of its own is ready.
const DEFAULT_READY: &str = "sleep 20";
const READY_LIMIT: Duration = Duration::from_secs(600);
const READY_PAUSE: Duration = Duration::from_secs(2);

impl Build<'_> {
    /// Completes a state to the result of the build.
    pub(super) async fn finalize(&self, state: State) -> Result<Built, BuildFailure> {
        let phase = self.log.phase("finalize", "[finalize]".to_owned());
        let key = plan::key(&state.key, &["configure", CONFIGURE_SCRIPT]);
        // What it does follows from the files alone, and identity files are each sandbox's.
        let wanted = Wanted {
            key,
            force: self.request.force,
            line: "Finalizing template build".to_owned(),
            phase: &phase,
            tells_cached: false,
        };
        let state = self
            .obtain(wanted, async || {
                let sandbox = self.open(&state.layers).await?;
                let script = Program::script(CONFIGURE_SCRIPT, &[], CONFIGURE_LIMIT);
                let mut lines = phase.output(LogLevel::Debug, Some("[config]"));
                let ran = agent::run(sandbox.as_ref(), script, |channel, bytes| {
                    lines.push(channel, bytes);
                });
                let outcome = ran.await;
                lines.finish();
                let failed = |reason: String| {
                    phase.failure(format!("configuration script failed: {reason}"))
                };
                let outcome = outcome.map_err(|error| failed(Chain(&error).to_string()))?;
                if !outcome.succeeded() {
                    return Err(failed(outcome.to_string()));
                }
                fault::point("build.configured");
                let mut layers = state.layers.clone();
                layers.extend(self.commit(sandbox).await?);
                Ok((layers, state.context.clone()))
            })
            .await?;
        let start = self.start_command(&state);
        if let Some(start) = &start {
            self.check_start(&phase, &state, start).await?;
        }
        let image = BuildImage {
            template_id: self.request.template_id.clone(),
            build_id: self.request.build_id,
            layers: state.layers.clone(),
            resources: self.request.resources,
            default_user: state.context.user.clone(),
            default_workdir: state.context.workdir.clone(),
            env: state.context.env.clone(),
            start,
            capture: None,
        };
        Ok(Built {
            disk_mib: u64::from(self.request.resources.disk_mib),
            image,
        })
    }

    /// The pair of start and ready commands with the context they run in.
    fn start_command(&self, state: &State) -> Option<StartCommand> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (command, ready) = (
            given(&self.request.start_cmd),
            given(&self.request.ready_cmd),
        );
        if command.is_none() && ready.is_none() {
            return match &self.request.source {
                Source::Template { image, .. } => image.start.clone(),
                Source::Image { .. } => None,
            };
        }
        Some(StartCommand {
            command,
            ready: ready.unwrap_or_else(|| DEFAULT_READY.to_owned()),
            user: state.context.user.clone(),
            workdir: state.context.workdir.clone(),
            env: state.context.command_env(),
            ready_timeout_secs: READY_LIMIT.as_secs(),
        })
    }

    /// Runs the commands as a new sandbox will, and fails the build if that fails. What they
    /// write is not kept: each sandbox starts them on its own.
    async fn check_start(
        &self,
        phase: &Phase,
        state: &State,
        start: &StartCommand,
    ) -> Result<(), BuildFailure> {
        let sandbox = self.open(&state.layers).await?;
        let mut lines = phase.output(LogLevel::Info, Some("[start]"));
        let running = run_start(phase, sandbox.as_ref(), start, &mut lines);
        let ready = async {
            if start.command.is_some() {
                // Told in this order, whatever happens first.
                tokio::task::yield_now().await;
            }
            wait_ready(phase, sandbox.as_ref(), start).await
        };
        let result = tokio::select! {
            biased;
            // Ends only by a failure.
            failure = running => Err(failure),
            ready = ready => ready,
        };
        lines.finish();
        sandbox.end().await;
        result?;
        phase.info("Template is ready");
        Ok(())
    }
}

fn program<'a>(start: &'a StartCommand, line: &str, limit: Duration) -> Program<'a> {
    Program {
        workdir: start.workdir.as_deref(),
        env: start.env.clone(),
        ..Program::shell(line, &start.user, limit)
    }
}

/// Runs the start command; comes back only when it has failed.
async fn run_start(
    phase: &Phase,
    sandbox: &dyn BuildSandbox,
    start: &StartCommand,
    lines: &mut Lines,
) -> BuildFailure {
    let Some(command) = &start.command else {
        return std::future::pending().await;
    };
    phase.info(&format!("Running start command: {command}"));
    // The agent ends what runs longer than its limit; the build is over by then.
    let program = program(start, command, READY_LIMIT * 2);
    let ran = agent::run(sandbox, program, |channel, bytes| {
        lines.push(channel, bytes)
    })
    .await;
    let reason = match ran {
        Ok(outcome) if outcome.succeeded() => return std::future::pending().await,
        Ok(outcome) => outcome.to_string(),
        Err(AgentError::Refused(error)) => error.to_string(),
        Err(error) => Chain(&error).to_string(),
    };
    phase.failure(format!(
        "start command failed: error running start command: {reason}"
    ))
}

async fn wait_ready(
    phase: &Phase,
    sandbox: &dyn BuildSandbox,
    start: &StartCommand,
) -> Result<(), BuildFailure> {
    phase.info(&format!(
        "Waiting for template to be ready: {}",
        start.ready
    ));
    let limit = Duration::from_secs(start.ready_timeout_secs);
    let deadline = Instant::now() + limit;
    let failed = |reason: String| phase.failure(format!("ready command failed: {reason}"));
    let late = || failed(format!("ready command timed out after {}", spelled(limit)));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late());
        }
        let mut lines = phase.output(LogLevel::Debug, Some("[ready]"));
        let program = program(start, &start.ready, left);
        let ran = agent::run(sandbox, program, |channel, bytes| {
            lines.push(channel, bytes)
        });
        let ran = tokio::time::timeout(left, ran).await;
        lines.finish();
        match ran {
            Err(_) => return Err(late()),
            Ok(Ok(outcome)) if outcome.succeeded() => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(AgentError::Refused(error)))
                if error.code == warren_connect::Code::DeadlineExceeded =>
            {
                return Err(late());
            }
            Ok(Err(AgentError::Refused(error))) => return Err(failed(error.to_string())),
            Ok(Err(error)) => return Err(failed(Chain(&error).to_string())),
        }
        tokio::time::sleep(READY_PAUSE.min(left)).await;
    }
}

/// A time as `10m0s`.
fn spelled(time: Duration) -> String {
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    match minutes {
        0 => format!("{seconds}s"),
        _ => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use warren_cluster::{CommitError, Connection, Written};
    use warren_service::Tasks;

    use super::super::phase::Log;
    use super::super::port::BuildLog;
    use super::*;

    /// A sandbox in which every command fails.
    #[derive(Debug, Default)]
    struct Failing {
        tasks: Tasks,
        asked: AtomicU64,
    }

    fn envelope(flags: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[flags], &length[..], text.as_bytes()].concat()
    }

    #[async_trait]
    impl BuildSandbox for Failing {
        async fn dial(&self, _port: u16) -> io::Result<Box<dyn Connection>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let (ours, mut agent) = tokio::io::duplex(64 * 1024);
            let ended =
                r#"{"event":{"end":{"exitCode":1,"exited":true,"status":"exit status 1"}}}"#;
            let body = [envelope(0, ended), envelope(2, "{}")].concat();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/connect+json\r\n\
                 content-length: {}\r\n\r\n",
                body.len()
            );
            self.tasks.spawn(async move {
                let mut request = [0; 16 * 1024];
                assert!(agent.read(&mut request).await.unwrap() > 0);
                agent.write_all(head.as_bytes()).await.unwrap();
                agent.write_all(&body).await.unwrap();
                agent.read_to_end(&mut Vec::new()).await.ok();
            });
            Ok(Box::new(ours))
        }

        async fn died(&self) {
            std::future::pending().await
        }

        async fn commit(&self, _into: PathBuf) -> Result<Written, CommitError> {
            Ok(Written::default())
        }

        async fn end(self: Box<Self>) {}
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_is_asked_for_every_two_seconds_and_given_up_after_ten_minutes() {
        let sandbox = Failing::default();
        let start = StartCommand {
            command: None,
            ready: "false".to_owned(),
            user: "user".to_owned(),
            workdir: None,
            env: std::collections::BTreeMap::new(),
            ready_timeout_secs: READY_LIMIT.as_secs(),
        };
        let phase = Log::new(BuildLog::new(drop)).phase("finalize", "[finalize]".to_owned());
        let begun = Instant::now();
        let failure = wait_ready(&phase, &sandbox, &start).await.unwrap_err();
        let message = "ready command failed: ready command timed out after 10m0s";
        assert_eq!(failure.message, message);
        assert_eq!(failure.step.as_deref(), Some("finalize"));
        assert_eq!(begun.elapsed(), READY_LIMIT);
        assert_eq!(sandbox.asked.into_inner(), 300);
    }

    #[test]
    fn times_are_spelled_as_users_know_them() {
        assert_eq!(spelled(READY_LIMIT), "10m0s");
        assert_eq!(spelled(Duration::from_secs(59)), "59s");
    }
}
