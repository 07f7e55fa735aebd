//! Logs of builds: one append-only file of JSON lines each, served while it grows.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_types::{BuildId, LogLevel};

/// Most bytes of a log.
const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Most lines of a log.
const MAX_LINES: usize = 100_000;
/// Longest message kept; what is beyond is cut.
const MAX_MESSAGE: usize = 16 * 1024;
/// Logs of ended builds whose index stays in memory.
const KEPT: usize = 16;
const FILE: &str = "log.jsonl";

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildEntry {
    /// When it was said; never before the line above it.
    pub timestamp: Timestamp,
    /// Its severity.
    pub level: LogLevel,
    /// Its text.
    pub message: String,
    /// The phase that said it: `base`, a step's number from 1 on, `finalize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Where a line is in the file.
#[derive(Debug, Clone, Copy)]
struct Mark {
    offset: u64,
    at: Timestamp,
    level: LogLevel,
}

#[derive(Debug, Default)]
struct State {
    marks: Vec<Mark>,
    end: u64,
    is_full: bool,
    /// Nothing is added any more.
    is_finished: bool,
}

/// The log of one build.
#[derive(Debug)]
pub(crate) struct BuildLogFile {
    file: File,
    state: Mutex<State>,
}

impl BuildLogFile {
    /// Opens the log in `dir`, making it if absent. A line that a killed server left half
    /// written is dropped.
    fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(FILE))?;
        let mut state = State::default();
        let mut reader = BufReader::new(&file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let Ok(entry) = serde_json::from_slice::<BuildEntry>(&line) else {
                break;
            };
            state.marks.push(Mark {
                offset: state.end,
                at: entry.timestamp,
                level: entry.level,
            });
            state.end += line.len() as u64;
        }
        if file.metadata()?.len() > state.end {
            file.set_len(state.end)?;
        }
        Ok(Self {
            file,
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line. Does nothing once the log is finished; what exceeds the log's size is
    /// dropped, which the log itself says. A write into the page cache is all it waits for.
    pub(crate) fn push(&self, entry: BuildEntry) {
        let mut state = self.lock();
        if state.is_finished || state.is_full {
            return;
        }
        if state.end >= MAX_BYTES || state.marks.len() >= MAX_LINES {
            state.is_full = true;
            let full = BuildEntry {
                message: "The log is full; further lines are not kept.".to_owned(),
                level: LogLevel::Warn,
                ..entry
            };
            self.write(&mut state, full);
            return;
        }
        self.write(&mut state, entry);
    }

    /// Adds the last line, even to a full log. Does nothing if there is one already.
    pub(crate) fn finish(&self, entry: BuildEntry) {
        let mut state = self.lock();
        if !state.is_finished {
            state.is_finished = true;
            self.write(&mut state, entry);
        }
    }

    fn write(&self, state: &mut State, mut entry: BuildEntry) {
        cut(&mut entry.message, MAX_MESSAGE);
        // Readers rely on the order; clocks may go back.
        if let Some(last) = state.marks.last() {
            entry.timestamp = entry.timestamp.max(last.at);
        }
        let Ok(mut line) = serde_json::to_vec(&entry) else {
            return;
        };
        line.push(b'\n');
        if let Err(error) = self.file.write_all_at(&line, state.end) {
            tracing::error!(%error, "a line of a build's log is lost");
            return;
        }
        state.marks.push(Mark {
            offset: state.end,
            at: entry.timestamp,
            level: entry.level,
        });
        state.end += line.len() as u64;
    }

    /// At most `limit` lines of at least this severity, after `offset` such lines.
    pub(crate) fn tail(
        &self,
        offset: usize,
        limit: usize,
        min_level: Option<LogLevel>,
    ) -> io::Result<Vec<BuildEntry>> {
        let spans = {
            let state = self.lock();
            let wanted = state.matching(min_level).skip(offset).take(limit);
            wanted.map(|index| state.span(index)).collect()
        };
        self.read(spans)
    }

    /// At most `limit` lines of at least this severity from `from` to `to`, newest first if
    /// `backward`.
    pub(crate) fn window(
        &self,
        (from, to): (Timestamp, Timestamp),
        limit: usize,
        backward: bool,
        min_level: Option<LogLevel>,
    ) -> io::Result<Vec<BuildEntry>> {
        let spans = {
            let state = self.lock();
            let mut wanted: Vec<usize> = state
                .matching(min_level)
                .filter(|index| (from..=to).contains(&state.marks[*index].at))
                .collect();
            if backward {
                wanted.reverse();
            }
            wanted.truncate(limit);
            wanted.into_iter().map(|index| state.span(index)).collect()
        };
        self.read(spans)
    }

    fn read(&self, spans: Vec<(u64, usize)>) -> io::Result<Vec<BuildEntry>> {
        let mut line = Vec::new();
        let mut entries = Vec::with_capacity(spans.len());
        for (offset, len) in spans {
            line.resize(len, 0);
            self.file.read_exact_at(&mut line, offset)?;
            entries.push(serde_json::from_slice(&line)?);
        }
        Ok(entries)
    }
}

impl State {
    fn matching(&self, min_level: Option<LogLevel>) -> impl Iterator<Item = usize> + '_ {
        let min = min_level.unwrap_or(LogLevel::Debug);
        let marks = self.marks.iter().enumerate();
        marks
            .filter(move |(_, mark)| mark.level >= min)
            .map(|(index, _)| index)
    }

    fn span(&self, index: usize) -> (u64, usize) {
        let start = self.marks[index].offset;
        let next = self.marks.get(index + 1);
        let end = next.map_or(self.end, |mark| mark.offset);
        (start, usize::try_from(end - start).unwrap_or(usize::MAX))
    }
}

/// Cuts a text to at most `max` bytes, between characters.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        let end = (0..=max).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
}

