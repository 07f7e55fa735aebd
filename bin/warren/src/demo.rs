//! `warren demo`: drives a sandbox through a running server, one step after another, and
//! shows how long each took.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;
use warren_client::{Client, Config, Event, NewSandbox};
use warren_service::Secret;

use crate::cli::connection::Connection;
use crate::connection::{self, NO_SERVER};
use crate::print::line;
use crate::up::local_url;

const FILE: &str = "/tmp/greeting.txt";
const CONTENT: &str = "hello from the host";
/// Prints lines one by one, so that streaming can be seen.
const SLOW_LINES: &str = "for i in 1 2 3; do echo line $i; sleep 0.2; done";

/// Runs the demonstration against a running server.
pub(crate) fn run(args: Connection, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = connection::client(args)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(steps(&client, Show { as_json }))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs the demonstration against the server that this process is. What fails is said, and
/// no reason to end the server.
pub(crate) async fn run_here(listen: SocketAddr, key: Secret) {
    let url = local_url(listen);
    let done = match Client::new(Config::new(url, key.expose().to_owned())) {
        Ok(client) => steps(&client, Show { as_json: false }).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = done {
        tracing::error!("the demonstration failed: {error:#}");
    }
}

/// How steps are shown.
#[derive(Debug, Clone, Copy)]
struct Show {
    as_json: bool,
}

impl Show {
    /// Does one step and prints what came of it and how long it took.
    async fn step<T>(
        self,
        name: &str,
        work: impl Future<Output = anyhow::Result<(T, String)>>,
    ) -> anyhow::Result<T> {
        let start = Instant::now();
        let (value, result) = work.await.with_context(|| name.to_owned())?;
        let taken = start.elapsed().as_secs_f64() * 1000.0;
        let text = if self.as_json {
            json!({ "step": name, "ms": taken, "result": result }).to_string()
        } else {
            format!("{name:<16} {taken:>8.2} ms   {result}")
        };
        line(&text)?;
        Ok(value)
    }
}

async fn steps(client: &Client, show: Show) -> anyhow::Result<()> {
    let new = NewSandbox {
        template_id: "base".to_owned(),
        ..NewSandbox::default()
    };
    let sandbox = show
        .step("create", async {
            let sandbox = client.create(&new).await.context(NO_SERVER)?;
            let id = sandbox.id().to_owned();
            Ok((sandbox, id))
        })
        .await?;
    let demonstrated = inside(&sandbox, show).await;
    // Killed whatever happened before: a demonstration leaves nothing.
    let killed = show
        .step("kill", async {
            let was_there = sandbox.kill().await?;
            Ok((
                (),
                if was_there {
                    "gone"
                } else {
                    "was gone already"
                }
                .to_owned(),
            ))
        })
        .await;
    demonstrated.and(killed)
}

async fn inside(sandbox: &warren_client::Sandbox, show: Show) -> anyhow::Result<()> {
    let (commands, files) = (sandbox.commands(), sandbox.files());
    show.step("write a file", async {
        files.write(FILE, CONTENT).await?;
        Ok(((), format!("{} bytes to {FILE}", CONTENT.len())))
    })
    .await?;
    show.step("run a command", async {
        let output = commands.run("echo $(id -un) on $(uname -sr)").await?;
        Ok(((), output.stdout_text().trim().to_owned()))
    })
    .await?;
    show.step("stream output", async {
        let (start, mut arrivals) = (Instant::now(), Vec::new());
        let mut process = commands.start(SLOW_LINES).await?;
        while let Some(event) = process.next().await? {
            if let Event::Stdout(_) = event {
                arrivals.push(format!("{:.0} ms", start.elapsed().as_secs_f64() * 1000.0));
            }
        }
        Ok(((), format!("three lines, after {}", arrivals.join(", "))))
    })
    .await?;
    show.step("read the file", async {
        let read = files.read(FILE).await?;
        if read != CONTENT.as_bytes() {
            bail!("the file does not hold what was written to it");
        }
        Ok(((), format!("{:?}", String::from_utf8_lossy(&read))))
    })
    .await
}
