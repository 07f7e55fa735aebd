//! What a team or an API key may have at a time.

/// Limits of a team or of an API key; `None` is no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Budget {
    /// Sandboxes that start or run.
    pub sandboxes: Option<u32>,
    /// Their CPUs together.
    pub cpus: Option<u32>,
    /// Their memory limits together in MiB.
    pub memory_mib: Option<u32>,
    /// Disk limits together in MiB, of paused sandboxes too: those still take up disk.
    pub disk_mib: Option<u32>,
    /// Requests to the API in a minute.
    pub requests_per_minute: Option<u32>,
}

impl Budget {
    /// These limits, and those of `default` where there are none.
    #[must_use]
    pub fn or(self, default: Self) -> Self {
        Self {
            sandboxes: self.sandboxes.or(default.sandboxes),
            cpus: self.cpus.or(default.cpus),
            memory_mib: self.memory_mib.or(default.memory_mib),
            disk_mib: self.disk_mib.or(default.disk_mib),
            requests_per_minute: self.requests_per_minute.or(default.requests_per_minute),
        }
    }
}

/// How much of a budget is in use or reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sandboxes that start or run.
    pub sandboxes: u64,
    /// Their CPUs.
    pub cpus: u64,
    /// Their memory limits in MiB.
    pub memory_mib: u64,
    /// Disk limits in MiB, of paused ones too.
    pub disk_mib: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_said_is_the_default() {
        let own = Budget {
            cpus: Some(1),
            ..Budget::default()
        };
        let default = Budget {
            cpus: Some(9),
            disk_mib: Some(7),
            ..Budget::default()
        };
        let both = Budget {
            disk_mib: Some(7),
            ..own
        };
        assert_eq!(own.or(default), both);
    }
}
