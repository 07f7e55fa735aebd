//! What an idle sandbox costs in memory.

use std::time::Duration;

use crate::report::Report;
use crate::server::Server;
use crate::warren::available_memory;

const MIB: f64 = 1024.0 * 1024.0;

/// Starts `n` sandboxes and tells the fall of the machine's available memory per sandbox:
/// server, agent and kernel together.
pub(crate) async fn memory(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    // The first few pay for what all share: page cache, pools, tables.
    let mut sandboxes = Vec::new();
    for _ in 0..10 {
        sandboxes.push(server.api.create().await?);
    }
    let settle = Duration::from_secs(5);
    tokio::time::sleep(settle).await;
    let (before, resident) = (available_memory()?, server.resident_bytes()?);
    for _ in 0..n {
        sandboxes.push(server.api.create().await?);
    }
    tokio::time::sleep(settle).await;
    let (after, resident_after) = (available_memory()?, server.resident_bytes()?);
    let each = |from: u64, to: u64| (from as f64 - to as f64) / n as f64 / MIB;
    report.figure(
        format!("memory per idle sandbox of {n}"),
        each(before, after),
        "MiB",
    );
    report.figure("of it in the server", each(resident_after, resident), "MiB");
    report.figure("server resident", resident_after as f64 / MIB, "MiB");
    for sandbox in &sandboxes {
        server.api.kill(sandbox).await?;
    }
    Ok(())
}
