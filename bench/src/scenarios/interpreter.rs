//! The code interpreter, beside ipykernel and Jupyter Server as they are.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use serde::Deserialize;
use tokio::process::Command;

use crate::report::Report;
use crate::server::Server;
use crate::warren::Sandbox;

/// The template's name.
pub(crate) const TEMPLATE: &str = "code-interpreter-v1";
/// Sandboxes of the burst: that many more than are warm.
const BURST: usize = 20;
/// Lets the pool fall back to its least after a burst: longer than it remembers demand.
const FORGET: Duration = Duration::from_secs(15);
/// Lets the pool fill up again between two measured creates.
const REFILL: Duration = Duration::from_millis(1500);
/// Lets kernels come to rest.
const SETTLE: Duration = Duration::from_secs(3);
const FLOOD_LINES: usize = 100_000;
const FLOOD_LINE: usize = 1000;
const MIB: f64 = 1024.0 * 1024.0;

/// A create up to the first value, one at a time from the pool, then cells on a live context,
/// memory at rest and much output.
pub(crate) async fn warm(server: &Server, scale: usize, report: &mut Report) -> anyhow::Result<()> {
    tokio::time::sleep(SETTLE).await;
    let mut series = Vec::new();
    for _ in 0..40 / scale {
        let start = Instant::now();
        let sandbox = first_value(server).await?;
        series.push(start.elapsed());
        server.api.kill(&sandbox).await?;
        tokio::time::sleep(REFILL).await;
    }
    report.times("interpreter: create to first value, warm", series);

    let sandbox = first_value(server).await?;
    tokio::time::sleep(SETTLE).await;
    let mut series = Vec::new();
    server.api.value(&sandbox, "x = 0; x").await?;
    for round in 0..20 + 300 / scale {
        let start = Instant::now();
        server.api.value(&sandbox, "x+=1; x").await?;
        // The first ones fill caches, as the peer's first ones do.
        if round >= 20 {
            series.push(start.elapsed());
        }
    }
    report.times("interpreter: cell on a live context", series);
    flood(server, &sandbox, scale, report).await?;
    server.api.kill(&sandbox).await
}

async fn first_value(server: &Server) -> anyhow::Result<Sandbox> {
    let sandbox = server.api.create_of(TEMPLATE).await?;
    let value = server.api.value(&sandbox, "1+1").await?;
    anyhow::ensure!(value == "2", "1+1 is {value}");
    Ok(sandbox)
}

/// Much output of one cell: every line is compared.
async fn flood(
    server: &Server,
    sandbox: &Sandbox,
    scale: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct Line {
        r#type: String,
        #[serde(default)]
        text: String,
    }
    let lines = FLOOD_LINES / scale;
    let fill = "x".repeat(FLOOD_LINE - 7);
    let code = format!("for i in range({lines}): print(f'{{i:06d}}{fill}')");
    let (mut number, mut unfinished) = (0_usize, String::new());
    let start = Instant::now();
    let streamed = server.api.cell(sandbox, &code, |line| {
        let line: Line = serde_json::from_slice(line)?;
        anyhow::ensure!(line.r#type != "error", "the cell failed");
        unfinished.push_str(if line.r#type == "stdout" {
            &line.text
        } else {
            ""
        });
        let end = unfinished.rfind('\n').map_or(0, |end| end + 1);
        for line in unfinished[..end].lines() {
            let expected = format!("{number:06}{fill}");
            anyhow::ensure!(line == expected, "line {number} is lost or out of order");
            number += 1;
        }
        unfinished.drain(..end);
        Ok(())
    });
    streamed.await?;
    anyhow::ensure!(number == lines, "{number} lines of {lines}");
    let megabytes = (lines * FLOOD_LINE) as f64 / 1e6;
    let rate = megabytes / start.elapsed().as_secs_f64();
    report.figure(
        format!("interpreter: {megabytes} MB of output"),
        rate,
        "MB/s",
    );
    let peak = "grep VmHWM /proc/$(pgrep -o -x interpreter)/status | tr -dc 0-9";
    let kib: f64 = server.api.run(sandbox, peak).await?.trim().parse()?;
    report.figure(
        "interpreter: peak memory of the service",
        kib / 1024.0,
        "MiB",
    );
    Ok(())
}

