//! What is counted for whoever watches the server, in the text form of Prometheus.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use warren_types::EndReason;

use crate::Control;

/// Upper bounds in seconds: creates take milliseconds, builds of images minutes.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 20.0, 60.0,
];

/// Labels of a metric, by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Labels(Vec<(&'static str, String)>);

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// Counters of the server. Cheap to raise, from anywhere.
#[derive(Debug)]
pub struct Meters {
    registry: Mutex<Registry>,
    requests: Family<Labels, Counter>,
    request_seconds: Family<Labels, Histogram, fn() -> Histogram>,
    creates: Family<Labels, Counter>,
    create_seconds: Histogram,
    ends: Family<Labels, Counter>,
    pauses: Family<Labels, Counter>,
    resumes: Counter,
    builds: Family<Labels, Counter>,
    build_info: Family<Labels, Gauge>,
    sandboxes: Family<Labels, Gauge>,
    of_teams: Family<Labels, Gauge>,
    memory_available: Gauge<f64, AtomicU64>,
    cpu: Gauge<f64, AtomicU64>,
    disk: Family<Labels, Gauge>,
    database: Gauge,
    deliveries: Gauge,
}

impl Default for Meters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("warren");
        let meters = Self {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds as fn() -> Histogram),
            creates: Family::default(),
            create_seconds: seconds(),
            ends: Family::default(),
            pauses: Family::default(),
            resumes: Counter::default(),
            builds: Family::default(),
            build_info: Family::default(),
            sandboxes: Family::default(),
            of_teams: Family::default(),
            memory_available: Gauge::default(),
            cpu: Gauge::default(),
            disk: Family::default(),
            database: Gauge::default(),
            deliveries: Gauge::default(),
            registry: Mutex::default(),
        };
        macro_rules! add {
            ($metric:ident, $name:literal, $help:literal) => {
                registry.register($name, $help, meters.$metric.clone())
            };
        }
        add!(
            requests,
            "http_requests",
            "Requests to the API, by operation and status"
        );
        add!(
            request_seconds,
            "http_request_seconds",
            "Time until a request was answered"
        );
        add!(
            creates,
            "sandbox_creates",
            "Attempts to make a sandbox, by what came of them"
        );
        add!(
            create_seconds,
            "sandbox_create_seconds",
            "Time until a sandbox was usable"
        );
        add!(ends, "sandbox_ends", "Ends of sandboxes, by reason");
        add!(
            pauses,
            "sandbox_pauses",
            "Pauses of sandboxes, by what is kept"
        );
        add!(resumes, "sandbox_resumes", "Resumes of sandboxes");
        add!(
            builds,
            "template_builds",
            "Ended builds of templates, by what came of them"
        );
        add!(
            build_info,
            "build_info",
            "One, with the version of the server"
        );
        add!(
            sandboxes,
            "sandboxes",
            "Sandboxes, by state; warm ones wait for a create"
        );
        add!(
            of_teams,
            "team_sandboxes",
            "Sandboxes that run or start, by team"
        );
        add!(
            memory_available,
            "memory_available_ratio",
            "Share of the host's memory that is available"
        );
        add!(
            cpu,
            "cpu_used_ratio",
            "Load of the host's processors since the last time it was asked for"
        );
        add!(disk, "disk_bytes", "The file systems that sandboxes use");
        add!(database, "database_bytes", "Size of the database");
        add!(
            deliveries,
            "webhook_deliveries_pending",
            "Events that are still to be delivered"
        );
        meters.begin();
        let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
        meters
            .build_info
            .get_or_create(&Labels(vec![version]))
            .set(1);
        Self {
            registry: Mutex::new(registry),
            ..meters
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Meters {
    /// Has what can be counted told from the beginning, as none: a rate needs a first value.
    fn begin(&self) {
        use EndReason as E;
        let label = |name: &'static str, value: &str| Labels(vec![(name, value.to_owned())]);
        for (family, name, values) in [
            (&self.creates, "outcome", ["made", "failed"]),
            (&self.pauses, "kept", ["memory", "files"]),
            (&self.builds, "outcome", ["ready", "failed"]),
        ] {
            for value in values {
                drop(family.get_or_create(&label(name, value)));
            }
        }
        for reason in [
            E::Killed,
            E::TimedOut,
            E::OutOfMemory,
            E::Crashed,
            E::HostRestarted,
            E::Evicted,
            E::StartFailed,
        ] {
            drop(self.ends.get_or_create(&label("reason", reason.as_str())));
        }
    }

    /// Counts a request to the API that was answered.
    pub fn request(&self, method: &str, route: &'static str, status: u16, took: Duration) {
        let operation = vec![("method", method.to_owned()), ("route", route.to_owned())];
        let seconds = self
            .request_seconds
            .get_or_create(&Labels(operation.clone()));
        seconds.observe(took.as_secs_f64());
        drop(seconds);
        let mut labels = operation;
        labels.push(("status", status.to_string()));
        self.requests.get_or_create(&Labels(labels)).inc();
    }

    /// Counts an attempt to make a sandbox.
    pub(crate) fn create(&self, made: bool, took: Duration) {
        let outcome = if made { "made" } else { "failed" };
        let labels = Labels(vec![("outcome", outcome.to_owned())]);
        self.creates.get_or_create(&labels).inc();
        if made {
            self.create_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a pause that keeps memory, or files alone.
    pub(crate) fn pause(&self, memory: bool) {
        let kept = if memory { "memory" } else { "files" };
        let labels = Labels(vec![("kept", kept.to_owned())]);
        self.pauses.get_or_create(&labels).inc();
    }

    /// Counts a resume.
    pub(crate) fn resume(&self) {
        self.resumes.inc();
    }

    /// Counts a build that ended.
    pub(crate) fn build(&self, is_ready: bool) {
        let outcome = if is_ready { "ready" } else { "failed" };
        let labels = Labels(vec![("outcome", outcome.to_owned())]);
        self.builds.get_or_create(&labels).inc();
    }

    /// Counts the end of a sandbox.
    pub(crate) fn end(&self, reason: EndReason) {
        let labels = Labels(vec![("reason", reason.as_str().to_owned())]);
        self.ends.get_or_create(&labels).inc();
    }
}

impl Control {
    /// The counters of the server.
    #[must_use]
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// All that is counted, and how things stand now, in the text form of Prometheus.
    pub async fn meters_text(&self) -> String {
        let meters = &self.meters;
        let load = self.node.load().await;
        let host = self.node.host().await;
        for (state, count) in [
            ("running", load.running),
            ("paused", load.paused),
            ("warm", load.warm),
        ] {
            let labels = Labels(vec![("state", state.to_owned())]);
            meters
                .sandboxes
                .get_or_create(&labels)
                .set(signed(count as u64));
        }
        meters.of_teams.clear();
        for (team, count) in self.running_counts() {
            let labels = Labels(vec![("team_id", team.to_string())]);
            meters.of_teams.get_or_create(&labels).set(i64::from(count));
        }
        if let Some(share) = load.available_pct {
            meters.memory_available.set(f64::from(share) / 100.0);
        }
        meters.cpu.set(f64::from(host.cpu_percent) / 100.0);
        for disk in &host.disks {
            for (kind, bytes) in [("used", disk.used), ("total", disk.total)] {
                let place = disk.mount_point.clone();
                let labels = Labels(vec![("mount_point", place), ("kind", kind.to_owned())]);
                meters.disk.get_or_create(&labels).set(signed(bytes));
            }
        }
        match self.store.size().await {
            Ok(size) => {
                meters.database.set(signed(size.bytes));
                meters.deliveries.set(signed(size.deliveries));
            }
            Err(error) => {
                tracing::warn!(error = %warren_service::Chain(&error), "the database was not measured");
            }
        }
        let registry = meters.registry.lock();
        let registry = registry.unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a string can't fail.
        encode(&mut text, &registry).ok();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_told() {
        let meters = Meters::default();
        meters.request("GET", "/health", 200, Duration::from_millis(3));
        meters.request("GET", "/health", 200, Duration::from_millis(3));
        meters.create(true, Duration::from_millis(4));
        meters.create(false, Duration::from_millis(4));
        meters.end(EndReason::TimedOut);
        meters.pause(true);
        meters.resume();
        meters.build(false);
        let mut text = String::new();
        encode(&mut text, &meters.registry.lock().unwrap()).unwrap();
        for line in [
            "warren_http_requests_total{method=\"GET\",route=\"/health\",status=\"200\"} 2",
            "warren_sandbox_creates_total{outcome=\"failed\"} 1",
            "warren_sandbox_create_seconds_count 1",
            "warren_sandbox_ends_total{reason=\"timed_out\"} 1",
            "warren_sandbox_pauses_total{kept=\"memory\"} 1",
            "warren_sandbox_resumes_total 1",
            "warren_template_builds_total{outcome=\"failed\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
