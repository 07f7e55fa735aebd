//! What the broker needs of the host.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpStream;
use warren_types::egress::EgressPolicy;

/// The sandboxes behind addresses, and the way out.
#[async_trait]
pub trait Gate: Debug + Send + Sync {
    /// The policy of the sandbox at an address, if it has one that is more than all or
    /// nothing.
    fn policy(&self, peer: IpAddr) -> Option<Arc<EgressPolicy>>;

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
