//! The seam between the use cases and the nodes: [`NodeHandle`] and its messages. On one
//! machine it is a direct call; over several it becomes a request to a remote node. No
//! other code knows the difference.

mod error;
mod handle;
mod message;
pub mod token;

pub use error::NodeError;
pub use handle::NodeHandle;
pub use message::{
    BuildImage, CreateSandbox, Deadline, LogQuery, NodeEvent, NodeLoad, SandboxView, TokenKey,
};
