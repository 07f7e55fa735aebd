//! Setting aside, taking up again, copying.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use futures_util::future::try_join_all;
use serde_json::json;

use crate::report::Report;
use crate::server::Server;
use crate::warren::Sandbox;

/// Set aside for longer than this, the memory of a sandbox is on the disk, or never will be.
const STORED: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Holds what a notebook usually holds: as much memory as numpy and pandas take.
const WORLD: &str = "python3 -c 'import time; held = bytearray(b\"x\" * (80 << 20)); \
                     open(\"/tmp/up\", \"w\"); time.sleep(3600)' >/dev/null 2>&1 & \
                     until test -e /tmp/up; do sleep .02; done";
/// Writes down the longest time that it did not run.
const WATCHED: &str = "python3 -c '
import time
last = time.monotonic(); gap = 0
open(\"/tmp/up\", \"w\")
while True:
    time.sleep(.001)
    now = time.monotonic()
    if now - last > gap:
        gap = now - last
        open(\"/tmp/gap\", \"w\").write(str(gap))
    last = now
' >/dev/null 2>&1 & until test -e /tmp/up; do sleep .02; done";

async fn resume(server: &Server, sandbox: &Sandbox) -> anyhow::Result<()> {
    let path = format!("/sandboxes/{}/connect", sandbox.id);
    let done = server.api.post(&path, &json!({ "timeout": 600 })).await;
    done.map(drop)
}

async fn pause(server: &Server, sandbox: &Sandbox) -> anyhow::Result<()> {
    let path = format!("/sandboxes/{}/pause", sandbox.id);
    server.api.post(&path, &json!({})).await.map(drop)
}

/// Freezing and thawing.
pub(crate) async fn in_memory(
    server: &Server,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sandbox = server.api.create().await?;
    let (mut pauses, mut resumes) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let start = Instant::now();
        pause(server, &sandbox).await?;
        pauses.push(start.elapsed());
        let start = Instant::now();
        resume(server, &sandbox).await?;
        resumes.push(start.elapsed());
    }
    server.api.kill(&sandbox).await?;
    report.times("pause", pauses);
    report.times("resume from memory", resumes);
    Ok(())
}

/// Whether the processes of a sandbox are on the disk, and only there.
fn is_stored(captures: &Path, sandbox: &Sandbox) -> bool {
    let Ok(entries) = std::fs::read_dir(captures) else {
        return false;
    };
    let prefix = format!("paused-{}.", sandbox.id);
    let names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect();
    matches!(&names[..], [name] if name.ends_with(".memory"))
}

/// Pauses, waits until the processes are on the disk only, and times the resume.
async fn resume_from_disk(server: &Server, sandbox: &Sandbox) -> anyhow::Result<Duration> {
    pause(server, sandbox).await?;
    let begun = Instant::now();
    while !is_stored(&server.captures(), sandbox) {
        anyhow::ensure!(begun.elapsed() < STORED, "memory is not stored here");
        tokio::time::sleep(LOOK).await;
    }
    let start = Instant::now();
    resume(server, sandbox).await?;
    Ok(start.elapsed())
}

/// From the disk, of a server that puts memory there at once.
pub(crate) async fn from_disk(
    server: &Server,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    for (name, setup) in [
        ("resume from disk, idle base", "true"),
        ("resume from disk, 100 MB Python", WORLD),
    ] {
        let sandbox = server.api.create().await?;
        server.api.run(&sandbox, setup).await?;
        let mut series = Vec::new();
        for _ in 0..n {
            series.push(resume_from_disk(server, &sandbox).await?);
            server.api.run(&sandbox, "true").await?;
        }
        server.api.kill(&sandbox).await?;
        report.times(name, series);
    }
    Ok(())
}

/// The same of a code interpreter whose kernel holds numpy and pandas: until the resume is
/// answered, and until the kernel has told a value that it held.
pub(crate) async fn kernel_from_disk(
    server: &Server,
    n: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sandbox = server.api.create_of(super::interpreter::TEMPLATE).await?;
    let load = "import numpy, pandas\n\
                held = pandas.DataFrame(numpy.random.rand(100_000, 8))\n\
                len(held)";
    let value = server.api.value(&sandbox, load).await?;
    anyhow::ensure!(value == "100000", "the kernel holds {value} rows");
    let (mut series, mut values) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let resumed = resume_from_disk(server, &sandbox).await?;
        let start = Instant::now();
        let value = server.api.value(&sandbox, "len(held)").await?;
        anyhow::ensure!(value == "100000", "the kernel held {value} rows");
        series.push(resumed);
        values.push(resumed + start.elapsed());
    }
    server.api.kill(&sandbox).await?;
    report.times("resume from disk, kernel with pandas", series);
    report.times("the same, to a value of the kernel", values);
    Ok(())
}

/// Ten copies of a sandbox with a running Python, until all answer a command.
pub(crate) async fn fork(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    let (mut walls, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..n {
        let source = server.api.create().await?;
        server.api.run(&source, WORLD).await?;
        server
            .api
            .run(&source, &format!("rm /tmp/up; {WATCHED}"))
            .await?;
        let start = Instant::now();
        let path = format!("/sandboxes/{}/fork", source.id);
        let body = json!({ "count": 10, "timeout": 600 });
        let made = server.api.post(&path, &body).await?;
        let copies: Vec<Sandbox> = made
            .as_array()
            .context("a list of copies")?
            .iter()
            .map(|one| Ok(serde_json::from_value(one["sandbox"].clone())?))
            .collect::<anyhow::Result<_>>()?;
        try_join_all(copies.iter().map(|copy| server.api.run(copy, "true"))).await?;
        walls.push(start.elapsed());
        let gap: f64 = server.api.run(&source, "cat /tmp/gap").await?.parse()?;
        gaps.push(Duration::from_secs_f64(gap));
        for sandbox in copies.iter().chain([&source]) {
            server.api.kill(sandbox).await?;
        }
    }
    report.times("fork into 10, all answering", walls);
    report.times("fork into 10, source stopped", gaps);
    Ok(())
}

/// A snapshot of the files of a sandbox that has changed 10,000 of them, 1 GB, all synced.
pub(crate) async fn snapshot(server: &Server, n: usize, report: &mut Report) -> anyhow::Result<()> {
    let sandbox = server.api.create().await?;
    let write = "mkdir -p d; for i in $(seq 100); do mkdir d/$i; for j in $(seq 100); do \
                 head -c 100000 /dev/zero > d/$i/$j; done; done; sync -f .";
    server.api.run(&sandbox, write).await?;
    let mut series = Vec::new();
    for _ in 0..n {
        let start = Instant::now();
        let path = format!("/sandboxes/{}/snapshots", sandbox.id);
        let made = server.api.post(&path, &json!({ "memory": false })).await?;
        series.push(start.elapsed());
        let id = made["snapshotID"].as_str().context("an id")?;
        server.api.delete(&format!("/templates/{id}")).await?;
    }
    server.api.kill(&sandbox).await?;
    report.times("snapshot of 10,000 files, 1 GB", series);
    Ok(())
}
