//! The seam between the use cases and the nodes: [`NodeHandle`] with its messages, and
//! [`BuildHost`] for template builds. On one
//! machine it is a direct call; over several it becomes a request to a remote node. No
//! other code knows the difference.

mod build;
mod error;
mod handle;
mod host;
mod message;
pub mod token;

pub use build::{BuildHost, BuildSandbox, CommitError, Connection, Written};
pub use error::NodeError;
pub use handle::NodeHandle;
pub use host::{DiskFacts, HostFacts, HugePages};
pub use message::{
    BuildImage, Captured, CreateSandbox, Deadline, LogQuery, NodeEvent, NodeLoad, PauseSandbox,
    PauseView, ResumeSandbox, Resumed, SandboxView, TokenKey, VolumeMount,
};
