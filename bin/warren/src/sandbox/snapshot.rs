//! `warren sandbox snapshot`.

use std::process::ExitCode;

use anyhow::Context;
use warren_client::{Client, SnapshotQuery};

use super::found;
use crate::cli::sandbox::{Format, Snapshot};
use crate::connection::NO_SERVER;
use crate::print::{json, line, printable, table, warning};

/// Snapshots of one page.
const PAGE: usize = 100;

/// Runs a command of the group.
pub(super) async fn run(client: &Client, command: Snapshot) -> anyhow::Result<ExitCode> {
    match command {
        Snapshot::Create { id, name } => {
            let made = found(client.snapshot(&id, name.as_deref()).await, &id)?;
            line(&format!(
                "Created snapshot {} from sandbox {id}",
                made.snapshot_id
            ))?;
            Ok(ExitCode::SUCCESS)
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
            list(client, query, limit, format).await
        }
        Snapshot::Delete { ids } => delete(client, &ids).await,
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
        let (page, next) = client.snapshots(&query).await.context(NO_SERVER)?;
        all.extend(page);
        query.next_token = next;
        if query.next_token.is_none() || (limit != 0 && all.len() >= limit) {
            break;
        }
    }
    match format {
        Format::Json => json(&all)?,
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

async fn delete(client: &Client, ids: &[String]) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    for id in ids {
        match client.delete_template(id).await {
            Ok(true) => line(&format!("Snapshot {id} has been deleted"))?,
            Ok(false) => warning(&format!("Snapshot {id} wasn't found")),
            Err(error) => {
                warning(&format!("{id}: {error}"));
                failed = true;
            }
        }
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