/// Private memory of sandboxes that have run a cell and rest.
pub(crate) async fn memory(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut sandboxes = Vec::new();
    for _ in 0..n {
        sandboxes.push(first_value(server).await?);
    }
    tokio::time::sleep(SETTLE).await;
    let mut each = server.private_bytes("python3")?;
    anyhow::ensure!(each.len() >= n, "{} sandboxes of {n} found", each.len());
    each.sort_unstable();
    let median = each[each.len() / 2] as f64 / MIB;
    report.figure("interpreter: private memory of an idle one", median, "MiB");
    for sandbox in &sandboxes {
        server.api.kill(sandbox).await?;
    }
    Ok(())
}

/// Many more creates at once than the `waiting` sandboxes of the pool, each up to its first
/// value.
pub(crate) async fn burst(
    server: &Server,
    waiting: usize,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut walls, mut singles) = (Vec::new(), Vec::new());
    // The first round reads the template's files into memory.
    for round in 0..=rounds {
        tokio::time::sleep(if waiting > 0 { FORGET } else { SETTLE }).await;
        let start = Instant::now();
        let answered = try_join_all((0..BURST + waiting).map(|_| async {
            let sandbox = first_value(server).await?;
            anyhow::Ok((start.elapsed(), sandbox))
        }));
        let answered = answered.await?;
        let wall = start.elapsed();
        for (taken, sandbox) in answered {
            if round > 0 {
                singles.push(taken);
            }
            server.api.kill(&sandbox).await?;
        }
        if round > 0 {
            walls.push(wall);
        }
    }
    let what = match waiting {
        0 => format!("interpreter: {BURST} at once without a pool"),
        _ => format!("interpreter: {BURST} more at once than the pool's {waiting}"),
    };
    report.times(format!("{what}, all"), walls);
    report.times(format!("{what}, each"), singles);
    Ok(())
}

/// What the peers' script measured.
#[derive(Deserialize)]
struct Peers {
    kernel_start_ms: Vec<f64>,
    server_start_ms: Vec<f64>,
    round_trip_ms: Vec<f64>,
    kernel_private_bytes: f64,
}

/// The same cells on ipykernel and Jupyter Server, run by `python`. Where they are not
/// installed, this is told.
#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) async fn peers(python: &Path, scale: usize, report: &mut Report) -> anyhow::Result<()> {
    const SCRIPT: &str = include_str!("../../peers/jupyter.py");
    let check = Command::new(python)
        .args(["-c", "import ipykernel, jupyter_server"])
        .stderr(Stdio::null())
        .status()
        .await;
    if !check.is_ok_and(|status| status.success()) {
        println!("{} has no ipykernel or no jupyter_server", python.display());
        return Ok(());
    }
    let counts = [20, 10, 300].map(|count| (count / scale).to_string());
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .args(counts)
        .stderr(Stdio::inherit())
        .output()
        .await?;
    anyhow::ensure!(output.status.success(), "the peers: {}", output.status);
    let peers: Peers = serde_json::from_slice(&output.stdout).context("the peers' results")?;
    let series = |ms: Vec<f64>| {
        ms.into_iter()
            .map(|ms| Duration::from_secs_f64(ms / 1000.0))
    };
    let mut times = |name: &str, ms| report.times(name, series(ms).collect());
    times("ipykernel: start to first value", peers.kernel_start_ms);
    times(
        "Jupyter Server: start to first value",
        peers.server_start_ms,
    );
    times("ipykernel: cell over bare ZMQ", peers.round_trip_ms);
    let private = peers.kernel_private_bytes / MIB;
    report.figure("ipykernel: private memory of an idle one", private, "MiB");
    Ok(())
}
