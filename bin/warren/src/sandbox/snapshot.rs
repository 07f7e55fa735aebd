//! `warren sandbox snapshot`.

use std::process::ExitCode;

use serde_json::json;
use warren_client::{Client, SnapshotQuery};

use super::{done, found};
use crate::cli::sandbox::{Format, Snapshot};
use crate::connection::reached;
use crate::print::{self, line, printable, table, warning};

/// Snapshots of one page.
const PAGE: usize = 100;

/// Runs a command of the group.
pub(super) async fn run(
    client: &Client,
    command: Snapshot,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    match command {
        Snapshot::Create { id, name } => {
            let made = found(client.snapshot(&id, name.as_deref()).await, &id)?;
            let text = format!("Created snapshot {} from sandbox {id}", made.snapshot_id);
            done(as_json, &serde_json::to_value(&made)?, &text)
        }
        Snapshot::List {
            id,
            name,
            limit,
            format,
        } => {
            let query = SnapshotQuery {
                sandbox_id: id,
                name,
                ..SnapshotQuery::default()
            };
            list(client, query, limit, format.or_json(as_json)).await
        }
        Snapshot::Delete { ids } => delete(client, &ids, as_json).await,
    }
}

async fn list(
    client: &Client,
    mut query: SnapshotQuery,
    limit: usize,
    format: Format,
) -> anyhow::Result<ExitCode> {
    let mut all = Vec::new();
    loop {
        let wanted = match limit {
            0 => PAGE,
            limit => PAGE.min(limit - all.len()),
        };
        query.limit = u32::try_from(wanted).ok();
        let (page, next) = client.snapshots(&query).await.map_err(reached)?;
        all.extend(page);
        query.next_token = next;
        if query.next_token.is_none() || (limit != 0 && all.len() >= limit) {
            break;
        }
    }
    match format {
        Format::Json => print::json(&all)?,
        Format::Pretty if all.is_empty() => line("No snapshots found")?,
        Format::Pretty => {
            let rows: Vec<Vec<String>> = all
                .iter()
                .map(|snapshot| {
                    vec![
                        printable(&snapshot.snapshot_id),
                        printable(&snapshot.names.join(", ")),
                    ]
                })
                .collect();
            table(&["SNAPSHOT ID", "NAMES"], &rows)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn delete(client: &Client, ids: &[String], as_json: bool) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let mut told = Vec::new();
    for id in ids {
        let deleted = client.delete_template(id).await;
        let was_there = deleted.as_ref().is_ok_and(|deleted| *deleted);
        told.push(json!({ "snapshotID": id, "deleted": was_there }));
        match deleted {
            Ok(_) if as_json => {}
            Ok(true) => line(&format!("Snapshot {id} has been deleted"))?,
            Ok(false) => warning(&format!("Snapshot {id} wasn't found")),
            Err(error) => {
                let error = crate::describe(&reached(error));
                warning(&format!("error: {id}: {error}"));
                failed = true;
            }
        }
    }
    if as_json {
        print::json(&told)?;
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
