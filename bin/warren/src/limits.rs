//! `warren limits`: shows and changes what teams and keys may have.

use std::process::ExitCode;

use http::Method;
use warren_client::{Budget, Client, Limits, Usage};

use crate::cli::limits::{Changes, Limit, LimitsAction, LimitsCommand, Whose};
use crate::connection::{self, reached};
use crate::operator::{self, path};
use crate::print;

/// Runs the command.
pub(crate) fn run(args: LimitsCommand, json: bool) -> anyhow::Result<ExitCode> {
    let (whose, changes) = match args.action {
        None => {
            let client = connection::client(args.connection)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(mine(&client, json))?;
            return Ok(ExitCode::SUCCESS);
        }
        Some(LimitsAction::Get(whose)) => (whose, None),
        Some(LimitsAction::Set { whose, changes }) => (whose, Some(changes)),
    };
    let of = place(&whose);
    operator::run(whose.operator, |link| async move {
        let mut limits: Limits = link.get(&of).await?;
        if let Some(changes) = changes {
            let own = apply(limits.own, &changes);
            limits = link.send(Method::PUT, &of, &own).await?;
        }
        show(&limits, json)
    })
}

/// Where the limits of a team or a key are.
fn place(whose: &Whose) -> String {
    let mut segments = vec!["admin", "teams", &whose.team];
    if let Some(key) = &whose.key {
        segments.extend(["api-keys", key]);
    }
    segments.push("limits");
    path(&segments)
}

async fn mine(client: &Client, json: bool) -> anyhow::Result<()> {
    let limits = client.limits().await.map_err(reached)?;
    if json {
        return print::json(&limits);
    }
    let mut rows = rows("team", &limits.team);
    rows.extend(limits.key.iter().flat_map(|key| self::rows("key", key)));
    print::table(&["OF", "WHAT", "USED", "LIMIT"], &rows)?;
    Ok(())
}

fn show(limits: &Limits, json: bool) -> anyhow::Result<()> {
    if json {
        return print::json(limits);
    }
    let mut rows = rows("", limits);
    for row in &mut rows {
        row.remove(0);
    }
    print::table(&["WHAT", "USED", "LIMIT"], &rows)?;
    Ok(())
}

fn rows(of: &str, limits: &Limits) -> Vec<Vec<String>> {
    let Limits { limits, used, own } = limits;
    let Usage {
        sandboxes,
        cpus,
        memory_mib,
        disk_mib,
    } = *used;
    let row = |what: &str, used: Option<u64>, limit: Option<u32>, own: Option<u32>| {
        let limit = match (limit, own) {
            (None, _) => "none".to_owned(),
            (Some(limit), Some(_)) => limit.to_string(),
            (Some(limit), None) => format!("{limit} (default)"),
        };
        let used = used.map_or_else(|| "-".to_owned(), |used| used.to_string());
        vec![of.to_owned(), what.to_owned(), used, limit]
    };
    vec![
        row(
            "sandboxes",
            Some(sandboxes),
            limits.sandboxes,
            own.sandboxes,
        ),
        row("CPUs", Some(cpus), limits.cpus, own.cpus),
        row(
            "memory MiB",
            Some(memory_mib),
            limits.memory_mib,
            own.memory_mib,
        ),
        row("disk MiB", Some(disk_mib), limits.disk_mib, own.disk_mib),
        row(
            "requests a minute",
            None,
            limits.requests_per_minute,
            own.requests_per_minute,
        ),
    ]
}

fn apply(own: Budget, changes: &Changes) -> Budget {
    let changed = |old: Option<u32>, to: Option<Limit>| to.map_or(old, |limit| limit.0);
    Budget {
        sandboxes: changed(own.sandboxes, changes.sandboxes),
        cpus: changed(own.cpus, changes.cpus),
        memory_mib: changed(own.memory_mib, changes.memory_mib),
        disk_mib: changed(own.disk_mib, changes.disk_mib),
        requests_per_minute: changed(own.requests_per_minute, changes.requests_per_minute),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let own = Budget {
            sandboxes: Some(3),
            cpus: Some(4),
            ..Budget::default()
        };
        let changes = Changes {
            sandboxes: Some(Limit(None)),
            cpus: None,
            memory_mib: Some(Limit(Some(7))),
            disk_mib: None,
            requests_per_minute: None,
        };
        let expected = Budget {
            cpus: Some(4),
            memory_mib: Some(7),
            ..Budget::default()
        };
        assert_eq!(apply(own, &changes), expected);
    }
}
