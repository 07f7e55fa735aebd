//! Where a server on this machine keeps what it has.

use std::path::PathBuf;

use clap::Args;

/// The data directory of a server on this machine.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataDir {
    /// Directory that holds everything the server keeps.
    #[arg(
        id = "data_dir",
        long = "data-dir",
        env = "WARREN_DATA_DIR",
        default_value = "/var/lib/warren",
        value_name = "DIR"
    )]
    pub(crate) path: PathBuf,
}

/// The data directory, and that of layers, which may be elsewhere.
#[derive(Debug, Args)]
pub(crate) struct Places {
    #[command(flatten)]
    pub(crate) data_dir: DataDir,

    /// Directory of layers [default: layers/ in the data directory].
    #[arg(long, env = "WARREN_LAYERS_DIR", value_name = "DIR")]
    pub(crate) layers_dir: Option<PathBuf>,
}
