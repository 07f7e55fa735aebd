//! The log of a build, as its phases write it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use warren_types::LogLevel;

use super::port::{BuildFailure, BuildLine, BuildLog};
use crate::agent::Channel;

/// Longest line of output that is passed on; the rest of it is cut.
const MAX_LINE: usize = 16 * 1024;
/// Output of a whole build that is passed on.
const MAX_OUTPUT: u64 = 64 << 20;

/// The text of failures that are not the template's.
pub(super) const INTERNAL: &str =
    "An internal error occurred. Please try again or contact support with the build ID.";

/// A build's log, with a cap on what guests write into it.
#[derive(Debug, Clone)]
pub(super) struct Log {
    sink: BuildLog,
    written: Arc<AtomicU64>,
}

impl Log {
    pub(super) fn new(sink: BuildLog) -> Self {
        Self {
            sink,
            written: Arc::default(),
        }
    }

    pub(super) fn push(&self, level: LogLevel, step: Option<&str>, message: String) {
        self.sink.push(BuildLine {
            at: Timestamp::now(),
            level,
            step: step.map(str::to_owned),
            message,
        });
    }

    /// The part of the log of one phase.
    pub(super) fn phase(&self, step: &str, prefix: String) -> Phase {
        Phase {
            log: self.clone(),
            step: step.to_owned(),
            prefix,
        }
    }
}

/// One phase: its name in the log and before its lines.
#[derive(Debug, Clone)]
pub(super) struct Phase {
    log: Log,
    /// `base`, a number, `finalize`.
    pub(super) step: String,
    /// `[base]`, `[builder 1/2]`.
    pub(super) prefix: String,
}

impl Phase {
    pub(super) fn info(&self, text: &str) {
        self.say(LogLevel::Info, text);
    }

    pub(super) fn say(&self, level: LogLevel, text: &str) {
        self.log.push(level, Some(&self.step), text.to_owned());
    }

    /// A failure of this phase in words for the user.
    pub(super) fn failure(&self, message: impl Into<String>) -> BuildFailure {
        BuildFailure {
            message: message.into(),
            step: Some(self.step.clone()),
        }
    }

    /// Where output of a command goes.
    pub(super) fn output(&self, level: LogLevel, prefix: Option<&str>) -> Lines {
        Lines {
            phase: self.clone(),
            level,
            prefix: prefix.unwrap_or(&self.prefix).to_owned(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            tail: std::collections::VecDeque::new(),
        }
    }
}

/// Cuts output into lines and logs each that is not blank.
#[derive(Debug)]
pub(super) struct Lines {
    phase: Phase,
    level: LogLevel,
    prefix: String,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: std::collections::VecDeque<String>,
}

/// Lines that are kept for an error text.
const TAIL: usize = 30;

impl Lines {
    pub(super) fn push(&mut self, channel: Channel, bytes: &[u8]) {
        let mut buffer = std::mem::take(self.buffer(channel));
        for &byte in bytes {
            if byte == b'\n' {
                self.line(channel, &buffer);
                buffer.clear();
            } else if buffer.len() < MAX_LINE {
                buffer.push(byte);
            }
        }
        *self.buffer(channel) = buffer;
    }

    fn buffer(&mut self, channel: Channel) -> &mut Vec<u8> {
        match channel {
            Channel::Stdout => &mut self.stdout,
            Channel::Stderr => &mut self.stderr,
        }
    }

    /// Logs lines that did not end.
    pub(super) fn finish(&mut self) {
        for channel in [Channel::Stdout, Channel::Stderr] {
            let rest = std::mem::take(self.buffer(channel));
            self.line(channel, &rest);
        }
    }

    /// The last lines.
    pub(super) fn tail(&self) -> String {
        Vec::from_iter(self.tail.iter().map(String::as_str)).join("\n")
    }

    fn line(&mut self, channel: Channel, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(text.to_owned());
        let written = &self.phase.log.written;
        let before = written.fetch_add(text.len() as u64, Ordering::Relaxed);
        if before > MAX_OUTPUT {
            return;
        }
        let name = match channel {
            Channel::Stdout => "stdout",
            Channel::Stderr => "stderr",
        };
        self.phase
            .say(self.level, &format!("{} [{name}]: {text}", self.prefix));
        if before + text.len() as u64 > MAX_OUTPUT {
            self.phase.say(
                LogLevel::Warn,
                "the build writes too much: further output is not shown",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn output_is_logged_line_by_line() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&said);
        let log = Log::new(BuildLog::new(move |line| {
            sink.lock().unwrap().push(line.message)
        }));
        let phase = log.phase("1", "[builder 1/2]".to_owned());
        let mut lines = phase.output(LogLevel::Info, None);
        lines.push(Channel::Stdout, b"one\n\n  two ");
        lines.push(Channel::Stderr, b"oops");
        lines.push(Channel::Stdout, b"more\nrest");
        lines.finish();
        assert_eq!(
            *said.lock().unwrap(),
            [
                "[builder 1/2] [stdout]: one",
                "[builder 1/2] [stdout]: two more",
                "[builder 1/2] [stdout]: rest",
                "[builder 1/2] [stderr]: oops",
            ]
        );
        assert_eq!(lines.tail(), "one\ntwo more\nrest\noops");
    }
}
