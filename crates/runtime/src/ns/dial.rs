//! Connections into a sandbox, made from inside its network namespace.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::AddressFamily;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::net::Network;
use crate::Dial;

/// Within this time of the last one, a lack of sockets has more made at once.
const BUSY: Duration = Duration::from_secs(1);
/// Most sockets made ahead for one sandbox.
const MAX_SPARE: usize = 16;

/// The way into a sandbox's network; shut when the sandbox is released.
#[derive(Debug)]
pub(crate) struct Door {
    netns: Mutex<Option<Arc<OwnedFd>>>,
    spare: Mutex<Spare>,
}

/// Sockets made ahead: one that is entered for each costs more than all else of a dial.
/// A sandbox that is dialled now and then has none.
#[derive(Debug, Default)]
struct Spare {
    sockets: Vec<std::net::TcpStream>,
    made_at: Option<Instant>,
    made: usize,
    is_shut: bool,
}

impl Spare {
    /// How many sockets to make now that there are none.
    fn wanted(&mut self, now: Instant) -> usize {
        let is_busy = self
            .made_at
            .is_some_and(|made_at| now.saturating_duration_since(made_at) < BUSY);
        self.made = if is_busy {
            (self.made * 2).min(MAX_SPARE)
        } else {
            1
        };
        self.made_at = Some(now);
        self.made
    }

    fn add(&mut self, sockets: impl IntoIterator<Item = std::net::TcpStream>) {
        // What is shut must not keep the namespace.
        if !self.is_shut {
            let room = MAX_SPARE.saturating_sub(self.sockets.len());
            self.sockets.extend(sockets.into_iter().take(room));
        }
    }
}

impl Door {
    pub(crate) fn open(netns: Arc<OwnedFd>) -> Self {
        Self {
            netns: Mutex::new(Some(netns)),
            spare: Mutex::default(),
        }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the namespace, which dies with its last user.
    pub(crate) fn shut(&self) {
        self.netns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let mut spare = self.spare();
        spare.is_shut = true;
        spare.sockets.clear();
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
    /// A socket for IPv4 in the sandbox's namespace.
    async fn socket(&self) -> io::Result<std::net::TcpStream> {
        let netns = self.door.netns()?;
        let wanted = {
            let mut spare = self.door.spare();
            if let Some(socket) = spare.sockets.pop() {
                return Ok(socket);
            }
            spare.wanted(Instant::now())
        };
        let made = self
            .network
            .tcp_sockets(netns, AddressFamily::INET, wanted)
            .await?;
        let mut made = made.into_iter();
        let socket = made.next().ok_or(io::ErrorKind::OutOfMemory)?;
        self.door.spare().add(made);
        Ok(socket)
    }

    async fn connect(&self, port: u16) -> io::Result<TcpStream> {
        // Services bound to loopback of either family, then those bound to the link only.
        let addresses: [IpAddr; 3] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            self.address.into(),
        ];
        let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for address in addresses {
            let socket = if address.is_ipv4() {
                self.socket().await?
            } else {
                let netns = self.door.netns()?;
                let network = &self.network;
                network.tcp_socket(netns, AddressFamily::INET6).await?
            };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_made_ahead_only_while_many_are_needed() {
        let (mut spare, start) = (Spare::default(), Instant::now());
        let after = |millis| start + Duration::from_millis(millis);
        let wanted: Vec<_> = [0, 10, 20, 30, 40, 50, 2000, 4000, 4010]
            .map(|millis| spare.wanted(after(millis)))
            .into();
        assert_eq!(wanted, [1, 2, 4, 8, 16, 16, 1, 1, 2]);
    }

    #[test]
    fn a_door_that_is_shut_takes_no_sockets() {
        let netns = std::fs::File::open("/proc/self/ns/net").unwrap();
        let door = Door::open(Arc::new(netns.into()));
        let socket = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()
        };
        door.spare().add([socket()]);
        assert_eq!(door.spare().sockets.len(), 1);
        door.shut();
        assert!(door.spare().sockets.is_empty());
        door.spare().add([socket()]);
        assert!(door.spare().sockets.is_empty());
        assert!(door.netns().is_err());
    }
}
