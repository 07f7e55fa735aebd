//! The grammar of the operator's commands: teams, people, keys, the audit trail.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use warren_types::{KeyScope, Role, TeamState};

use super::connection::Connection;
use super::place::Places;

/// How the server is reached.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Operator {
    /// Data directory of the server on this machine. It need not run.
    #[arg(
        long,
        env = "WARREN_DATA_DIR",
        default_value = "/var/lib/warren",
        value_name = "DIR",
        global = true
    )]
    pub(crate) data_dir: PathBuf,

    /// URL of a server elsewhere, together with --admin-token-file.
    #[arg(long, env = "WARREN_ADMIN_URL", value_name = "URL", global = true)]
    pub(crate) admin_url: Option<String>,

    /// File with the administrator's token of that server, its `admin-token`.
    #[arg(
        long,
        env = "WARREN_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        global = true
    )]
    pub(crate) admin_token_file: Option<PathBuf>,
}

/// A moment: RFC 3339, or a time from now such as `30d`.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let span: Span = text
        .parse()
        .map_err(|_| "expected a time from now such as 30d, or 2030-01-31T12:00:00Z".to_owned())?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let at = now.checked_add(span).map_err(|error| error.to_string())?;
    Ok(at.timestamp())
}

/// A moment in the past: RFC 3339, or a time before now such as `2h`.
pub(crate) fn past(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let span: Span = text
        .parse()
        .map_err(|_| "expected a time before now such as 2h, or 2030-01-31T12:00:00Z".to_owned())?;
    let now = Timestamp::now().to_zoned(TimeZone::UTC);
    let at = now.checked_sub(span).map_err(|error| error.to_string())?;
    Ok(at.timestamp())
}

fn word<T: std::str::FromStr<Err = warren_types::UnknownWord>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

