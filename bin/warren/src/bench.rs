//! `warren bench`: how fast a server is, seen from here.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::json;
use warren_client::{Client, NewSandbox};

use crate::cli::Bench;
use crate::connection::{self, reached};
use crate::print::{self, line, table};

/// Time that a sandbox has should this program be killed.
const LIFE_SECONDS: i32 = 120;

/// Measures and prints.
pub(crate) fn run(args: Bench, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = connection::client(args.connection)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let new = NewSandbox {
        template_id: args.template,
        timeout: Some(LIFE_SECONDS),
        ..NewSandbox::default()
    };
    let (one, burst) = runtime.block_on(async {
        let one = one_by_one(&client, &new, args.count).await?;
        let burst = at_once(&client, &new, args.burst).await?;
        anyhow::Ok((one, burst))
    })?;
    if as_json {
        let mut report = json!({ "count": args.count });
        for (name, times) in &one {
            report[*name] = json!({
                "p50_ms": times.quantile(0.5), "p99_ms": times.quantile(0.99),
            });
        }
        if let Some(burst) = burst {
            report["burst"] = json!({ "count": args.burst, "ms": milliseconds(burst) });
        }
        print::json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Vec<String>> = one
        .iter()
        .map(|(name, times)| {
            let shown = |share| format!("{:.1}", times.quantile(share));
            vec![(*name).to_owned(), shown(0.5), shown(0.99)]
        })
        .collect();
    table(&["STEP", "P50 MS", "P99 MS"], &rows)?;
    if let Some(burst) = burst {
        line(&format!(
            "\n{} at once are usable after {:.0} ms",
            args.burst,
            milliseconds(burst)
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Durations of one step.
#[derive(Debug, Default)]
struct Times(Vec<Duration>);

impl Times {
    /// The value that a share of all is not above, in milliseconds.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index of a short list"
    )]
    fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied().map_or(0.0, milliseconds)
    }
}

async fn one_by_one(
    client: &Client,
    new: &NewSandbox,
    count: u32,
) -> anyhow::Result<[(&'static str, Times); 3]> {
    let mut steps = [
        ("create", Times::default()),
        ("command", Times::default()),
        ("kill", Times::default()),
    ];
    let [(_, creates), (_, commands), (_, kills)] = &mut steps;
    for _ in 0..count {
        let start = Instant::now();
        let sandbox = client.create(new).await.map_err(reached)?;
        creates.0.push(start.elapsed());
        let start = Instant::now();
        let ran = sandbox.commands().run("true").await;
        commands.0.push(start.elapsed());
        let start = Instant::now();
        // Killed whatever the command did: a measurement leaves nothing.
        sandbox.kill().await?;
        kills.0.push(start.elapsed());
        ran?;
    }
    Ok(steps)
}

/// Time until all of them are usable; `None` for none.
async fn at_once(
    client: &Client,
    new: &NewSandbox,
    count: u32,
) -> anyhow::Result<Option<Duration>> {
    if count == 0 {
        return Ok(None);
    }
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..count {
        let (client, new) = (client.clone(), new.clone());
        tasks.spawn(async move { client.create(&new).await });
    }
    let made = tasks.join_all().await;
    let taken = start.elapsed();
    let mut failed = None;
    for sandbox in made {
        match sandbox {
            Ok(sandbox) => {
                sandbox.kill().await?;
            }
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(Some(taken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_of_the_list() {
        let times = Times((1..=100).map(Duration::from_millis).collect());
        let near = |share: f64, value: f64| (times.quantile(share) - value).abs() < 0.001;
        assert!(near(0.0, 1.0) && near(0.5, 51.0) && near(1.0, 100.0));
        assert!(Times::default().quantile(0.5).abs() < 0.001);
    }
}
