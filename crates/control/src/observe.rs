//! Logs and figures.

use std::collections::BTreeMap;

use jiff::Timestamp;
use warren_cluster::{LogQuery, NodeError};
use warren_store::{SandboxRecord, StartSpans};
use warren_types::{LogEntry, LogLevel, MetricsPoint, SandboxId};

use crate::{Caller, Control, ObserveError};

/// Sandboxes whose newest figures can be asked for at once.
const MAX_SANDBOXES: usize = 100;
/// Team figures without a range go back as far, in seconds.
const TEAM_RANGE_S: i64 = 7 * 24 * 3600;

/// Which log lines are wanted.
#[derive(Debug, Clone)]
pub struct LogRequest {
    /// Inclusive start, in the direction of reading.
    pub from: Option<Timestamp>,
    /// At most this many.
    pub limit: usize,
    /// Newest first.
    pub backward: bool,
    /// This severity and above.
    pub min_level: Option<LogLevel>,
    /// Inclusive end, in the direction of reading.
    pub until: Option<Timestamp>,
    /// Only lines of this source (`logger`).
    pub logger: Option<String>,
    /// Only lines that hold this text.
    pub search: Option<String>,
}

/// A span of time in seconds since the epoch; open ends have defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct TimeRange {
    /// Inclusive.
    pub start: Option<i64>,
    /// Inclusive.
    pub end: Option<i64>,
}

/// Figures of a team over one span of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TeamPoint {
    /// When the span starts.
    pub at: Timestamp,
    /// Sandboxes that lived in it.
    pub concurrent: u64,
    /// Starts per second.
    pub start_rate: f64,
}

/// Which of a team's figures the highest is wanted of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeamPeak {
    /// Sandboxes at a time.
    Concurrent,
    /// Starts per second.
    StartRate,
}

impl Control {
    /// Log lines of a sandbox that lives, or ended and is still remembered.
    ///
    /// # Errors
    /// [`ObserveError`]
    pub async fn logs(
        &self,
        caller: &Caller,
        id: &SandboxId,
        request: LogRequest,
    ) -> Result<Vec<LogEntry>, ObserveError> {
        self.known(caller, id).await?;
        if request.limit == 0 {
            return Ok(Vec::new());
        }
        let query = LogQuery {
            from: request.from,
            limit: request.limit,
            backward: request.backward,
            min_level: request.min_level,
            until: request.until,
            logger: request.logger,
            search: request.search,
        };
        match self.node.logs(id, query).await {
            Ok(entries) => Ok(entries),
            // It ended and the node keeps nothing of it any more.
            Err(NodeError::NotFound(_)) => Ok(Vec::new()),
            Err(error) => Err(ObserveError::Node(error)),
        }
    }

    /// Figures of a sandbox, oldest first; the longer the range, the coarser.
    ///
    /// # Errors
    /// [`ObserveError`]
    pub async fn metrics(
        &self,
        caller: &Caller,
        id: &SandboxId,
        range: TimeRange,
    ) -> Result<Vec<MetricsPoint>, ObserveError> {
        if let (Some(start), Some(end)) = (range.start, range.end)
            && start > end
        {
            return Err(ObserveError::Range);
        }
        let record = self.known(caller, id).await?;
        let end = range
            .end
            .map_or_else(Timestamp::now, |end| whole_second(end, true));
        let start = range
            .start
            .map_or(record.started_at, |start| whole_second(start, false));
        if start > end {
            // Only one end was given, so the range is empty rather than reversed.
            return Ok(Vec::new());
        }
        let step = step_s(end.as_second().saturating_sub(start.as_second()));
        let points = self.store.metrics_range(id, start, end, step).await?;
        // Followers ask from their last point on, without an end, and go on until they are
        // refused: nothing will come of a sandbox that has ended.
        let is_followed = range.start.is_some() && range.end.is_none();
        let newest = points.last().map(|point| point.at.as_second());
        if is_followed && record.ended_at.is_some() && newest <= range.start {
            return Err(ObserveError::NotFound(id.clone()));
        }
        Ok(points)
    }

    /// The newest figures of several sandboxes; unknown ones are left out.
    ///
    /// # Errors
    /// [`ObserveError`]
    pub async fn metrics_latest(
        &self,
        caller: &Caller,
        ids: &[SandboxId],
    ) -> Result<BTreeMap<SandboxId, MetricsPoint>, ObserveError> {
        if ids.len() > MAX_SANDBOXES {
            return Err(ObserveError::TooMany(MAX_SANDBOXES));
        }
        let mut latest = BTreeMap::new();
        for id in ids {
            if let Some(point) = self.store.metrics_latest(caller.team.id, id).await? {
                latest.insert(id.clone(), point);
            }
        }
        Ok(latest)
    }

