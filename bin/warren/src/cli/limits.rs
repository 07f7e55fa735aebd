//! Flags for limits, and the grammar of `warren limits`.

use std::time::Duration;

use clap::{Args, Subcommand};
use warren_api::RateLimit;
use warren_control::Budget;

use super::connection::Connection;
use super::operator::Operator;

/// What teams and keys may have unless limits of their own are set. Without a flag there is
/// no limit, but for the number of a team's sandboxes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct Limits {
    /// Most CPUs of a team's running sandboxes together.
    #[arg(long, env = "WARREN_TEAM_MAX_CPUS", value_name = "N")]
    pub(crate) team_max_cpus: Option<u32>,

    /// Most memory of a team's running sandboxes together, in MiB.
    #[arg(long, env = "WARREN_TEAM_MAX_MEMORY_MIB", value_name = "MIB")]
    pub(crate) team_max_memory_mib: Option<u32>,

    /// Most disk of a team's sandboxes together, paused ones included, in MiB.
    #[arg(long, env = "WARREN_TEAM_MAX_DISK_MIB", value_name = "MIB")]
    pub(crate) team_max_disk_mib: Option<u32>,

    /// Most requests of a team to the API in a minute.
    #[arg(long, env = "WARREN_TEAM_REQUESTS_PER_MINUTE", value_name = "N")]
    pub(crate) team_requests_per_minute: Option<u32>,

    /// Highest number of sandboxes made with one API key at a time.
    #[arg(long, env = "WARREN_KEY_MAX_SANDBOXES", value_name = "N")]
    pub(crate) key_max_sandboxes: Option<u32>,

    /// Most CPUs of the running sandboxes of one API key together.
    #[arg(long, env = "WARREN_KEY_MAX_CPUS", value_name = "N")]
    pub(crate) key_max_cpus: Option<u32>,

    /// Most memory of the running sandboxes of one API key together, in MiB.
    #[arg(long, env = "WARREN_KEY_MAX_MEMORY_MIB", value_name = "MIB")]
    pub(crate) key_max_memory_mib: Option<u32>,

    /// Most disk of the sandboxes of one API key together, paused ones included, in MiB.
    #[arg(long, env = "WARREN_KEY_MAX_DISK_MIB", value_name = "MIB")]
    pub(crate) key_max_disk_mib: Option<u32>,

    /// Most requests to the API with one key in a minute.
    #[arg(long, env = "WARREN_KEY_REQUESTS_PER_MINUTE", value_name = "N")]
    pub(crate) key_requests_per_minute: Option<u32>,

    /// How often each team may call one route: `POST /v2/sandboxes=10/60` is 10 calls at once,
    /// which come back over 60 seconds. Paths are those of the API's specification. Repeatable.
    #[arg(
        long,
        env = "WARREN_RATE_LIMIT",
        value_name = "ROUTE=CALLS/SECONDS",
        value_parser = rate_limit,
        value_delimiter = ','
    )]
    pub(crate) rate_limit: Vec<(String, RateLimit)>,

    /// Most requests to one sandbox in flight at a time, tunnels included.
    #[arg(long, env = "WARREN_SANDBOX_CONNECTIONS", value_name = "N")]
    pub(crate) sandbox_connections: Option<u32>,

    /// Seconds that the head of a request may take to arrive.
    #[arg(
        long,
        env = "WARREN_HEADER_TIMEOUT_SECS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..),
        value_name = "SECONDS"
    )]
    pub(crate) header_timeout_secs: u32,
}

impl Limits {
    /// Defaults of teams, beside the number of sandboxes.
    pub(crate) fn team(&self) -> Budget {
        Budget {
            sandboxes: None,
            cpus: self.team_max_cpus,
            memory_mib: self.team_max_memory_mib,
            disk_mib: self.team_max_disk_mib,
            requests_per_minute: self.team_requests_per_minute,
        }
    }

