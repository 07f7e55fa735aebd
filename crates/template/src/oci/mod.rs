//! Container images: pulled from registries or read from the disk, unpacked into layers, and
//! written.
//!
//! Every byte of them is a stranger's. A layer is unpacked into a directory of its own,
//! below which the kernel resolves every path, and becomes visible when its digests fit.

mod ecr;
mod export;
mod image;
mod layout;
mod registry;
mod unpack;

pub(crate) use ecr::{EcrError, Keys, sign_in as ecr_sign_in};
pub(crate) use export::{About, Out, export};
pub(crate) use image::{PullError, Pulled};
pub(crate) use layout::LocalImage;
pub(crate) use registry::pull;
pub use registry::{BadMirror, Mirror, RegistryConfig};
pub(crate) use unpack::{Budget, unpack};
