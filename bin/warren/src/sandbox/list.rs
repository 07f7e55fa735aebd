//! `warren sandbox list`.

use std::process::ExitCode;

use warren_client::{Client, ListQuery, ListedSandbox, State};

use crate::cli::sandbox::{Filter, Format, List, Order, StateName};
use crate::connection::reached;
use crate::print::{json, line, local, printable, table};

/// Sandboxes of one page.
const PAGE: usize = 100;

/// Lists sandboxes.
pub(super) async fn run(client: &Client, args: List, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut query = query(&args.filter);
    query.template = args.template;
    query.started_after = args.started_after;
    query.oldest_first = args.order == Order::Asc;
    let (sandboxes, more) = collect(client, query, args.limit).await?;
    let format = args.format.or_json(as_json);
    match format {
        Format::Json => json(&sandboxes)?,
        Format::Pretty if sandboxes.is_empty() => line("No sandboxes found")?,
        Format::Pretty => show(&sandboxes)?,
    }
    if more && format == Format::Pretty {
        line(&format!(
            "Showing first {} sandboxes. Use --limit to change.",
            args.limit
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a filter asks for.
pub(super) fn query(filter: &Filter) -> ListQuery {
    ListQuery {
        states: filter
            .state
            .iter()
            .map(|state| match state {
                StateName::Running => State::Running,
                StateName::Paused => State::Paused,
            })
            .collect(),
        metadata: filter.metadata.iter().cloned().collect(),
        ..ListQuery::default()
    }
}

/// Reads pages until `limit` sandboxes are there, or all with 0; and whether there are more.
pub(super) async fn collect(
    client: &Client,
    mut query: ListQuery,
    limit: usize,
) -> anyhow::Result<(Vec<ListedSandbox>, bool)> {
    let mut all = Vec::new();
    loop {
        let wanted = match limit {
            0 => PAGE,
            limit => PAGE.min(limit - all.len()),
        };
        query.limit = u32::try_from(wanted).ok();
        let page = client.list(&query).await.map_err(reached)?;
        all.extend(page.sandboxes);
        query.next_token = page.next_token;
        if query.next_token.is_none() || (limit != 0 && all.len() >= limit) {
            return Ok((all, query.next_token.is_some()));
        }
    }
}

fn show(sandboxes: &[ListedSandbox]) -> anyhow::Result<()> {
    let header = [
        "SANDBOX ID",
        "TEMPLATE ID",
        "ALIAS",
        "STARTED AT",
        "END AT",
        "STATE",
        "VCPUS",
        "RAM MIB",
        "ENVD VERSION",
        "METADATA",
    ];
    let rows = sandboxes
        .iter()
        .map(|sandbox| {
            let state = match sandbox.state {
                State::Running => "Running",
                State::Paused => "Paused",
            };
            Ok(vec![
                sandbox.sandbox_id.clone(),
                sandbox.template_id.clone(),
                sandbox.alias.clone().unwrap_or_default(),
                local(sandbox.started_at),
                local(sandbox.end_at),
                state.to_owned(),
                sandbox.cpu_count.to_string(),
                sandbox.memory_mb.to_string(),
                sandbox.envd_version.clone(),
                printable(&serde_json::to_string(&sandbox.metadata)?),
            ])
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    table(&header, &rows)?;
    Ok(())
}
