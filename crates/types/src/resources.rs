//! What a sandbox may use.

use serde::{Deserialize, Serialize};

/// Limits of one sandbox, enforced by the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// CPU quota in whole CPUs.
    pub cpu_count: u32,
    /// Memory limit in MiB.
    pub memory_mib: u32,
    /// Size of the writable file system in MiB.
    pub disk_mib: u32,
    /// Highest number of processes and threads.
    pub max_processes: u32,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_count: 2,
            memory_mib: 512,
            disk_mib: 10 * 1024,
            max_processes: 4096,
        }
    }
}
