//! Container images: pulled from registries, unpacked into layers.
//!
//! Every byte of them is a stranger's. A layer is unpacked into a directory of its own,
//! below which the kernel resolves every path, and becomes visible when its digests fit.

mod registry;
mod unpack;

pub use registry::{BadMirror, Mirror, RegistryConfig};
pub(crate) use registry::{PullError, pull};
