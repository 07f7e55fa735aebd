//! `warren audit`.

use std::process::ExitCode;

use warren_wire as wire;

use super::run;
use crate::cli::operator::Audit;
use crate::print::{self, local, printable, table};

/// Runs `warren audit`.
pub(crate) fn audit(args: Audit, json: bool) -> anyhow::Result<ExitCode> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &args.limit.to_string());
    let since = args.since.map(|at| at.to_string());
    let refused = args.refused.then(|| "true".to_owned());
    for (name, value) in [
        ("team", args.team),
        ("target", args.target),
        ("requestID", args.request),
        ("action", args.action),
        ("actor", args.actor),
        ("since", since),
        ("refused", refused),
    ] {
        if let Some(value) = value {
            query.append_pair(name, &value);
        }
    }
    let path = format!("/admin/audit?{}", query.finish());
    run(args.operator, |link| async move {
        let entries: Vec<wire::AuditEntry> = link.get(&path).await?;
        if json {
            return print::json(&entries);
        }
        show(&entries)
    })
}

/// Prints entries, oldest first, as a log is read.
pub(crate) fn show(entries: &[wire::AuditEntry]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = entries.iter().rev().map(row).collect();
    let header = ["TIME", "WHO", "FROM", "WHAT", "TARGET", "STATUS", "MORE"];
    Ok(table(&header, &rows)?)
}

fn row(entry: &wire::AuditEntry) -> Vec<String> {
    let who = match &entry.actor_id {
        Some(id) => format!("{} {}", entry.actor, id.split('-').next().unwrap_or(id)),
        None => entry.actor.clone(),
    };
    let facts = entry.data.as_object().filter(|facts| !facts.is_empty());
    let more = entry
        .reason
        .clone()
        .or_else(|| facts.map(|facts| serde_json::Value::Object(facts.clone()).to_string()));
    vec![
        local(entry.timestamp),
        who,
        entry.origin.clone().unwrap_or_else(|| "-".to_owned()),
        printable(&entry.action),
        printable(entry.target.as_deref().unwrap_or("-")),
        entry
            .status
            .map_or_else(|| "-".to_owned(), |status| status.to_string()),
        printable(&more.unwrap_or_default()),
    ]
}
