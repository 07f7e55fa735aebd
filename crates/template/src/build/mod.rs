//! Builds of templates: from a description to the layers that sandboxes start from.
//!
//! ```text
//!  source ─► base phase ─► default user ─► step 1 … N ─► finalize ─► Built
//!               │               │              │             │
//!               └── each: key of the one before and of itself ─► cache: layers, context
//!                                              │
//!            sandbox on the layers so far ─► command by the agent ─► what it wrote ─► layer
//! ```
//!
//! `plan` is pure: steps, contexts, keys. A layer is complete before the record that names
//! it is written, and belongs to nobody until then, so a kill at any instant costs at most
//! the step that ran.

mod archive;
mod cache;
mod collect;
mod engine;
mod export;
mod finalize;
mod phase;
pub(crate) mod plan;
mod port;
mod roots;
mod source;
mod steps;

pub use collect::{CollectLimits, Collected};
pub use engine::{Engine, EngineConfig, OpenError};
pub use port::{
    BuildFailure, BuildLine, BuildLog, BuildRequest, Builder, Built, CollectError, ExportError,
    RegistryCredentials, Source, Step,
};