/// The logs of all builds.
#[derive(Debug)]
pub(crate) struct BuildLogs {
    dir: PathBuf,
    open: Mutex<HashMap<BuildId, Arc<BuildLogFile>>>,
}

impl BuildLogs {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            open: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<BuildId, Arc<BuildLogFile>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The log of a build, made if absent. Blocks on the disk.
    pub(crate) fn create(&self, build: BuildId) -> io::Result<Arc<BuildLogFile>> {
        let mut open = self.lock();
        if let Some(log) = open.get(&build) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(BuildLogFile::open(&self.dir.join(build.to_string()))?);
        if open.len() >= KEPT {
            // Those that somebody holds are in use and must stay the only ones.
            open.retain(|_, log| Arc::strong_count(log) > 1);
        }
        open.insert(build, Arc::clone(&log));
        Ok(log)
    }

    /// The log of a build, if it has one. Blocks on the disk.
    pub(crate) fn find(&self, build: BuildId) -> io::Result<Option<Arc<BuildLogFile>>> {
        if let Some(log) = self.lock().get(&build) {
            return Ok(Some(Arc::clone(log)));
        }
        if self.dir.join(build.to_string()).join(FILE).exists() {
            self.create(build).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Removes logs that were last written longer than `age` ago. Blocks on the disk.
    pub(crate) fn sweep(&self, age: Duration) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let before = SystemTime::now().checked_sub(age);
        for entry in entries {
            let entry = entry?;
            let written = std::fs::metadata(entry.path().join(FILE))
                .or_else(|_| entry.metadata())
                .and_then(|metadata| metadata.modified())?;
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let (Some(id), true) = (id, before.is_some_and(|before| written < before)) else {
                continue;
            };
            let mut open = self.lock();
            if open.get(&id).is_none_or(|log| Arc::strong_count(log) == 1) {
                open.remove(&id);
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(at: i64, level: LogLevel, message: &str) -> BuildEntry {
        BuildEntry {
            timestamp: Timestamp::from_second(at).unwrap(),
            level,
            message: message.to_owned(),
            step: Some("1".to_owned()),
        }
    }

    fn messages(entries: &[BuildEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.message.as_str()).collect()
    }

    #[test]
    fn lines_are_read_by_offset_after_filtering_and_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let id = BuildId::random();
        let logs = BuildLogs::new(dir.path().to_owned());
        assert!(logs.find(id).unwrap().is_none());
        let log = logs.create(id).unwrap();
        log.push(entry(5, LogLevel::Info, "a"));
        log.push(entry(4, LogLevel::Debug, "b\nstill b"));
        log.push(entry(6, LogLevel::Warn, "c"));
        log.finish(entry(7, LogLevel::Error, "d"));
        log.push(entry(8, LogLevel::Error, "late"));
        log.finish(entry(8, LogLevel::Error, "later"));
        let check = |log: &BuildLogFile| {
            let all = log.tail(0, 100, None).unwrap();
            assert_eq!(messages(&all), ["a", "b\nstill b", "c", "d"]);
            assert_eq!(all[1].timestamp, all[0].timestamp, "time does not go back");
            let some = log.tail(1, 1, Some(LogLevel::Info)).unwrap();
            assert_eq!(messages(&some), ["c"]);
            assert!(log.tail(4, 100, None).unwrap().is_empty());
            let at = |second| Timestamp::from_second(second).unwrap();
            let back = log.window((at(5), at(6)), 2, true, None).unwrap();
            assert_eq!(messages(&back), ["c", "b\nstill b"]);
        };
        check(&log);
        let again = BuildLogs::new(dir.path().to_owned());
        check(&again.find(id).unwrap().unwrap());
    }

    #[test]
    fn a_half_written_line_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let log = BuildLogFile::open(dir.path()).unwrap();
        log.push(entry(1, LogLevel::Info, "whole"));
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], &whole[..20]].concat()).unwrap();
        let log = BuildLogFile::open(dir.path()).unwrap();
        log.push(entry(2, LogLevel::Info, "next"));
        assert_eq!(messages(&log.tail(0, 9, None).unwrap()), ["whole", "next"]);
    }

    #[test]
    fn a_full_log_says_so_and_takes_the_last_line() {
        let dir = tempfile::tempdir().unwrap();
        let log = BuildLogFile::open(dir.path()).unwrap();
        let long = "x".repeat(MAX_MESSAGE * 2);
        let lines = usize::try_from(MAX_BYTES).unwrap() / MAX_MESSAGE + 10;
        for _ in 0..lines {
            log.push(entry(1, LogLevel::Info, &long));
        }
        log.finish(entry(1, LogLevel::Error, "the end"));
        let errors = log.tail(0, 10, Some(LogLevel::Warn)).unwrap();
        assert_eq!(
            messages(&errors),
            ["The log is full; further lines are not kept.", "the end"]
        );
        assert!(log.lock().end < MAX_BYTES + 100 * 1024);
    }

    #[test]
    fn old_logs_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = BuildLogs::new(dir.path().join("builds"));
        logs.sweep(Duration::ZERO).unwrap();
        let id = BuildId::random();
        let held = logs.create(id).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        logs.sweep(Duration::from_secs(60)).unwrap();
        assert!(logs.find(id).unwrap().is_some());
        logs.sweep(Duration::ZERO).unwrap();
        assert!(logs.find(id).unwrap().is_some(), "it is in use");
        drop(held);
        logs.sweep(Duration::ZERO).unwrap();
        assert!(logs.find(id).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_text_comes_back(texts in prop::collection::vec("\\PC{0,40}", 0..20)) {
            let dir = tempfile::tempdir().unwrap();
            let log = BuildLogFile::open(dir.path()).unwrap();
            for text in &texts {
                log.push(entry(1, LogLevel::Info, text));
            }
            let read = log.tail(0, 100, None).unwrap();
            prop_assert_eq!(messages(&read), texts);
        }
    }
}
