//! SSH: the server's side, and the commands of people who connect.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connection::Connection;

/// Flags of `warren up`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Serve {
    /// Serve SSH here: shells, commands, scp, sftp, rsync and forwarded ports of sandboxes,
    /// whose id is the user name [default: none].
    #[arg(long, env = "WARREN_SSH_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) ssh_listen: Option<SocketAddr>,
}

/// `warren ssh`
#[derive(Debug, Args)]
pub(crate) struct Ssh {
    /// Id of the sandbox.
    pub(crate) id: String,

    /// User in the sandbox [default: that of its template].
    #[arg(short, long, value_name = "NAME")]
    pub(crate) user: Option<String>,

    /// Print the command instead of running it.
    #[arg(long)]
    pub(crate) print: bool,

    /// Arguments for `ssh` after the destination: options such as -L, or a command.
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub(crate) args: Vec<String>,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

/// `warren ssh-key`
#[derive(Debug, Args)]
pub(crate) struct SshKey {
    #[command(subcommand)]
    pub(crate) command: SshKeyCommand,

    #[command(flatten)]
    pub(crate) connection: Connection,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SshKeyCommand {
    /// Add a public key, which opens the team's sandboxes from then on.
    Add {
        /// File with the public key; `-` for standard input [default: the first of
        /// ~/.ssh/id_ed25519.pub, id_ecdsa.pub and id_rsa.pub].
        file: Option<PathBuf>,

        /// What to call it [default: the key's comment].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
    },
    /// List the keys of the team.
    #[command(visible_alias = "ls")]
    List,
    /// Remove keys, by id, name or fingerprint.
    #[command(visible_alias = "rm")]
    Remove {
        /// Which.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}
