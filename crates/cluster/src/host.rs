//! What machine a node is and how much of it is in use.

/// How full a file system is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskFacts {
    /// Where it is mounted.
    pub mount_point: String,
    /// On what.
    pub device: String,
    /// Its kind.
    pub kind: String,
    /// Bytes in use.
    pub used: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Huge pages of a machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HugePages {
    /// Set aside.
    pub total: u64,
    /// Of these, in use.
    pub used: u64,
    /// Of these, promised.
    pub reserved: u64,
    /// Bytes of one.
    pub size: u64,
}

/// What machine a node is and how much of it is in use. What the kernel does not tell is
/// zero or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Name of the machine.
    pub name: String,
    /// Cores.
    pub cpu_count: u32,
    /// Load of the processors since the last question, in percent.
    pub cpu_percent: u32,
    /// Family, model and model's name of the processor.
    pub cpu: [String; 3],
    /// Bytes of memory in use.
    pub memory_used: u64,
    /// Bytes of memory in all.
    pub memory_total: u64,
    /// Huge pages.
    pub huge_pages: HugePages,
    /// The file systems that sandboxes use.
    pub disks: Vec<DiskFacts>,
}
