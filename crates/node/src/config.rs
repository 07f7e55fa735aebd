//! What a node is told at start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use warren_volume::Volumes;

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where ledgers and log archives are kept.
    pub data_dir: PathBuf,
    /// Where the immutable layers are, one directory per digest. A layer is looked for in
    /// this order.
    pub layers_dirs: Vec<PathBuf>,
    /// The agent's executable.
    pub agent: PathBuf,
    /// A layer on top of every template's with the programs that the server brings along.
    pub programs: Option<PathBuf>,
    /// Address under which sandboxes reach the events service, such as `http://192.0.2.1`.
    pub events_address: String,
    /// Time between two samples of a sandbox's figures.
    pub sample_every: Duration,
    /// How long archived logs stay readable.
    pub log_retention: Duration,
    /// How many bytes of them are kept; beyond that the longest untouched go.
    pub log_bytes: u64,
    /// Volumes that sandboxes can mount.
    pub volumes: Arc<Volumes>,
    /// Warm sandboxes.
    pub warm: WarmConfig,
    /// Paused sandboxes.
    pub pause: PauseConfig,
}

/// When paused sandboxes are carried over from memory to the disk.
#[derive(Debug, Clone, Copy)]
pub struct PauseConfig {
    /// After this their files are stored, so that these survive the machine.
    pub files_after: Duration,
    /// After this their memory is stored and let go, where the runtime can do that.
    pub memory_after: Duration,
    /// The same happens at once below this share of available memory, in percent.
    pub min_available_pct: u8,
    /// How often that is looked at.
    pub look_every: Duration,
}

impl Default for PauseConfig {
    fn default() -> Self {
        Self {
            files_after: Duration::from_secs(2),
            memory_after: Duration::from_secs(300),
            min_available_pct: 15,
            look_every: Duration::from_secs(5),
        }
    }
}

/// How many booted sandboxes wait for a create.
#[derive(Debug, Clone, Copy)]
pub struct WarmConfig {
    /// Kept for each named build, whatever the demand. 0 turns warm pools off.
    pub floor: usize,
    /// Never more than this many per build, however high the demand.
    pub ceiling: usize,
    /// Creates within this window are the demand that the pool follows.
    pub window: Duration,
    /// Below this share of available memory, in percent, pools are emptied.
    pub min_available_pct: u8,
    /// Builds whose start command takes at least this long to be ready are captured when it
    /// is, and further sandboxes of them are restored from that, where the runtime can;
    /// `None` starts each anew.
    pub capture_from: Option<Duration>,
}

impl Default for WarmConfig {
    fn default() -> Self {
        Self {
            floor: 8,
            ceiling: 64,
            window: Duration::from_secs(10),
            min_available_pct: 10,
            capture_from: Some(Duration::from_millis(250)),
        }
    }
}
