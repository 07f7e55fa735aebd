//! Sandboxes that run the steps of a template build. They belong to no client, are on no
//! record, and end with the value that stands for them.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{BuildImage, NodeError};

/// A connection into a sandbox.
pub trait Connection: AsyncRead + AsyncWrite + Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Debug + Send + Unpin> Connection for T {}

/// Where builds run their steps.
#[async_trait]
pub trait BuildHost: Debug + Send + Sync {
    /// Boots a sandbox of `image` with a way to the internet, its agent initialised with the
    /// image's user and directory but none of its variables. Of a capture it has the files,
    /// whether or not memory was kept; no start command runs.
    async fn open_build(&self, image: &BuildImage) -> Result<Box<dyn BuildSandbox>, NodeError>;

    /// Layers of the sandboxes that run or are paused. Blocks on the disk.
    fn layers_in_use(&self) -> io::Result<BTreeSet<String>>;
}

/// A sandbox that runs a step. Dropping it ends it in the background.
#[async_trait]
pub trait BuildSandbox: Debug + Send + Sync {
    /// Connects to a port on its loopback.
    async fn dial(&self, port: u16) -> io::Result<Box<dyn Connection>>;

    /// Resolves when its first process has died.
    async fn died(&self);

    /// Ends every process in it and copies what it has written into the directory `into`,
    /// made by this call, in the form that layers have.
    async fn commit(&self, into: PathBuf) -> Result<Written, CommitError>;

    /// Ends it and waits until no process of it runs.
    async fn end(self: Box<Self>);
}

/// What a step has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Files, directories and marks of deleted ones.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// What a sandbox has written could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("copy what a sandbox has written")]
pub struct CommitError(#[source] pub Box<dyn std::error::Error + Send + Sync>);
