//! Builds of templates, over the API as the SDKs use it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::warren::Api;

const LOOK: Duration = Duration::from_millis(2);

/// A build that is ready.
#[derive(Debug)]
pub(crate) struct Built {
    /// From the request until the status says so.
    pub(crate) took: Duration,
    pub(crate) lines: Vec<Line>,
}

/// A line of a build's log.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    timestamp: String,
    pub(crate) message: String,
}

impl Built {
    /// How many steps came from the cache.
    pub(crate) fn cached(&self) -> usize {
        let lines = self.lines.iter();
        lines
            .filter(|line| line.message.starts_with("CACHED [builder "))
            .count()
    }

    /// Time between the first lines that hold these texts.
    pub(crate) fn between(&self, from: &str, to: &str) -> anyhow::Result<Duration> {
        let at = |text: &str| {
            let line = self.lines.iter().find(|line| line.message.contains(text));
            let line = line.with_context(|| format!("no line with {text:?}"))?;
            line.timestamp
                .parse::<jiff::Timestamp>()
                .context("a strange time")
        };
        Ok(at(to)?.duration_since(at(from)?).try_into()?)
    }
}

impl Api {
    /// Builds a template and fails if the build does. `start` says what and from what.
    pub(crate) async fn build(&self, name: &str, start: &Value) -> anyhow::Result<Built> {
        let begun = Instant::now();
        let made = self.post("/v3/templates", &json!({ "name": name })).await?;
        let id = |field: &str| made[field].as_str().context("no id").map(str::to_owned);
        let pair = format!("{}/builds/{}", id("templateID")?, id("buildID")?);
        self.post(&format!("/v2/templates/{pair}"), start).await?;
        let status = format!("/templates/{pair}/status");
        let took = loop {
            let told = self.get(&format!("{status}?logsOffset=1000000")).await?;
            match told["status"].as_str() {
                Some("ready") => break begun.elapsed(),
                Some("waiting" | "building") => tokio::time::sleep(LOOK).await,
                _ => bail!("the build failed: {told}"),
            }
        };
        let mut lines = Vec::new();
        loop {
            let told = self
                .get(&format!("{status}?logsOffset={}", lines.len()))
                .await?;
            let more: Vec<Line> = serde_json::from_value(told["logEntries"].clone())?;
            if more.is_empty() {
                return Ok(Built { took, lines });
            }
            lines.extend(more);
        }
    }
}

/// A step that runs a command as root.
pub(crate) fn run(command: &str) -> Value {
    json!({ "type": "RUN", "args": [command, "root"] })
}
