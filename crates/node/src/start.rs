//! The start command of a template: run in every sandbox before it counts as usable.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use warren_connect::Code;
use warren_runtime::Dial;
use warren_types::StartCommand;

use crate::agent::AgentError;
use crate::command::{self, Line};

/// Pause after the first unsuccessful ready command; it grows by half each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How much of the commands' output is told when they fail.
const TAIL: usize = 2048;

/// Why a sandbox did not become ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the start command failed: {how}{output}")]
    Failed { how: String, output: Tail },
    #[error("the sandbox was not ready within {limit:?}{output}")]
    NotReady { limit: Duration, output: Tail },
    #[error("have the agent run the start command")]
    Start(#[source] AgentError),
    #[error("have the agent run the ready command")]
    Ready(#[source] AgentError),
    #[error("the sandbox died before it was ready{output}")]
    Died { output: Tail },
}

/// The last of what the commands wrote, in one line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tail(Vec<u8>);

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        let surplus = self.0.len().saturating_sub(TAIL);
        self.0.drain(..surplus);
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.0);
        let mut separator = ": ";
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            write!(f, "{separator}{line}")?;
            separator = " | ";
        }
        Ok(())
    }
}

/// Runs the start command, leaves it running, and waits until the ready command succeeds.
/// `died` resolves when the sandbox's first process has died.
pub(crate) async fn start(
    dial: &dyn Dial,
    start: &StartCommand,
    died: impl Future<Output = ()>,
) -> Result<(), StartError> {
    let limit = Duration::from_secs(start.ready_timeout_secs);
    let output = Mutex::new(Tail::default());
    let tail = || {
        let tail = output.lock().unwrap_or_else(PoisonError::into_inner);
        tail.clone()
    };
    let keep = |bytes: &[u8]| {
        let mut tail = output.lock().unwrap_or_else(PoisonError::into_inner);
        tail.push(bytes);
    };
    let started = async {
        let Some(text) = &start.command else {
            return std::future::pending().await;
        };
        let ran = command::run(dial, line(start, text, None), keep).await;
        match ran {
            // It may have put its service into the background.
            Ok(ended) if ended.code == 0 => std::future::pending().await,
            Ok(ended) => StartError::Failed {
                how: ended.text,
                output: tail(),
            },
            Err(error) => StartError::Start(error),
        }
    };
    let deadline = Instant::now() + limit;
    tokio::select! {
        biased;
        () = died => Err(StartError::Died { output: tail() }),
        failure = started => Err(failure),
        ready = wait(dial, start, deadline, keep) => ready,
        () = tokio::time::sleep_until(deadline) => Err(StartError::NotReady {
            limit,
            output: tail(),
        }),
    }
}

fn line<'a>(start: &'a StartCommand, text: &'a str, limit: Option<Duration>) -> Line<'a> {
    Line {
        text,
        user: &start.user,
        workdir: start.workdir.as_deref(),
        env: &start.env,
        limit,
    }
}

/// Runs the ready command again and again until it succeeds.
async fn wait(
    dial: &dyn Dial,
    start: &StartCommand,
    deadline: Instant,
    keep: impl Fn(&[u8]),
) -> Result<(), StartError> {
    let mut pause = FIRST_PAUSE;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = line(start, &start.ready, Some(left));
        match command::run(dial, line, &keep).await {
            Ok(ended) if ended.code == 0 => return Ok(()),
            Ok(_) => {}
            // The deadline is told by the caller.
            Err(AgentError::Command(error)) if error.code == Code::DeadlineExceeded => {}
            Err(error) => return Err(StartError::Ready(error)),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_output_is_told() {
        let mut tail = Tail::default();
        assert_eq!(tail.to_string(), "");
        tail.push(&vec![b'x'; 2 * TAIL]);
        tail.push(b"\n\nno such file\x1b[0m\r\nbye");
        let shown = tail.to_string();
        assert!(shown.len() <= TAIL + 8);
        assert!(shown.ends_with("xx | no such file[0m | bye"), "{shown}");
    }
}
