//! Reads the log, the metrics and the events of a sandbox.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use warren_client::{Client, Config, EventQuery, NewSandbox};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    sandbox.commands().run("echo told").await?;

    // Lines and samples are on their way for a moment.
    let lines = loop {
        let lines = sandbox.logs().await?;
        if lines.iter().any(|line| line.message.contains("ended")) {
            break lines;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    for line in lines {
        println!("{} {}", line.timestamp, line.message);
    }
    let sample = loop {
        if let Some(sample) = sandbox.metrics().await?.pop() {
            break sample;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    println!("{} % of {} CPUs", sample.cpu_used_pct, sample.cpu_count);
    assert!(sample.mem_used > 0 && sample.mem_used <= sample.mem_total);

    sandbox.kill().await?;
    let query = EventQuery {
        sandbox_id: Some(sandbox.id().into()),
        oldest_first: true,
        ..EventQuery::default()
    };
    let kinds: Vec<String> = client
        .events(&query)
        .await?
        .into_iter()
        .map(|event| event.kind)
        .collect();
    assert_eq!(
        kinds.first().map(String::as_str),
        Some("sandbox.lifecycle.created")
    );
    assert_eq!(
        kinds.last().map(String::as_str),
        Some("sandbox.lifecycle.killed")
    );
    Ok(())
}
