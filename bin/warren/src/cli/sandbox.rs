//! The grammar of `warren sandbox`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;

use super::connection::{Connection, Project};

#[derive(Debug, Args)]
pub(crate) struct Sandbox {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: SandboxCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Create a sandbox and open a terminal in it.
    #[command(visible_alias = "cr")]
    Create(Create),
    /// Create a sandbox of the template of e2b.toml and open a terminal in it.
    #[command(visible_alias = "sp")]
    Spawn(Create),
    /// Open a terminal in a sandbox; a paused one is resumed.
    #[command(visible_alias = "cn")]
    Connect(Connect),
    /// List sandboxes.
    #[command(visible_alias = "ls")]
    List(List),
    /// Show all about a sandbox.
    #[command(visible_alias = "in")]
    Info(Info),
    /// End sandboxes.
    #[command(visible_alias = "kl")]
    Kill(Kill),
    /// Pause a sandbox.
    #[command(visible_alias = "ps")]
    Pause(Pause),
    /// Resume a paused sandbox.
    #[command(visible_alias = "rs")]
    Resume(Target),
    /// Let a sandbox end later, or sooner.
    Timeout(Timeout),
    /// Show the log of a sandbox.
    #[command(visible_alias = "lg")]
    Logs(Logs),
    /// Show what a sandbox uses.
    #[command(visible_alias = "mt")]
    Metrics(Metrics),
    /// Run a command in a sandbox; its exit code becomes that of this program.
    #[command(visible_alias = "ex")]
    Exec(Exec),
    /// Make, list and delete snapshots.
    #[command(visible_alias = "snap", subcommand, arg_required_else_help = true)]
    Snapshot(Snapshot),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Pretty,
    /// For programs.
    Json,
}

impl Format {
    /// JSON if it was asked for in either way.
    pub(crate) fn or_json(self, as_json: bool) -> Self {
        if as_json { Self::Json } else { self }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateName {
    Running,
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// Oldest first.
    Asc,
    /// Newest first.
    Desc,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTimeout {
    Pause,
    Kill,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    #[value(alias = "DEBUG")]
    Debug,
    #[value(alias = "INFO")]
    Info,
    #[value(alias = "WARN")]
    Warn,
    #[value(alias = "ERROR")]
    Error,
}

/// A pair from the command line.
pub(crate) type Pair = (String, String);

fn pair(text: &str) -> Result<Pair, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct ShellOptions {
    /// User of the terminal [default: the template's].
    #[arg(short, long)]
    pub(crate) user: Option<String>,

    /// Directory to begin in [default: the template's].
    #[arg(short, long, value_name = "DIR")]
    pub(crate) cwd: Option<String>,

    /// Variable of the processes. Repeatable.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) env: Vec<Pair>,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the template [default: that of the configuration file if `spawn` finds
    /// one, else base].
    pub(crate) template: Option<String>,

    /// Directory of the configuration file.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) path: PathBuf,

    /// Configuration file, below the directory; only `spawn` reads it.
    #[arg(long, default_value = "e2b.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,

    #[command(flatten)]
    pub(crate) project: Project,

    /// Print the id and leave the sandbox running instead of opening a terminal.
    #[arg(short, long)]
    pub(crate) detach: bool,

    /// Seconds that it lives: from now when detached [default: 300], else after the
    /// terminal has closed [default: none].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(30..))]
    pub(crate) timeout: Option<u32>,

    /// What happens when its time is up.
    #[arg(long = "lifecycle.ontimeout", value_name = "ACTION")]
    pub(crate) on_timeout: Option<OnTimeout>,

    /// Let traffic resume it once it is paused; needs `--lifecycle.ontimeout pause`.
    #[arg(long = "lifecycle.autoresume")]
    pub(crate) auto_resume: bool,

    #[command(flatten)]
    pub(crate) shell: ShellOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Connect {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) shell: ShellOptions,
}

#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those in these states.
    #[arg(short, long, value_delimiter = ',', value_name = "STATE")]
    pub(crate) state: Vec<StateName>,

    /// Only those with these labels.
    #[arg(short, long, value_delimiter = ',', value_name = "KEY=VALUE", value_parser = pair)]
    pub(crate) metadata: Vec<Pair>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filter: Filter,

    /// Only those of this template.
    #[arg(short, long)]
    pub(crate) template: Option<String>,

    /// Only those that started after this moment (ISO 8601).
    #[arg(long, value_name = "TIME")]
    pub(crate) started_after: Option<Timestamp>,

    /// By start: oldest or newest first.
    #[arg(short, long, default_value = "asc")]
    pub(crate) order: Order,

    /// How many at most; 0 for all.
    #[arg(short, long, default_value_t = 1000)]
    pub(crate) limit: usize,

    #[arg(short, long, default_value = "pretty")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,

    #[arg(short, long, default_value = "pretty")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Kill {
    /// The sandboxes.
    #[arg(value_name = "SANDBOX_ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,

    /// All that the filters let through; running ones unless a state is named.
    #[arg(short, long, conflicts_with = "ids")]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) filter: Filter,
}

#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,

    /// Keep only its files; its processes end.
    #[arg(long)]
    pub(crate) files_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Timeout {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,

    /// Seconds from now.
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,

    /// This severity and above.
    #[arg(long, default_value = "info")]
    pub(crate) level: Level,

    /// Go on until the sandbox ends.
    #[arg(short, long)]
    pub(crate) follow: bool,

    #[arg(long, default_value = "pretty")]
    pub(crate) format: Format,

    /// Only lines of loggers whose names begin so.
    #[arg(long, value_delimiter = ',', value_name = "PREFIX")]
    pub(crate) loggers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Metrics {
    /// The sandbox.
    #[arg(value_name = "SANDBOX_ID")]
    pub(crate) id: String,

    /// Go on until the sandbox ends.
    #[arg(short, long)]
    pub(crate) follow: bool,

    #[arg(long, default_value = "pretty")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Leave it running; its process id is printed on standard error.
    #[arg(short, long)]
    pub(crate) background: bool,

    /// Run it on a terminal, for programs that want one.
    #[arg(short, long, conflicts_with = "background")]
    pub(crate) tty: bool,

    #[command(flatten)]
    pub(crate) shell: ShellOptions,

    /// The sandbox, then the command. One word is given to the shell as it is; several are
    /// quoted for it.
    #[arg(
        required = true,
        num_args = 2..,
        trailing_var_arg = true,
        value_names = ["SANDBOX_ID", "COMMAND"],
    )]
    pub(crate) words: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Make a snapshot of a sandbox.
    #[command(visible_alias = "cr")]
    Create {
        /// The sandbox.
        #[arg(value_name = "SANDBOX_ID")]
        id: String,
        /// Name of the snapshot.
        #[arg(short, long)]
        name: Option<String>,
    },
    /// List snapshots.
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this sandbox.
        #[arg(value_name = "SANDBOX_ID")]
        id: Option<String>,
        /// Only those of this name.
        #[arg(short, long)]
        name: Option<String>,
        /// How many at most; 0 for all.
        #[arg(short, long, default_value_t = 1000)]
        limit: usize,
        #[arg(short, long, default_value = "pretty")]
        format: Format,
    },
    /// Delete snapshots.
    #[command(visible_alias = "dl")]
    Delete {
        /// The snapshots.
        #[arg(required = true, value_name = "SNAPSHOT_ID")]
        ids: Vec<String>,
    },
}
