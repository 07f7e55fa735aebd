//! The round trip of a command.

use std::time::Instant;

use crate::report::Report;
use crate::server::Server;

/// `commands.run("true")` again and again on one sandbox.
pub(crate) async fn round_trip(
    server: &Server,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sandbox = server.api.create().await?;
    server.api.run(&sandbox, "true").await?;
    let mut series = Vec::with_capacity(n);
    for _ in 0..n {
        let start = Instant::now();
        server.api.run(&sandbox, "true").await?;
        series.push(start.elapsed());
    }
    server.api.kill(&sandbox).await?;
    report.times("command true", series);
    Ok(())
}
