//! Figures and log lines.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_types::{LogEntry, MetricsPoint};

/// One sample of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMetric {
    /// When it was taken.
    pub timestamp: Timestamp,
    /// The same in seconds since the epoch.
    pub timestamp_unix: i64,
    /// CPUs.
    pub cpu_count: u32,
    /// Use of them, 0 to 100 over all.
    pub cpu_used_pct: f64,
    /// Memory in use, in bytes.
    pub mem_used: u64,
    /// Memory limit in bytes.
    pub mem_total: u64,
    /// Page cache in bytes.
    pub mem_cache: u64,
    /// Disk in use, in bytes.
    pub disk_used: u64,
    /// Disk limit in bytes.
    pub disk_total: u64,
}

impl From<MetricsPoint> for SandboxMetric {
    fn from(point: MetricsPoint) -> Self {
        Self {
            timestamp: point.at,
            timestamp_unix: point.at.as_second(),
            cpu_count: point.cpu_count,
            cpu_used_pct: point.cpu_used_pct,
            mem_used: point.mem_used,
            mem_total: point.mem_total,
            mem_cache: point.mem_cache,
            disk_used: point.disk_used,
            disk_total: point.disk_total,
        }
    }
}

/// Answer of `GET /sandboxes/metrics`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SandboxesMetrics {
    /// Newest sample by sandbox id.
    pub sandboxes: BTreeMap<String, SandboxMetric>,
}

/// One sample of a team.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TeamMetric {
    /// Start of its span of time.
    pub timestamp: Timestamp,
    /// The same in seconds since the epoch.
    pub timestamp_unix: i64,
    /// Sandboxes that lived at a time.
    pub concurrent_sandboxes: u64,
    /// Sandboxes started per second.
    pub sandbox_start_rate: f64,
}

/// The highest sample of a team.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaxTeamMetric {
    /// When it was.
    pub timestamp: Timestamp,
    /// The same in seconds since the epoch.
    pub timestamp_unix: i64,
    /// How high.
    pub value: f64,
}

/// A log line as text, for old clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When it was written.
    pub timestamp: Timestamp,
    /// A JSON object as text: `level`, `message`, `logger` and further fields.
    pub line: String,
}

impl From<&LogEntry> for LogLine {
    fn from(entry: &LogEntry) -> Self {
        let mut line: BTreeMap<&str, &str> = entry
            .fields
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        line.entry("logger").or_insert("sandbox");
        line.insert("level", entry.level.as_str());
        line.insert("message", &entry.message);
        Self {
            timestamp: entry.timestamp,
            line: serde_json::to_string(&line).expect("a map of strings is always JSON"),
        }
    }
}

/// A log line.
pub type LogRecord = LogEntry;

/// Answer of `GET /sandboxes/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxLogs {
    /// The lines as text.
    pub logs: Vec<LogLine>,
    /// The same lines.
    pub log_entries: Vec<LogRecord>,
}

/// Answer of `GET /v2/sandboxes/{id}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxLogsV2 {
    /// The lines.
    #[serde(default)]
    pub logs: Vec<LogRecord>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_json_object_with_level_message_and_logger() {
        let entry = LogEntry {
            timestamp: Timestamp::UNIX_EPOCH,
            level: warren_types::LogLevel::Warn,
            message: "say \"hi\"".to_owned(),
            fields: BTreeMap::from([
                ("level".to_owned(), "forged".to_owned()),
                ("pid".to_owned(), "7".to_owned()),
            ]),
        };
        let line: BTreeMap<String, String> =
            serde_json::from_str(&LogLine::from(&entry).line).unwrap();
        let expected = [
            ("level", "warn"),
            ("logger", "sandbox"),
            ("message", "say \"hi\""),
            ("pid", "7"),
        ];
        assert_eq!(
            line,
            expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
        );
    }
}
