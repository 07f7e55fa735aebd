//! How much a server keeps of what grows with time, and what it tells of itself.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use warren_control::{HistoryLimits, Keep};

/// How much is kept.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "History")]
pub(crate) struct History {
    /// Days that logs of sandboxes are kept after their last line.
    #[arg(
        long,
        env = "WARREN_KEEP_LOGS_DAYS",
        default_value_t = 7,
        value_name = "DAYS"
    )]
    pub(crate) keep_logs_days: u32,

    /// How much they may take, in MiB; beyond that the longest untouched go.
    #[arg(
        long,
        env = "WARREN_KEEP_LOGS_MIB",
        default_value_t = 2048,
        value_name = "MIB"
    )]
    pub(crate) keep_logs_mib: u32,

    /// Days that figures of sandboxes are kept.
    #[arg(
        long,
        env = "WARREN_KEEP_METRICS_DAYS",
        default_value_t = 7,
        value_name = "DAYS"
    )]
    pub(crate) keep_metrics_days: u32,

    /// About how much they may take in the database, in MiB; beyond that the oldest go.
    #[arg(
        long,
        env = "WARREN_KEEP_METRICS_MIB",
        default_value_t = 1024,
        value_name = "MIB"
    )]
    pub(crate) keep_metrics_mib: u32,

    /// Days that lifecycle events and their deliveries are kept.
    #[arg(
        long,
        env = "WARREN_KEEP_EVENTS_DAYS",
        default_value_t = 7,
        value_name = "DAYS"
    )]
    pub(crate) keep_events_days: u32,

    /// About how much they may take in the database, in MiB; beyond that the oldest go.
    #[arg(
        long,
        env = "WARREN_KEEP_EVENTS_MIB",
        default_value_t = 256,
        value_name = "MIB"
    )]
    pub(crate) keep_events_mib: u32,

    /// Days that the audit trail is kept.
    #[arg(
        long,
        env = "WARREN_KEEP_AUDIT_DAYS",
        default_value_t = 90,
        value_name = "DAYS"
    )]
    pub(crate) keep_audit_days: u32,

    /// About how much it may take in the database, in MiB; beyond that the oldest go.
    #[arg(
        long,
        env = "WARREN_KEEP_AUDIT_MIB",
        default_value_t = 256,
        value_name = "MIB"
    )]
    pub(crate) keep_audit_mib: u32,
}

fn keep(days: u32, mib: u32) -> Keep {
    Keep {
        age: Duration::from_secs(u64::from(days) * 24 * 3600),
        bytes: u64::from(mib) << 20,
    }
}

impl History {
    /// What is kept in the database.
    pub(crate) fn limits(&self) -> HistoryLimits {
        HistoryLimits {
            metrics: keep(self.keep_metrics_days, self.keep_metrics_mib),
            events: keep(self.keep_events_days, self.keep_events_mib),
            audit: keep(self.keep_audit_days, self.keep_audit_mib),
        }
    }

    /// What is kept of the logs of sandboxes.
    pub(crate) fn logs(&self) -> Keep {
        keep(self.keep_logs_days, self.keep_logs_mib)
    }
}

/// What the server tells of itself.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Telemetry")]
pub(crate) struct Telemetry {
    /// Serve counters for Prometheus here, at `/metrics`. Nothing is asked for: choose an
    /// address that only those who may see them reach.
    #[arg(long, env = "WARREN_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) metrics_listen: Option<SocketAddr>,

    /// Send log lines and spans to a collector here by OTLP, as protobuf over HTTP, below
    /// `/v1/logs` and `/v1/traces`. The usual variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and
    /// others) are heeded too.
    #[arg(long, env = "WARREN_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) otlp_endpoint: Option<String>,

    /// How the server logs: lines for people to standard error, or JSON to standard output.
    #[arg(
        long,
        env = "WARREN_LOG_FORMAT",
        default_value = "text",
        value_name = "FORMAT"
    )]
    pub(crate) log_format: LogFormat,

    /// The same as --log-format json.
    #[arg(long, env = "WARREN_LOG_JSON", hide = true)]
    pub(crate) log_json: bool,
}

/// How the server logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// JSON lines.
    Json,
}

impl Telemetry {
    /// Whether log lines are JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.log_json || self.log_format == LogFormat::Json
    }
}
