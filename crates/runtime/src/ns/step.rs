//! Steps of a boot, named so that errors tell them and tests can fail at each.

use std::io;

use crate::RuntimeError;

/// A step of making a sandbox, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Taking a free slot.
    Slot,
    /// Making its cgroups.
    Cgroup,
    /// Cloning the shim.
    Clone,
    /// Moving it into the v1 cgroups.
    Attach,
    /// Linking its network to the router.
    Link,
    /// Letting it set itself up.
    Prepare,
    /// Opening the layers.
    Layers,
    /// Taking a disk.
    Disk,
    /// Putting limits in force.
    Limits,
    /// Putting the network policy in force.
    Policy,
    /// Joining layers and disk.
    Root,
    /// Handing over to the shim.
    Launch,
    /// Waiting for the agent.
    Ready,
    /// Restoring the processes.
    Restore,
}

impl Step {
    /// All steps of a boot, in order.
    pub const ALL: [Self; 13] = [
        Self::Slot,
        Self::Cgroup,
        Self::Clone,
        Self::Attach,
        Self::Link,
        Self::Prepare,
        Self::Layers,
        Self::Disk,
        Self::Limits,
        Self::Policy,
        Self::Root,
        Self::Launch,
        Self::Ready,
    ];

    fn phrase(self) -> &'static str {
        match self {
            Self::Slot => "take a slot",
            Self::Cgroup => "make the cgroups",
            Self::Clone => "clone a shim",
            Self::Attach => "move the shim into its cgroups",
            Self::Link => "link the shim to the network",
            Self::Prepare => "set up the shim",
            Self::Layers => "open the layers",
            Self::Disk => "make the disk",
            Self::Limits => "set the limits",
            Self::Policy => "set the network policy",
            Self::Root => "join layers and disk",
            Self::Launch => "hand over to the shim",
            Self::Ready => "wait for the agent",
            Self::Restore => "restore the processes",
        }
    }

    pub(crate) fn failed(self, source: io::Error) -> RuntimeError {
        RuntimeError::Step {
            step: self.phrase().to_owned(),
            source,
        }
    }
}

/// Names the step that an I/O failure happened in.
pub(crate) trait Doing<T> {
    fn doing(self, step: Step) -> Result<T, RuntimeError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, step: Step) -> Result<T, RuntimeError> {
        self.map_err(|source| step.failed(source))
    }
}
