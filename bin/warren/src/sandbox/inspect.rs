//! `warren sandbox info` and `warren sandbox metrics`.

use std::process::ExitCode;
use std::time::Duration;

use warren_client::{Client, SandboxMetric};

use super::found;
use crate::cli::sandbox::{Format, Info, Metrics};
use crate::print::{json, line, printable, warning};

/// How often what is followed is asked for.
pub(super) const FOLLOW: Duration = Duration::from_millis(400);
const MIB: u64 = 1 << 20;

/// Shows all about a sandbox.
pub(super) async fn info(client: &Client, args: Info, as_json: bool) -> anyhow::Result<ExitCode> {
    let detail = found(client.get(&args.id).await, &args.id)?;
    // Its token opens the sandbox; it is no description.
    let mut value = serde_json::to_value(&detail)?;
    if let Some(fields) = value.as_object_mut() {
        fields.remove("envdAccessToken");
    }
    if args.format.or_json(as_json) == Format::Json {
        json(&value)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let shown = match value {
            serde_json::Value::String(text) => printable(text),
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::Object(_) | serde_json::Value::Array(_) => {
                serde_json::to_string_pretty(value)?
            }
            other => other.to_string(),
        };
        line(&format!("{}: {shown}", label(name)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `startedAt` as `Started at`; names that are abbreviations stay.
fn label(name: &str) -> String {
    let mut out = String::new();
    let mut previous = ' ';
    for c in name.chars() {
        if c == '_' {
            out.push(' ');
        } else if c.is_uppercase() && previous.is_lowercase() {
            out.push(' ');
            out.push(c);
        } else if out.is_empty() {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        previous = c;
    }
    out
}

/// Shows what a sandbox uses.
pub(super) async fn metrics(
    client: &Client,
    args: Metrics,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let mut last: Option<SandboxMetric> = None;
    loop {
        let from = last.map(|metric| metric.timestamp);
        let samples = match client.metrics(&args.id, from).await {
            // It ended while it was followed.
            Err(error) if error.is_not_found() && last.is_some() => Vec::new(),
            samples => found(samples, &args.id)?,
        };
        for sample in samples {
            if last.is_none_or(|last| sample.timestamp > last.timestamp) {
                show(&sample, args.format.or_json(as_json))?;
                last = Some(sample);
            }
        }
        if !args.follow {
            return Ok(ExitCode::SUCCESS);
        }
        if !is_running(client, &args.id).await? {
            warning("Stopped printing metrics — sandbox is closed");
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// Whether a sandbox that is followed goes on.
pub(super) async fn is_running(client: &Client, id: &str) -> anyhow::Result<bool> {
    match client.get(id).await {
        Ok(detail) => Ok(detail.listed.state == warren_client::State::Running),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn show(sample: &SandboxMetric, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        line(&serde_json::to_string(sample)?)?;
        return Ok(());
    }
    let cores = if sample.cpu_count == 1 {
        "Core"
    } else {
        "Cores"
    };
    line(&format!(
        "[{}]  CPU: {:>5.1}% / {:>2} {cores} | Memory: {:>5} / {:<5} MiB | Disk: {:>5} / {:<5} MiB",
        sample.timestamp.strftime("%Y-%m-%d %H:%M:%SZ"),
        sample.cpu_used_pct,
        sample.cpu_count,
        sample.mem_used / MIB,
        sample.mem_total / MIB,
        sample.disk_used / MIB,
        sample.disk_total / MIB,
    ))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn field_names_become_labels() {
        assert_eq!(label("sandboxID"), "Sandbox ID");
        assert_eq!(label("startedAt"), "Started At");
        assert_eq!(label("allow_internet_access"), "Allow internet access");
    }
}
