//! Which server a command talks to, and as whom.

use std::path::PathBuf;

use clap::Args;

use crate::print::warning;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// URL of the server's API [default: `https://api.DOMAIN`, else `http://127.0.0.1:3000`].
    #[arg(long, env = "E2B_API_URL", value_name = "URL", global = true)]
    pub(crate) api_url: Option<String>,

    /// URL that sandboxes are reached at [default: as that of the API].
    #[arg(long, env = "E2B_SANDBOX_URL", value_name = "URL", global = true)]
    pub(crate) sandbox_url: Option<String>,

    /// Domain of the server, instead of URLs.
    #[arg(long, env = "E2B_DOMAIN", value_name = "DOMAIN", global = true)]
    pub(crate) domain: Option<String>,

    /// API key [default: that of ~/.e2b/config.json, else of a server on this machine].
    #[arg(
        long,
        env = "E2B_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        global = true
    )]
    pub(crate) api_key: Option<String>,

    /// Data directory of a server on this machine, to read its API key from.
    #[arg(
        long,
        env = "WARREN_DATA_DIR",
        default_value = "/var/lib/warren",
        value_name = "DIR",
        global = true
    )]
    pub(crate) data_dir: PathBuf,
}

/// The project that a command is about. The key decides it; naming another is refused.
#[derive(Debug, Clone, Args)]
pub(crate) struct Project {
    /// The project, which must be that of the key.
    #[arg(short = 't', long, value_name = "ID")]
    project: Option<String>,

    /// The same, by its old name.
    #[arg(long, hide = true, value_name = "ID")]
    team: Option<String>,
}

impl Project {
    /// What was named.
    pub(crate) fn named(&self) -> Option<&str> {
        if self.team.is_some() {
            warning("The --team flag is deprecated, use --project instead.");
        }
        self.project.as_deref().or(self.team.as_deref())
    }
}
