//! What the edge asks of the rest of the system.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use warren_service::{CancellationToken, Secret};
use warren_types::{SandboxId, TeamId};

/// The teams that a credential stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// At least one.
    pub teams: Vec<TeamId>,
}

/// The database or the node failed; details are in the log of whoever tells this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server has a problem; try again")]
pub struct HostError;

/// Why there is no way into a sandbox. The texts are for whoever connects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Unknown, ended, or another team's.
    #[error("sandbox {0} was not found")]
    NotFound(SandboxId),
    /// Refused with a reason.
    #[error("{0}")]
    Refused(String),
    /// Not the client's fault.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// Knows credentials and sandboxes.
#[async_trait]
pub trait Host: fmt::Debug + Send + Sync {
    /// The teams that have registered the public key of this fingerprint, which is
    /// `SHA256:` and the digest in base64 without padding. `is_proven` once the client has
    /// shown that it has the private half.
    async fn public_key(
        &self,
        fingerprint: &str,
        is_proven: bool,
    ) -> Result<Option<Access>, HostError>;

    /// The team whose API key this is.
    async fn password(&self, password: &str) -> Result<Option<Access>, HostError>;

    /// The way into a sandbox of one of these teams, which is resumed if it is paused.
    async fn open(&self, access: &Access, id: &SandboxId) -> Result<Guest, OpenError>;

    /// Keeps a sandbox that runs from ending while somebody is connected. Called about
    /// once a minute; must not resume it.
    async fn keep(&self, access: &Access, id: &SandboxId);

    /// Why the last run of a sandbox ended, as the end of a sentence that begins with its
    /// id.
    async fn farewell(&self, access: &Access, id: &SandboxId) -> String;
}

/// One run of a sandbox.
#[derive(Debug, Clone)]
pub struct Guest {
    /// Opens connections into it.
    pub dial: Arc<dyn Dial>,
    /// Cancelled when this run ends.
    pub run: CancellationToken,
    /// Token that its agent requires.
    pub access_token: Option<Secret>,
}

/// Opens connections into a sandbox, and listens in it.
pub trait Dial: fmt::Debug + Send + Sync {
    /// Connects to a port on its loopback, or its only address.
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>>;

    /// Listens on a port in its network, on loopback or on all addresses. Port 0 has one
    /// chosen.
    fn listen(
        &self,
        port: u16,
        is_loopback: bool,
    ) -> Pin<Box<dyn Future<Output = io::Result<TcpListener>> + Send + '_>>;
}
