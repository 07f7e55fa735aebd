//! Bundles: the server's program with layers and tools in one file, for machines without a
//! network.
//!
//! A bundle is a tar archive of the program (first, so that `tar -xf BUNDLE warren` is quick),
//! a manifest with the digests of everything, and one compressed archive per directory, as
//! images have them. What is in a bundle may be a stranger's: it is read and unpacked as an
//! image is.

mod create;
mod draft;
mod install;
mod manifest;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

pub use create::{Contents, create};
pub use install::{Destination, install};
pub use manifest::Manifest;

use crate::layers::LayerError;

/// Name of the program in a bundle.
const PROGRAM: &str = "warren";
const MANIFEST: &str = "manifest.json";

/// Why a bundle could not be written or installed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file can't be read or written.
    #[error("{step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The place of a new bundle is taken.
    #[error("{} is there already\nhint: name a file that is not", .0.display())]
    Exists(PathBuf),
    /// The file is something else, or was damaged.
    #[error("{} is no bundle, or is damaged: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The file can't be read as an archive, or a part of it can't be unpacked.
    #[error("{} is no bundle, or is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Of a form that this program does not know.
    #[error(
        "the bundle is of form {0}\nhint: install it with the program in it: `tar -xf BUNDLE warren`, then `./warren bundle install BUNDLE`"
    )]
    Form(u32),
    /// Made for another kind of machine.
    #[error("the bundle is for {0} machines")]
    Machine(String),
    /// The store of layers failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { step, path, source }
}