    /// Defaults of API keys.
    pub(crate) fn key(&self) -> Budget {
        Budget {
            sandboxes: self.key_max_sandboxes,
            cpus: self.key_max_cpus,
            memory_mib: self.key_max_memory_mib,
            disk_mib: self.key_max_disk_mib,
            requests_per_minute: self.key_requests_per_minute,
        }
    }
}

fn rate_limit(text: &str) -> Result<(String, RateLimit), String> {
    const FORM: &str = "expected a route and a rate, such as `POST /v2/sandboxes=10/60`";
    let (route, rate) = text.rsplit_once('=').ok_or(FORM)?;
    let (calls, seconds) = rate.split_once('/').ok_or(FORM)?;
    let calls: u32 = calls.parse().map_err(|_| FORM)?;
    let seconds: u32 = seconds.parse().map_err(|_| FORM)?;
    let mut words = route.split(' ');
    let known = |(method, path): (&str, &str)| {
        warren_api::operations()
            .iter()
            .any(|operation| operation.method == *method && operation.path == path)
    };
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(path), None) if known((method, path)) => {}
        _ => return Err(format!("there is no route {route:?}; {FORM}")),
    }
    if calls == 0 || seconds == 0 {
        return Err("calls and seconds must be at least 1".to_owned());
    }
    let limit = RateLimit {
        burst: calls,
        tokens: calls,
        period: Duration::from_secs(seconds.into()),
    };
    Ok((route.to_owned(), limit))
}

/// `warren limits`.
#[derive(Debug, Args)]
pub(crate) struct LimitsCommand {
    #[command(subcommand)]
    pub(crate) action: Option<LimitsAction>,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LimitsAction {
    /// Show the limits of a team or a key, as the operator.
    Get(Whose),
    /// Change limits of a team or a key, as the operator. What is not named stays.
    Set {
        #[command(flatten)]
        whose: Whose,

        #[command(flatten)]
        changes: Changes,
    },
}

/// Whose limits.
#[derive(Debug, Args)]
pub(crate) struct Whose {
    /// Id or slug of the team.
    #[arg(long, value_name = "TEAM", default_value = "default")]
    pub(crate) team: String,

    /// Id of one of its API keys, to mean the key's own limits.
    #[arg(long, value_name = "ID")]
    pub(crate) key: Option<String>,

    #[command(flatten)]
    pub(crate) operator: Operator,
}

/// Each is a number, or `default` for the server's.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Changes {
    /// Sandboxes at a time.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) sandboxes: Option<Limit>,

    /// CPUs of running sandboxes together.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) cpus: Option<Limit>,

    /// Memory of running sandboxes together, in MiB.
    #[arg(long, value_name = "MIB", value_parser = limit)]
    pub(crate) memory_mib: Option<Limit>,

    /// Disk of all sandboxes together, in MiB.
    #[arg(long, value_name = "MIB", value_parser = limit)]
    pub(crate) disk_mib: Option<Limit>,

    /// Requests to the API in a minute.
    #[arg(long, value_name = "N", value_parser = limit)]
    pub(crate) requests_per_minute: Option<Limit>,
}

/// A limit, or none of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u32>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "default" => Ok(Limit(None)),
        _ => text
            .parse()
            .map(|number| Limit(Some(number)))
            .map_err(|_| "expected a number or `default`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_names_a_route_that_is_there() {
        let (route, rate) = rate_limit("POST /v2/sandboxes=10/60").unwrap();
        assert_eq!(route, "POST /v2/sandboxes");
        assert_eq!((rate.burst, rate.tokens), (10, 10));
        assert_eq!(rate.period, Duration::from_secs(60));
        for bad in [
            "",
            "POST /v2/sandboxes",
            "POST /v2/sandboxes=10",
            "POST /v2/sandboxes=0/60",
            "POST /v2/sandboxes=1/0",
            "POST /v2/nothing=1/1",
            "/v2/sandboxes=1/1",
        ] {
            assert!(rate_limit(bad).is_err(), "{bad}");
        }
    }
}
