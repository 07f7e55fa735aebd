//! How long until a sandbox is usable.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use crate::report::Report;
use crate::server::Server;

/// Lets a pool fill up again between two measured creates.
const REFILL: Duration = Duration::from_millis(30);

/// One at a time, the pool full.
pub(crate) async fn warm(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let series = one_by_one(server, n).await?;
    report.times("create warm", series);
    Ok(())
}

/// One at a time, no warm sandbox, slots prepared.
pub(crate) async fn cold(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let series = one_by_one(server, n).await?;
    report.times("create cold", series);
    Ok(())
}

async fn one_by_one(server: &Server, n: usize) -> anyhow::Result<Vec<Duration>> {
    let mut series = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        let sandbox = server.api.create().await?;
        series.push(start.elapsed());
        server.api.kill(&sandbox).await?;
        tokio::time::sleep(REFILL).await;
    }
    Ok(series)
}

/// `size` at once, `rounds` times.
pub(crate) async fn burst(
    server: &Server,
    size: usize,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (mut walls, mut singles) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let start = Instant::now();
        let created = try_join_all((0..size).map(|_| async {
            let sandbox = server.api.create().await?;
            anyhow::Ok((start.elapsed(), sandbox))
        }))
        .await?;
        walls.push(start.elapsed());
        for (taken, sandbox) in created {
            singles.push(taken);
            server.api.kill(&sandbox).await?;
        }
    }
    report.times(format!("{size} at once, all ready"), walls);
    report.times(format!("{size} at once, each"), singles);
    Ok(())
}

/// As many creates and kills as two clients get done in `seconds`.
pub(crate) async fn churn(
    server: &Server,
    seconds: u64,
    report: &mut Report,
) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let start = Instant::now();
    let client = || async {
        let mut done = 0_u32;
        while start.elapsed() < Duration::from_secs(seconds) {
            let sandbox = server.api.create().await?;
            server.api.kill(&sandbox).await?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let (a, b) = tokio::try_join!(client(), client())?;
    report.figure(
        "create and kill, sustained",
        f64::from(a + b) / start.elapsed().as_secs_f64(),
        "per second",
    );
    Ok(())
}
