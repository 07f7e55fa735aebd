//! What was measured, on what machine.

use std::fmt;
use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::stats::{Summary, summary};

/// One line of the report.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Row {
    Times {
        name: String,
        #[serde(flatten)]
        summary: Summary,
    },
    Figure {
        name: String,
        value: f64,
        unit: String,
    },
    Note {
        note: String,
    },
}

/// The whole report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    machine: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1))
            .unwrap_or("unknown CPU");
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let cpus = std::thread::available_parallelism()?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split(' ').next().unwrap_or_default();
        Ok(Self {
            machine: format!(
                "{cpus} x {model}, Linux {}, load {load} at start",
                kernel.trim()
            ),
            rows: Vec::new(),
        })
    }

    /// Adds a series of durations.
    pub(crate) fn times(&mut self, name: impl Into<String>, series: Vec<Duration>) {
        if let Some(summary) = summary(series) {
            self.rows.push(Row::Times {
                name: name.into(),
                summary,
            });
        }
    }

    /// Adds a single figure.
    pub(crate) fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row::Figure {
            name: name.into(),
            value,
            unit: unit.to_owned(),
        });
    }

    /// Adds a remark, such as what was not measured and why.
    pub(crate) fn note(&mut self, note: String) {
        self.rows.push(Row::Note { note });
    }

    /// Takes over the rows of another report, given as JSON.
    pub(crate) fn absorb(&mut self, json: &[u8]) -> anyhow::Result<()> {
        self.rows.extend(serde_json::from_slice::<Self>(json)?.rows);
        Ok(())
    }

    /// The median or value of the row of this name.
    fn value(&self, wanted: &str) -> Option<f64> {
        self.rows.iter().find_map(|row| match row {
            Row::Times { name, summary } if name == wanted => Some(summary.p50_ms),
            Row::Figure { name, value, .. } if name == wanted => Some(*value),
            _ => None,
        })
    }
}

/// Pairs of (ours, the peer's) that a ratio is told of.
const RATIOS: &[(&str, &str)] = &[
    ("create warm", "crun run true"),
    ("create cold", "crun run true"),
    ("create warm", "runsc run true"),
    ("command true", "crun exec true"),
    (
        "download through proxy",
        "download from a static file server",
    ),
    ("upload through proxy", "upload to a plain HTTP sink"),
    ("requests through warren", "requests through nginx"),
    (
        "egress: request, 1000 rules on names",
        "egress: request, 1 rule on names",
    ),
    (
        "interpreter: create to first value, warm",
        "ipykernel: start to first value",
    ),
    (
        "interpreter: create to first value, warm",
        "Jupyter Server: start to first value",
    ),
    ("pull of an image", "skopeo copy and umoci unpack of it"),
    (
        "interpreter: cell on a live context",
        "ipykernel: cell over bare ZMQ",
    ),
    (
        "interpreter: private memory of an idle one",
        "ipykernel: private memory of an idle one",
    ),
];

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "machine: {}", self.machine)?;
        for row in &self.rows {
            match row {
                Row::Times { name, summary: s } => writeln!(
                    f,
                    "{name:<42} p50 {:>9.2} ms   p99 {:>9.2} ms   max {:>9.2} ms   n {}",
                    s.p50_ms, s.p99_ms, s.max_ms, s.n
                )?,
                Row::Figure { name, value, unit } => {
                    writeln!(f, "{name:<42} {value:>13.2} {unit}")?
                }
                Row::Note { note } => writeln!(f, "{note}")?,
            }
        }
        for (ours, peer) in RATIOS {
            if let (Some(a), Some(b)) = (self.value(ours), self.value(peer)) {
                writeln!(f, "{:<42} {:>13.2} x", format!("{ours} / {peer}"), a / b)?;
            }
        }
        Ok(())
    }
}
