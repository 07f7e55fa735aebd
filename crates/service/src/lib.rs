//! What every long-lived program needs: tasks with an owner, a stop token, secrets that
//! can't be printed, files that are whole, where a request comes from, and one way to show an
//! error with its causes.

mod chain;
pub mod fault;
pub mod file;
mod peer;
mod secret;
mod tasks;

pub use chain::Chain;
pub use peer::Peer;
pub use secret::Secret;
pub use tasks::Tasks;
pub use tokio_util::sync::CancellationToken;