    /// Figures of the caller's team, oldest first.
    ///
    /// # Errors
    /// [`ObserveError`]
    pub async fn team_metrics(
        &self,
        caller: &Caller,
        team: &str,
        range: TimeRange,
    ) -> Result<Vec<TeamPoint>, ObserveError> {
        let own = caller.team.id.to_string();
        if team != own {
            return Err(ObserveError::ForeignTeam {
                caller: own,
                team: team.to_owned(),
            });
        }
        let now = Timestamp::now().as_second();
        let end = range.end.unwrap_or(now).min(now);
        let start = range
            .start
            .unwrap_or_else(|| end.saturating_sub(TEAM_RANGE_S));
        if start > end {
            return Err(ObserveError::TeamRange);
        }
        // Older sandboxes are forgotten, and the number of points stays bounded.
        let retention = i64::try_from(self.config.retention.as_secs()).unwrap_or(i64::MAX);
        let start = start.max(now.saturating_sub(retention)).min(end);
        let step = step_s(end.saturating_sub(start));
        let (from, to) = (whole_second(start, false), whole_second(end, true));
        let spans = self
            .store
            .team_spans(caller.team.id, from, to, step)
            .await?;
        Ok(team_points(&spans, start, end, step))
    }

    /// The highest of the caller's team's figures, and when it was; `None` if the range
    /// holds no point.
    ///
    /// # Errors
    /// [`ObserveError`]
    pub async fn team_peak(
        &self,
        caller: &Caller,
        team: &str,
        range: TimeRange,
        peak: TeamPeak,
    ) -> Result<Option<(Timestamp, f64)>, ObserveError> {
        let points = self.team_metrics(caller, team, range).await?;
        Ok(highest(&points, peak))
    }

    async fn known(&self, caller: &Caller, id: &SandboxId) -> Result<SandboxRecord, ObserveError> {
        self.store
            .sandbox_get(caller.team.id, id)
            .await?
            .ok_or_else(|| ObserveError::NotFound(id.clone()))
    }
}

/// Start of a second, or its last microsecond. Times out of range become the nearest.
fn whole_second(second: i64, is_end: bool) -> Timestamp {
    let micros = second
        .saturating_mul(1_000_000)
        .saturating_add(if is_end { 999_999 } else { 0 });
    let bound = if second < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    };
    Timestamp::from_microsecond(micros).unwrap_or(bound)
}

/// Seconds between points for a range of so many seconds.
fn step_s(range_s: i64) -> u32 {
    const HOUR: i64 = 3600;
    /// Ranges shorter than the first have points of the second.
    const STEPS: [(i64, u32); 5] = [
        (HOUR, 5),
        (6 * HOUR, 30),
        (12 * HOUR, 60),
        (24 * HOUR, 120),
        (168 * HOUR, 300),
    ];
    STEPS
        .iter()
        .find(|(below, _)| range_s < *below)
        .map_or(900, |(_, step)| *step)
}

fn team_points(spans: &StartSpans, start: i64, end: i64, step: u32) -> Vec<TeamPoint> {
    let step_i = i64::from(step);
    let starts: BTreeMap<i64, u64> = spans
        .started
        .iter()
        .map(|count| (count.span, count.sandboxes))
        .collect();
    let ends: BTreeMap<i64, u64> = spans
        .ended
        .iter()
        .map(|count| (count.span, count.sandboxes))
        .collect();
    let mut living = spans.before;
    (start.div_euclid(step_i)..=end.div_euclid(step_i))
        .map(|span| {
            let started = starts.get(&span).copied().unwrap_or_default();
            // Those that end within the span lived in it.
            let concurrent = living + started;
            living = concurrent.saturating_sub(ends.get(&span).copied().unwrap_or_default());
            TeamPoint {
                at: whole_second(span * step_i, false),
                concurrent,
                start_rate: f64::from(u32::try_from(started).unwrap_or(u32::MAX)) / f64::from(step),
            }
        })
        .collect()
}

fn highest(points: &[TeamPoint], peak: TeamPeak) -> Option<(Timestamp, f64)> {
    points
        .iter()
        .map(|point| {
            let value = match peak {
                TeamPeak::Concurrent => {
                    f64::from(u32::try_from(point.concurrent).unwrap_or(u32::MAX))
                }
                TeamPeak::StartRate => point.start_rate,
            };
            (point.at, value)
        })
        .fold(None, |best, next| match best {
            Some((_, value)) if value >= next.1 => best,
            _ => Some(next),
        })
}

#[cfg(test)]
mod tests {
    use warren_store::SpanCount;

    use super::*;

    #[test]
    fn longer_ranges_are_coarser() {
        let steps = [0, 3599, 3600, 21_600, 43_200, 86_400, 604_800].map(step_s);
        assert_eq!(steps, [5, 5, 30, 60, 120, 300, 900]);
    }

    #[test]
    fn a_team_s_figures_follow_starts_and_ends() {
        let spans = StartSpans {
            before: 1,
            started: vec![SpanCount {
                span: 1,
                sandboxes: 10,
            }],
            ended: vec![
                SpanCount {
                    span: 1,
                    sandboxes: 4,
                },
                SpanCount {
                    span: 2,
                    sandboxes: 7,
                },
            ],
        };
        let points = team_points(&spans, 0, 19, 5);
        let concurrent: Vec<_> = points.iter().map(|point| point.concurrent).collect();
        assert_eq!(concurrent, [1, 11, 7, 0]);
        assert_eq!(points[1].start_rate, 2.0);
        let peak = highest(&points, TeamPeak::Concurrent);
        assert_eq!(peak, Some((Timestamp::from_second(5).unwrap(), 11.0)));
    }
}
