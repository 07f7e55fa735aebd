//! Logs of sandboxes: the agent's live file, which the guest can write, and the archive
//! that the node keeps. Lines are JSON objects; whatever a guest writes is only ever data.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde_json::{Map, Value};
use warren_cluster::LogQuery;
use warren_types::{LogEntry, LogLevel, SandboxId};

/// At most this much of the end of a log is read or kept.
const TAIL_LIMIT: u64 = 8 * 1024 * 1024;
/// Longer messages are cut.
const MESSAGE_LIMIT: usize = 192 * 1024;

/// The directory of archived logs, one file per sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    dir: PathBuf,
}

impl Archive {
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self, id: &SandboxId) -> PathBuf {
        self.dir.join(format!("{id}.jsonl"))
    }

    /// Notes an event of the sandbox's life as a line of its log.
    pub(crate) fn note(&self, id: &SandboxId, level: LogLevel, message: &str) -> io::Result<()> {
        let mut line = serde_json::to_vec(&serde_json::json!({
            "timestamp": Timestamp::now(), "level": level, "logger": "node", "message": message,
        }))?;
        line.push(b'\n');
        self.append(id, &line)
    }

    /// Copies the tail of the agent's file, which is about to be released.
    pub(crate) fn keep(&self, id: &SandboxId, live: &Path) -> io::Result<()> {
        let mut bytes = tail(live)?;
        if bytes.last().is_some_and(|last| *last != b'\n') {
            bytes.push(b'\n');
        }
        self.append(id, &bytes)
    }

    fn append(&self, id: &SandboxId, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.path(id))?;
        file.write_all(bytes)
    }

    /// Reads what `query` asks for, from the archive and the live file if there is one.
    pub(crate) fn read(
        &self,
        id: &SandboxId,
        live: Option<&Path>,
        query: &LogQuery,
    ) -> io::Result<Vec<LogEntry>> {
        let mut entries = parse(&tail(&self.path(id))?);
        if let Some(live) = live {
            entries.extend(parse(&tail(live)?));
        }
        Ok(select(entries, query))
    }

    /// Deletes archives that nobody wrote to for longer than `retention`, and of the others
    /// the longest untouched while all take more than `most` bytes.
    pub(crate) fn expire(&self, retention: Duration, most: u64) -> io::Result<()> {
        let oldest = SystemTime::now()
            .checked_sub(retention)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        let (mut kept, mut bytes) = (Vec::new(), 0);
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let facts = file.metadata()?;
            let touched = facts.modified()?;
            if touched < oldest {
                fs::remove_file(file.path())?;
            } else {
                bytes += facts.len();
                kept.push((touched, facts.len(), file.path()));
            }
        }
        kept.sort();
        for (_, length, path) in kept {
            if bytes <= most {
                break;
            }
            fs::remove_file(path)?;
            bytes -= length;
        }
        Ok(())
    }
}

/// The last [`TAIL_LIMIT`] bytes of a file, from a line's start; empty if there is no file.
fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(TAIL_LIMIT);
    file.seek(SeekFrom::Start(skipped))?;
    let mut bytes = Vec::new();
    file.take(TAIL_LIMIT).read_to_end(&mut bytes)?;
    if skipped > 0 {
        let first_line = bytes
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(bytes.len(), |at| at + 1);
        bytes.drain(..first_line);
    }
    Ok(bytes)
}

/// Reads lines; one that is not a JSON object with a time stamp becomes a plain message at
/// the time of the line before it.
fn parse(bytes: &[u8]) -> Vec<LogEntry> {
    let mut last = Timestamp::UNIX_EPOCH;
    let mut entries = Vec::new();
    for line in bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let entry = match serde_json::from_slice::<Map<String, Value>>(line) {
            Ok(object) => from_object(object, last),
            Err(_) => plain(last, String::from_utf8_lossy(line).into_owned()),
        };
        last = entry.timestamp;
        entries.push(entry);
    }
    entries
}

fn plain(timestamp: Timestamp, mut message: String) -> LogEntry {
    message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
    LogEntry {
        timestamp,
        level: LogLevel::Info,
        message,
        fields: BTreeMap::new(),
    }
}

fn from_object(mut object: Map<String, Value>, fallback: Timestamp) -> LogEntry {
    let mut text = |key: &str| match object.remove(key) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let timestamp = text("timestamp")
        .and_then(|t| t.parse().ok())
        .unwrap_or(fallback);
    let level = match text("level").as_deref() {
        Some("debug") => LogLevel::Debug,
        Some("warn" | "warning") => LogLevel::Warn,
        Some("error") => LogLevel::Error,
        _ => LogLevel::Info,
    };
    let message = text("message").unwrap_or_default();
    let fields = object
        .into_iter()
        .map(|(key, value)| match value {
            Value::String(text) => (key, text),
            other => (key, other.to_string()),
        })
        .collect();
    LogEntry {
        level,
        fields,
        ..plain(timestamp, message)
    }
}