#[derive(Debug, Args)]
pub(crate) struct Team {
    #[command(flatten)]
    pub(crate) operator: Operator,
    #[command(subcommand)]
    pub(crate) command: TeamCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TeamCommand {
    /// Make a team, and print its first key.
    #[command(visible_alias = "cr")]
    Create {
        /// What people call it.
        name: String,
        /// Namespace of its templates [default: made from the name].
        #[arg(long)]
        slug: Option<String>,
        /// Sandboxes it may run at a time [default: the server's].
        #[arg(long, value_name = "N")]
        max_sandboxes: Option<u32>,
    },
    /// List teams with what they have.
    #[command(visible_alias = "ls")]
    List,
    /// Give a team another name; its slug stays.
    Rename {
        /// Id or slug.
        team: String,
        /// The new name.
        name: String,
    },
    /// Change the limits of a team, or block it.
    Set {
        /// Id or slug.
        team: String,
        /// Sandboxes it may run at a time; 0 for the server's default.
        #[arg(long, value_name = "N")]
        max_sandboxes: Option<u32>,
        /// `active`, `blocked` (it may only read and delete), `banned`.
        #[arg(long, value_parser = word::<TeamState>)]
        state: Option<TeamState>,
    },
    /// List the people of a team.
    Members {
        /// Id or slug.
        team: String,
    },
    /// Delete a team with its keys. It must have nothing else.
    #[command(visible_alias = "dl")]
    Delete {
        /// Id or slug.
        team: String,
        /// End its sandboxes and delete its templates and volumes, too.
        #[arg(long)]
        force: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct User {
    #[command(flatten)]
    pub(crate) operator: Operator,
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a person, put them in a team, and print an access token of theirs.
    #[command(visible_alias = "cr")]
    Create {
        /// Their address.
        email: String,
        /// Team that they are in: id or slug.
        #[arg(long, default_value = "default")]
        team: String,
        /// `admin`, `member` or `viewer`.
        #[arg(long, default_value = "member", value_parser = word::<Role>)]
        role: Role,
    },
    /// List people with their teams.
    #[command(visible_alias = "ls")]
    List,
    /// Put a person in a team, or change their role in it.
    Join {
        /// Id or address.
        user: String,
        /// Id or slug.
        team: String,
        /// `admin`, `member` or `viewer`.
        #[arg(long, default_value = "member", value_parser = word::<Role>)]
        role: Role,
        /// Make it the team that is meant when they name none.
        #[arg(long)]
        make_default: bool,
    },
    /// Take a person out of a team.
    Leave {
        /// Id or address.
        user: String,
        /// Id or slug.
        team: String,
    },
    /// Delete a person with their access tokens.
    #[command(visible_alias = "dl")]
    Delete {
        /// Id or address.
        user: String,
    },
    /// Make, list and delete access tokens.
    #[command(subcommand, arg_required_else_help = true)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make an access token and print it, this once.
    #[command(visible_alias = "cr")]
    Create {
        /// Id or address of the person.
        user: String,
        #[command(flatten)]
        new: NewKey,
    },
    /// List the access tokens of a person, without their values.
    #[command(visible_alias = "ls")]
    List {
        /// Id or address of the person.
        user: String,
    },
    /// Delete an access token.
    #[command(visible_alias = "dl")]
    Delete {
        /// Id or address of the person.
        user: String,
        /// Id of the token.
        token: String,
    },
}

/// A key or token to be made.
#[derive(Debug, Args)]
pub(crate) struct NewKey {
    /// What it is called.
    #[arg(default_value = "cli")]
    pub(crate) name: String,
    /// What it may be used for: `full` or `read`.
    #[arg(long, default_value = "full", value_parser = word::<KeyScope>)]
    pub(crate) scope: KeyScope,
    /// When it stops working: a time from now such as `30d`, or a date with time.
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub(crate) expires: Option<Timestamp>,
}

#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(flatten)]
    pub(crate) operator: Operator,
    #[command(subcommand)]
    pub(crate) command: KeyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make an API key and print it, this once.
    #[command(visible_alias = "cr")]
    Create {
        /// Team that it acts for: id or slug.
        #[arg(long, default_value = "default")]
        team: String,
        #[command(flatten)]
        new: NewKey,
    },
    /// List the keys of a team, without their values.
    #[command(visible_alias = "ls")]
    List {
        /// Id or slug of the team.
        #[arg(long, default_value = "default")]
        team: String,
    },
    /// Give a key another name.
    Rename {
        /// Id of the key.
        key: String,
        /// The new name.
        name: String,
        /// Id or slug of the team.
        #[arg(long, default_value = "default")]
        team: String,
    },
    /// Delete a key; it stops working at once.
    #[command(visible_alias = "rm", alias = "delete")]
    Revoke {
        /// Id of the key.
        key: String,
        /// Id or slug of the team.
        #[arg(long, default_value = "default")]
        team: String,
    },
    /// Print the key that the server made at its first start.
    ShowFirst,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) operator: Operator,
    /// Of this team: id or slug.
    #[arg(long)]
    pub(crate) team: Option<String>,
    /// About this id.
    #[arg(long, value_name = "ID")]
    pub(crate) target: Option<String>,
    /// Of the request that was answered with this `X-Request-Id`.
    #[arg(long, value_name = "ID")]
    pub(crate) request: Option<String>,
    /// What was done begins like this, such as `key.` or `DELETE`.
    #[arg(long, value_name = "TEXT")]
    pub(crate) action: Option<String>,
    /// Done by a `key`, a `user`, the `admin`, a `local` command or the `system`.
    #[arg(long, value_name = "KIND")]
    pub(crate) actor: Option<String>,
    /// From then on: a time before now such as `2h`, or a date with time.
    #[arg(long, value_parser = past, value_name = "TIME")]
    pub(crate) since: Option<Timestamp>,
    /// Only what was refused.
    #[arg(long)]
    pub(crate) refused: bool,
    /// At most this many entries, the newest.
    #[arg(long, short, default_value_t = 50, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) limit: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) operator: Operator,
    /// Ask the API with an API key, which tells of its team only.
    #[arg(long)]
    pub(crate) with_key: bool,
    /// That key [default: that of ~/.e2b/config.json, else of a server on this machine].
    #[arg(long, env = "E2B_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// URL of the API that is asked [default: `https://api.DOMAIN`, else
    /// `http://127.0.0.1:3000`].
    #[arg(long, env = "E2B_API_URL", value_name = "URL")]
    api_url: Option<String>,
    /// Domain of the server, instead of its URL.
    #[arg(long, env = "E2B_DOMAIN", value_name = "DOMAIN")]
    domain: Option<String>,
    /// A sandbox, a build, a key, or the `X-Request-Id` of an answer; a team, or with
    /// --with-key nothing, for what was refused lately.
    #[arg(required_unless_present = "with_key")]
    pub(crate) id: Option<String>,
}

impl Explain {
    /// Where a key is shown, and which.
    pub(crate) fn connection(&self) -> Connection {
        Connection {
            api_url: self.api_url.clone(),
            sandbox_url: None,
            domain: self.domain.clone(),
            api_key: self.api_key.clone(),
            data_dir: self.operator.data_dir.clone(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    pub(crate) places: Places,
    /// Leave the layers of templates out. They can be built again.
    #[arg(long)]
    pub(crate) no_templates: bool,
    /// Take the volumes along. While the server runs this needs XFS or Btrfs.
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Where the backup is put: a directory, or with the ending `.tar` one file.
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Data directory to restore into; it must be empty or not there.
    #[arg(
        long,
        env = "WARREN_DATA_DIR",
        default_value = "/var/lib/warren",
        value_name = "DIR"
    )]
    pub(crate) data_dir: PathBuf,
    /// What `warren backup` has made.
    pub(crate) from: PathBuf,
}
