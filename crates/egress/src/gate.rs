//! What the broker needs of the host.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpStream;
use warren_types::SandboxId;
use warren_types::egress::EgressPolicy;

use crate::Authority;

/// Who a sandbox is, for what is done in its name.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Its id.
    pub sandbox: SandboxId,
    /// The authority whose certificate it trusts, if its rules ever needed one.
    pub authority: Option<Arc<Authority>>,
}

/// The sandboxes behind addresses, and the way out.
#[async_trait]
pub trait Gate: Debug + Send + Sync {
    /// The policy of the sandbox at an address, if it has one that is more than all or
    /// nothing.
    fn policy(&self, peer: IpAddr) -> Option<Arc<EgressPolicy>>;

    /// Who the sandbox at an address is; `None` while nobody has it.
    fn identity(&self, peer: IpAddr) -> Option<Identity>;

    /// Writes a line into the log of the sandbox at an address.
    fn log(&self, peer: IpAddr, line: &str);

    /// Whether an address may be reached by any sandbox at all.
    fn is_public(&self, address: Ipv4Addr) -> bool;

    /// Connects as a sandbox would.
    ///
    /// # Errors
    /// As connect(2).
    async fn connect(&self, to: SocketAddrV4) -> io::Result<TcpStream>;
}
