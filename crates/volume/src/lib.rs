//! Volumes: durable directories that several sandboxes mount at once and that clients reach
//! by themselves.
//!
//! Each volume is a sparse ext4 image of a fixed size, which is its quota, mounted once per
//! host however many sandboxes use it. Owners in it are those that sandboxes see. Everything
//! in a volume was made by sandboxes or clients and is hostile: each path is resolved by the
//! kernel within the volume (openat2), so neither `..` nor a link leads outside.

mod bucket;
mod content;
mod error;
mod image;
mod path;
mod remove;
mod volumes;

pub use bucket::{Bucket, BucketConfig, BucketError, ManifestError};
pub use content::{Draft, Entry, EntryKind, NewNode, Owner, WriteOptions};
pub use error::{VolumeError, WriteBackError};
pub use path::VolumePath;
pub use volumes::{Content, Volumes};
