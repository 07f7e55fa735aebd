//! Kernels: processes that run code, reached over the Jupyter wire protocol.

mod output;
mod place;
mod process;
mod spec;
mod wire;

pub use place::RunDir;
pub use process::{Event, Kernel, Launch, SendError, StartError};
pub use spec::{KernelSpec, SpecDirs};
pub use wire::{Message, Session, WireError, reply_frames};
