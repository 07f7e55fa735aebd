//! Connections into a sandbox, made from inside its network namespace.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::net::AddressFamily;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::net::Network;
use crate::Dial;

/// The way into a sandbox's network; shut when the sandbox is released.
#[derive(Debug)]
pub(crate) struct Door {
    netns: Mutex<Option<Arc<OwnedFd>>>,
}

impl Door {
    pub(crate) fn open(netns: Arc<OwnedFd>) -> Self {
        Self {
            netns: Mutex::new(Some(netns)),
        }
    }

    /// Lets go of the namespace, which dies with its last user.
    pub(crate) fn shut(&self) {
        self.netns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn netns(&self) -> io::Result<Arc<OwnedFd>> {
        let netns = self.netns.lock().unwrap_or_else(PoisonError::into_inner);
        netns.clone().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Dials one sandbox.
#[derive(Debug)]
pub(crate) struct NsDial {
    pub(crate) network: Arc<Network>,
    pub(crate) door: Arc<Door>,
    pub(crate) address: Ipv4Addr,
}

impl NsDial {
    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        // Services bound to loopback of either family, then those bound to the link only.
        let addresses: [IpAddr; 3] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            self.address.into(),
        ];
        let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for address in addresses {
            let family = if address.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = self.network.tcp_socket(self.door.netns()?, family).await?;
            let connected = TcpSocket::from_std_stream(socket)
                .connect(SocketAddr::new(address, port))
                .await;
            match connected {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = error,
                // A guest may have taken IPv6 loopback down.
                Err(error) if address.is_ipv6() => drop(error),
                Err(error) => return Err(error),
            }
        }
        // Gone meanwhile?
        self.door.netns()?;
        Err(refused)
    }
}

impl Dial for NsDial {
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>> {
        Box::pin(self.connect(port))
    }

    fn listen(
        &self,
        port: u16,
        is_loopback: bool,
    ) -> Pin<Box<dyn Future<Output = io::Result<TcpListener>> + Send + '_>> {
        Box::pin(async move {
            let address = if is_loopback {
                Ipv4Addr::LOCALHOST
            } else {
                Ipv4Addr::UNSPECIFIED
            };
            let inside = self.door.netns()?;
            let address = SocketAddr::new(address.into(), port);
            let listener = self.network.tcp_listener(inside, address).await?;
            TcpListener::from_std(listener)
        })
    }
}
