//! Templates: what root file systems are made of. It owns the layer store, a directory of
//! immutable unpacked layers named by content, and the recipe of the `base` template.
//!
//! A layer is made under a temporary name and renamed when it is whole, so a process that
//! is killed at any instant leaves no half layer. It knows neither sandboxes nor SQL.

pub mod base;
mod layers;

pub use layers::{LayerError, LayerStore, Making};
