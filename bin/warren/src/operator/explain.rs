//! `warren explain`.

use std::process::ExitCode;

use warren_wire as wire;

use super::link::path;
use super::{audit, run};
use crate::cli::operator::Explain;
use crate::print::{self, line, local, printable};

/// Runs `warren explain`.
pub(crate) fn explain(args: Explain, json: bool) -> anyhow::Result<ExitCode> {
    let path = path(&["admin", "explain", args.id.trim()]);
    run(args.operator, |link| async move {
        let told: wire::Explanation = link.get(&path).await?;
        if json {
            return print::json(&told);
        }
        show(&told)
    })
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
