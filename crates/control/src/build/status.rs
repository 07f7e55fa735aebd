//! What can be seen of a build.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use warren_store::BuildRecord;
use warren_types::{BuildId, LogLevel};

use super::error::BuildStatusError;
use super::log::{BuildEntry, BuildLogFile};
use crate::{Caller, Control};

/// Most log lines of an answer.
const MAX_LINES: usize = 100;
/// How far a window of log lines reaches.
const WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Which log lines to show with a status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildLogRequest {
    /// Lines to leave out, counted after filtering by level.
    pub offset: usize,
    /// At most this many; there is a limit on it.
    pub limit: Option<usize>,
    /// This severity and above.
    pub min_level: Option<LogLevel>,
}

/// A span of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BuildWindow {
    /// Where to begin.
    pub cursor: Option<Timestamp>,
    /// Newest first.
    pub backward: bool,
    /// At most this many; there is a limit on it.
    pub limit: Option<usize>,
    /// This severity and above.
    pub min_level: Option<LogLevel>,
}

/// A build as its team sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildInfo {
    /// What is recorded of it.
    pub record: BuildRecord,
    /// Log lines.
    pub entries: Vec<BuildEntry>,
}

impl Control {
    async fn build_of_caller(
        &self,
        caller: &Caller,
        template: &str,
        build: &str,
    ) -> Result<BuildRecord, BuildStatusError> {
        let id: BuildId = build.parse().map_err(|_| BuildStatusError::Id)?;
        let unknown = BuildStatusError::Unknown(id);
        let (record, team) = self.store.build_get(id).await?.ok_or(unknown)?;
        if record.template_id.as_str() != template {
            return Err(BuildStatusError::Unknown(id));
        }
        if team != caller.team.id {
            return Err(BuildStatusError::Foreign(template.to_owned()));
        }
        Ok(record)
    }

    /// How far a build is, and what it said. The state is read before the lines, so that
    /// a build that has ended is never shown without its last ones.
    ///
    /// # Errors
    /// [`BuildStatusError`].
    pub async fn build_info(
        &self,
        caller: &Caller,
        template: &str,
        build: &str,
        request: BuildLogRequest,
    ) -> Result<BuildInfo, BuildStatusError> {
        let record = self.build_of_caller(caller, template, build).await?;
        let limit = request.limit.unwrap_or(MAX_LINES).min(MAX_LINES);
        let entries = self
            .read_log(record.id, move |log| {
                log.tail(request.offset, limit, request.min_level)
            })
            .await?;
        Ok(BuildInfo { record, entries })
    }

    /// What a build said in a span of time.
    ///
    /// # Errors
    /// [`BuildStatusError`].
    pub async fn build_logs(
        &self,
        caller: &Caller,
        template: &str,
        build: &str,
        window: BuildWindow,
    ) -> Result<Vec<BuildEntry>, BuildStatusError> {
        let record = self.build_of_caller(caller, template, build).await?;
        let limit = window.limit.unwrap_or(MAX_LINES).min(MAX_LINES);
        let span = if window.backward {
            // A line may be younger than the end that was written down.
            let to = window.cursor.unwrap_or_else(|| match record.finished_at {
                Some(at) => later(at, Duration::from_secs(60)),
                None => Timestamp::now(),
            });
            (to.checked_sub(WINDOW).unwrap_or(Timestamp::MIN), to)
        } else {
            let from = window.cursor.unwrap_or(record.created_at);
            (from, later(from, WINDOW))
        };
        self.read_log(record.id, move |log| {
            log.window(span, limit, window.backward, window.min_level)
        })
        .await
    }

    /// The last lines of a build's log, oldest first.
    pub(crate) async fn build_log_end(&self, id: BuildId, lines: usize) -> Vec<BuildEntry> {
        let span = (Timestamp::MIN, Timestamp::MAX);
        let read = self.read_log(id, move |log| log.window(span, lines, true, None));
        // A log that is gone has nothing to add.
        let mut entries = read.await.unwrap_or_default();
        entries.reverse();
        entries
    }

    async fn read_log<F>(&self, id: BuildId, read: F) -> Result<Vec<BuildEntry>, BuildStatusError>
    where
        F: FnOnce(&BuildLogFile) -> io::Result<Vec<BuildEntry>> + Send + 'static,
    {
        let Some(builds) = &self.building else {
            return Ok(Vec::new());
        };
        let logs = Arc::clone(&builds.logs);
        let work = move || match logs.find(id)? {
            Some(log) => read(&log),
            None => Ok(Vec::new()),
        };
        let done = self.tasks.spawn_blocking(work).await;
        let read = done.map_err(io::Error::other).flatten();
        read.map_err(BuildStatusError::Log)
    }
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}
