//! Bundles, and the end of an installation.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::place::{DataDir, Places};

/// `warren bundle`
#[derive(Debug, Args)]
pub(crate) struct Bundle {
    #[command(subcommand)]
    pub(crate) command: BundleCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Pack this program, layers of templates and CRIU into one file.
    Create {
        /// The file.
        file: PathBuf,

        /// Templates to pack: `base`, and those of the code interpreter. The server must
        /// have made them.
        #[arg(
            long,
            value_delimiter = ',',
            default_value = "base",
            value_name = "NAMES"
        )]
        templates: Vec<String>,

        #[command(flatten)]
        places: Places,
    },
    /// Install what a bundle holds. `tar -xf FILE warren` gets the program to do it with.
    Install {
        /// The file.
        file: PathBuf,

        /// Directory that the program is put into; a server that runs goes on until it is
        /// restarted.
        #[arg(long, default_value = "/usr/local/bin", value_name = "DIR")]
        bin_dir: PathBuf,

        /// Leave the program where it is.
        #[arg(long, conflicts_with = "bin_dir")]
        no_program: bool,

        #[command(flatten)]
        places: Places,
    },
}

/// `warren uninstall`
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,

    /// End the sandboxes and give back what they hold, but keep the data directory.
    #[arg(long)]
    pub(crate) keep_data: bool,

    /// Do not ask.
    #[arg(short, long)]
    pub(crate) yes: bool,
}
