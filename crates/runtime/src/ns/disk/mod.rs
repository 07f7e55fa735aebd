//! Writable disks. Each is a sparse ext4 image of the size that is the sandbox's limit,
//! cloned from a formatted seed on a file system that can share blocks, and mounted without
//! a place in the host's mount table: when the last user is gone, so are mount and loop
//! device. In it, each use has a directory of its own:
//!
//! ```text
//! gN/upper    what the sandbox writes      gN/work   overlayfs' own      gN/log   the agent's log
//! ```

mod files;
mod image;
mod store;

pub(crate) use image::{CapturedDisk, Disk};
pub(crate) use store::Disks;
