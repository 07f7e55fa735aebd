//! `warren explain`.

use std::process::ExitCode;

use warren_wire as wire;

use super::link::path;
use super::{audit, run};
use crate::cli::operator::Explain;
use crate::connection::{self, reached};
use crate::print::{self, line, local, printable};

/// Runs `warren explain`.
pub(crate) fn explain(args: Explain, json: bool) -> anyhow::Result<ExitCode> {
    let id = args.id.as_deref().unwrap_or_default().trim().to_owned();
    if args.with_key {
        let told = with_key(&args, &id)?;
        tell(&told, json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = path(&["admin", "explain", &id]);
    run(args.operator, |link| async move {
        let told: wire::Explanation = link.get(&path).await?;
        tell(&told, json)
    })
}

/// Asks as a team does.
fn with_key(args: &Explain, id: &str) -> anyhow::Result<wire::Explanation> {
    let client = connection::client(args.connection())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let id = Some(id).filter(|id| !id.is_empty());
    runtime.block_on(client.explain(id)).map_err(reached)
}

fn tell(told: &wire::Explanation, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json(told);
    }
    show(told)
}

fn show(told: &wire::Explanation) -> anyhow::Result<()> {
    for sentence in &told.summary {
        line(&printable(sentence))?;
    }
    if !told.events.is_empty() {
        line("\nWhat befell it")?;
        for event in &told.events {
            line(&format!(
                "  {}  {}",
                local(event.timestamp),
                printable(&event.kind)
            ))?;
        }
    }
    if !told.trail.is_empty() {
        line("\nWho did what")?;
        let newest_first: Vec<_> = told.trail.iter().rev().cloned().collect();
        audit::show(&newest_first)?;
    }
    if !told.log.is_empty() {
        line("\nThe end of its log")?;
        for entry in &told.log {
            let text = printable(&entry.message);
            line(&format!("  {}  {text}", local(entry.timestamp)))?;
        }
    }
    Ok(())
}
