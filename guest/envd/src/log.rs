//! Structured log lines for the host.
//!
//! Lines go to a descriptor that the host reads. A host that does not keep up loses lines,
//! which are counted and reported by the next line that fits; the agent never waits.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Map, Value};
use warren_connect::Timestamp;

/// Longest line in bytes: a pipe takes this much at once or not at all.
const MAX_LINE: usize = 4096;
/// Longest field value in bytes.
const MAX_FIELD: usize = 2048;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// For developers.
    Debug,
    /// Normal events.
    Info,
    /// Odd but served.
    Warn,
    /// Something failed.
    Error,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// Writes log lines.
#[derive(Debug)]
pub(crate) struct Log {
    out: Option<OwnedFd>,
    verbose: bool,
    dropped: AtomicU64,
}

impl Log {
    /// Makes a log that writes to `out`, or nowhere. Debug lines need `verbose`.
    #[must_use]
    pub(crate) fn new(out: Option<OwnedFd>, verbose: bool) -> Self {
        Self {
            out,
            verbose,
            dropped: AtomicU64::new(0),
        }
    }

    /// Writes one line.
    pub(crate) fn write(&self, level: Level, logger: &str, message: &str, fields: &[(&str, &str)]) {
        let Some(out) = &self.out else { return };
        if level == Level::Debug && !self.verbose {
            return;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let timestamp = Timestamp {
            seconds: i64::try_from(now.as_secs()).unwrap_or(0),
            nanos: i32::try_from(now.subsec_nanos()).unwrap_or(0),
        };
        let dropped = self.dropped.load(Ordering::Relaxed);
        let line = format_line(timestamp, level, logger, message, fields, dropped);
        let mut poll = [PollFd::new(out, PollFlags::OUT)];
        let ready = rustix::event::poll(&mut poll, Some(&Timespec::default()));
        let writable = ready == Ok(1) && poll[0].revents().contains(PollFlags::OUT);
        if writable && rustix::io::write(out, &line) == Ok(line.len()) {
            self.dropped.store(0, Ordering::Relaxed);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn format_line(
    timestamp: Timestamp,
    level: Level,
    logger: &str,
    message: &str,
    fields: &[(&str, &str)],
    dropped: u64,
) -> Vec<u8> {
    let mut object = Map::new();
    let mut put = |name: &str, value: &str| {
        object.insert(name.to_owned(), Value::from(cut(value, MAX_FIELD)));
    };
    for (name, value) in fields {
        put(name, value);
    }
    put("timestamp", &timestamp.to_rfc3339().unwrap_or_default());
    put("level", level.name());
    put("logger", logger);
    put("message", message);
    if dropped > 0 {
        put("dropped", &dropped.to_string());
    }
    let mut line = to_line(&object);
    if line.len() > MAX_LINE {
        // Escapes can blow a value up sixfold; the fixed fields alone always fit.
        for (name, _) in fields {
            object.remove(*name);
        }
        object.insert(
            "message".to_owned(),
            Value::from(cut(message, MAX_FIELD / 8)),
        );
        object.insert("truncated".to_owned(), Value::from("true"));
        line = to_line(&object);
    }
    line
}

fn to_line(object: &Map<String, Value>) -> Vec<u8> {
    let mut line = serde_json::to_vec(object).unwrap_or_default();
    line.push(b'\n');
    line
}

fn cut(text: &str, limit: usize) -> &str {
    let mut end = limit.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_flat_objects_with_strings() {
        let time = Timestamp {
            seconds: 0,
            nanos: 0,
        };
        let line = format_line(time, Level::Info, "process", "end", &[("pid", "7")], 2);
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["timestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(value["pid"], "7");
        assert_eq!(value["dropped"], "2");
        assert!(line.ends_with(b"}\n"));
    }

    #[test]
    fn long_values_are_cut_at_a_character() {
        let time = Timestamp {
            seconds: 0,
            nanos: 0,
        };
        for text in ["é".repeat(5000), "\u{1}".repeat(5000)] {
            let line = format_line(time, Level::Warn, "x", &text, &[("cmd", &text)], 0);
            assert!(line.len() <= MAX_LINE);
            assert!(serde_json::from_slice::<Value>(&line).is_ok());
        }
    }
}