fn select(mut entries: Vec<LogEntry>, query: &LogQuery) -> Vec<LogEntry> {
    entries.sort_by_key(|entry| entry.timestamp);
    let (mut first, mut last) = (query.from, query.until);
    if query.backward {
        entries.reverse();
        std::mem::swap(&mut first, &mut last);
    }
    entries
        .into_iter()
        .filter(|entry| {
            first.is_none_or(|first| entry.timestamp >= first)
                && last.is_none_or(|last| entry.timestamp <= last)
                && query.min_level.is_none_or(|level| entry.level >= level)
                && query
                    .logger
                    .as_ref()
                    .is_none_or(|logger| entry.fields.get("logger") == Some(logger))
                && query
                    .search
                    .as_ref()
                    .is_none_or(|text| entry.message.contains(text))
        })
        .take(query.limit)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> LogQuery {
        LogQuery {
            from: None,
            limit: 1000,
            backward: false,
            min_level: None,
            until: None,
            logger: None,
            search: None,
        }
    }

    #[test]
    fn old_logs_go_and_the_longest_untouched_of_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path().to_owned()).unwrap();
        let hour = Duration::from_secs(3600);
        for (name, hours) in [("old", 30), ("older", 3), ("newer", 2), ("newest", 1)] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::now() - hour * hours).unwrap();
        }
        archive.expire(hour * 24, 250).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["newer", "newest"]);
    }

    #[test]
    fn guest_garbage_is_kept_as_text_and_does_not_stop_the_reader() {
        let bytes = b"{\"timestamp\":\"2026-01-01T00:00:01Z\",\"level\":\"warn\",\"message\":\"a\",\"pid\":7}\n\
            \xff\xfe garbage\n[1,2]\n{\"timestamp\":5,\"level\":{},\"message\":[]}\n";
        let entries = parse(bytes);
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[0].level, LogLevel::Warn);
        assert_eq!(entries[0].fields["pid"], "7");
        assert_eq!(entries[1].timestamp, entries[0].timestamp);
        assert!(entries[1].message.ends_with("garbage"));
        assert_eq!(entries[3].level, LogLevel::Info);
    }

    #[test]
    fn lines_are_chosen_by_source_and_between_two_moments() {
        let line = |second: i64, logger: &str| LogEntry {
            fields: [("logger".to_owned(), logger.to_owned())].into(),
            ..plain(Timestamp::from_second(second).unwrap(), format!("{second}"))
        };
        let entries = vec![line(1, "node"), line(2, "process"), line(3, "process")];
        let chosen = |query: LogQuery| -> Vec<String> {
            let chosen = select(entries.clone(), &query);
            chosen.into_iter().map(|entry| entry.message).collect()
        };
        let at = |second| Some(Timestamp::from_second(second).unwrap());
        let between = LogQuery {
            from: at(1),
            until: at(2),
            ..query()
        };
        assert_eq!(chosen(between), ["1", "2"]);
        let backward = LogQuery {
            from: at(3),
            until: at(2),
            backward: true,
            ..query()
        };
        assert_eq!(chosen(backward), ["3", "2"]);
        let of_processes = LogQuery {
            logger: Some("process".to_owned()),
            ..query()
        };
        assert_eq!(chosen(of_processes), ["2", "3"]);
        let of_nobody = LogQuery {
            logger: Some("proc".to_owned()),
            ..query()
        };
        assert!(chosen(of_nobody).is_empty());
    }

    #[test]
    fn archive_and_live_file_read_as_one_log() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(dir.path().join("logs")).unwrap();
        let id = SandboxId::random();
        let live = dir.path().join("live");
        fs::write(
            &live,
            "{\"timestamp\":\"2000-01-01T00:00:00Z\",\"message\":\"early\",\"level\":\"debug\"}\n",
        )
        .unwrap();
        archive.note(&id, LogLevel::Info, "started").unwrap();
        let all = archive.read(&id, Some(&live), &query()).unwrap();
        assert_eq!(
            all.iter().map(|e| e.message.as_str()).collect::<Vec<_>>(),
            ["early", "started"]
        );
        archive.keep(&id, &live).unwrap();
        assert_eq!(archive.read(&id, None, &query()).unwrap(), all);

        let newest = LogQuery {
            backward: true,
            limit: 1,
            ..query()
        };
        assert_eq!(
            archive.read(&id, None, &newest).unwrap()[0].message,
            "started"
        );
        let from = LogQuery {
            from: Some(all[1].timestamp),
            ..query()
        };
        assert_eq!(archive.read(&id, None, &from).unwrap().len(), 1);
        let level = LogQuery {
            min_level: Some(LogLevel::Info),
            ..query()
        };
        assert_eq!(archive.read(&id, None, &level).unwrap().len(), 1);
        let search = LogQuery {
            search: Some("arl".to_owned()),
            ..query()
        };
        assert_eq!(
            archive.read(&id, None, &search).unwrap()[0].message,
            "early"
        );
        assert!(
            archive
                .read(&SandboxId::random(), None, &query())
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn only_the_tail_of_a_huge_log_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        let line = format!("{}\n", "x".repeat(1023));
        let lines = usize::try_from(TAIL_LIMIT).unwrap() / 1024 + 10;
        fs::write(&path, line.repeat(lines)).unwrap();
        let bytes = tail(&path).unwrap();
        assert!(bytes.len() as u64 <= TAIL_LIMIT);
        assert_eq!(bytes.len() % 1024, 0, "starts at a line");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics(bytes: Vec<u8>) {
            parse(&bytes);
        }
    }
}
