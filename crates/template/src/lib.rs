//! Templates: what root file systems are made of. It owns the layer store, a directory of
//! immutable unpacked layers named by content, and the recipe of the `base` template.
//!
//! A layer is made under a temporary name and renamed when it is whole, so a process that
//! is killed at any instant leaves no half layer. [`build`] makes layers of a description by
//! running its steps in sandboxes of a node. It knows nothing of SQL or HTTP routes.

mod agent;
pub mod base;
pub mod build;
pub mod bundle;
pub mod interpreter;
mod layers;
mod merge;
mod oci;
mod tarball;

pub use layers::{LayerError, LayerStore, Making};
pub use oci::{BadMirror, Mirror, RegistryConfig};
