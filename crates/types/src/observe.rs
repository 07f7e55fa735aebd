//! What is observed of a sandbox: figures and log lines.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One sample of a sandbox's use of the host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricsPoint {
    /// When it was taken.
    pub at: Timestamp,
    /// CPUs the sandbox may use.
    pub cpu_count: u32,
    /// Use of them since the previous sample, 0 to 100 over all its CPUs.
    pub cpu_used_pct: f64,
    /// Memory in use, without page cache, in bytes.
    pub mem_used: u64,
    /// Memory limit in bytes.
    pub mem_total: u64,
    /// Page cache in bytes.
    pub mem_cache: u64,
    /// Disk in use in bytes.
    pub disk_used: u64,
    /// Disk limit in bytes.
    pub disk_total: u64,
}

/// Severity of a log line, in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For developers.
    Debug,
    /// Normal course of things.
    Info,
    /// Odd but served.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// Its name in lower case, as on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// One line of a sandbox's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When it was written.
    pub timestamp: Timestamp,
    /// Its severity.
    pub level: LogLevel,
    /// Its text.
    pub message: String,
    /// Further facts, such as `logger`, `cmd` and `pid`.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
}
