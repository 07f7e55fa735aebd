//! Name resolution for sandboxes: relays queries to the host's own resolvers, so that
//! names resolve inside exactly as they do on the host, whatever its resolver is. Where a
//! sandbox may reach some names only, it may ask for those only.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use warren_service::{Chain, Tasks};

use crate::Gate;
use crate::query::{self, Fate};
use crate::refusals::Refusals;

/// Largest datagram that is relayed; resolvers answer more over TCP.
const DATAGRAM_LIMIT: usize = 4096;
/// Queries under way at a time; more are dropped, and the guest asks again.
const QUERIES: usize = 512;
/// TCP conversations at a time.
const CONVERSATIONS: usize = 64;
/// A resolver that has not answered after this is given up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest TCP conversation.
const CONVERSATION_TIMEOUT: Duration = Duration::from_secs(30);
/// A query has at least a header.
const HEADER: usize = 12;

/// Why no resolver is known.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The resolver configuration can't be read.
    #[error("read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It names no server.
    #[error("{0} names no name server")]
    NoServer(PathBuf),
}

/// The relay.
#[derive(Debug, Clone)]
pub struct Dns(Source);

/// Where the servers are known from.
#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Fixed(Arc<[SocketAddr]>),
}

/// The relay as sandboxes reach it.
#[derive(Debug, Clone)]
struct Service {
    dns: Dns,
    gate: Arc<dyn Gate>,
    refusals: Refusals,
}

/// The servers that a `resolv.conf` names.
fn servers(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

impl Dns {
    /// Relays to the servers that `config` (normally `/etc/resolv.conf`) names. The file
    /// is read again for each query, so that a change of networks is followed.
    ///
    /// # Errors
    /// [`DnsError`] when it can't be read or names no server.
    pub fn new(config: PathBuf) -> Result<Self, DnsError> {
        let dns = Self(Source::File(config));
        dns.upstreams()?;
        Ok(dns)
    }

    /// Relays to these servers.
    #[must_use]
    pub fn fixed(servers: &[SocketAddr]) -> Self {
        Self(Source::Fixed(servers.into()))
    }

    fn upstreams(&self) -> Result<Vec<SocketAddr>, DnsError> {
        let config = match &self.0 {
            Source::Fixed(servers) => return Ok(servers.to_vec()),
            Source::File(config) => config,
        };
        let text = fs::read_to_string(config).map_err(|source| DnsError::Read {
            path: config.clone(),
            source,
        })?;
        let servers = servers(&text);
        if servers.is_empty() {
            Err(DnsError::NoServer(config.clone()))
        } else {
            Ok(servers)
        }
    }

    /// Serves sandboxes over UDP and TCP until the tasks are stopped.
    pub async fn serve(self, udp: UdpSocket, tcp: TcpListener, gate: Arc<dyn Gate>, tasks: Tasks) {
        let service = Service {
            dns: self,
            refusals: Refusals::new(Arc::clone(&gate)),
            gate,
        };
        tokio::join!(
            service.clone().serve_udp(udp, &tasks),
            service.serve_tcp(tcp, &tasks)
        );
    }

    /// Asks the servers one after another; the first answer to this very query counts.
    pub(crate) async fn ask(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        self.ask_with(query, ask_one).await
    }

    /// The same for answers longer than a datagram.
    pub(crate) async fn ask_long(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        self.ask_with(query, ask_one_long).await
    }

    async fn ask_with(
        &self,
        query: &[u8],
        ask: impl AsyncFn(SocketAddr, &[u8]) -> io::Result<Vec<u8>>,
    ) -> io::Result<Vec<u8>> {
        let upstreams = self.upstreams().map_err(io::Error::other)?;
        let share = ANSWER_TIMEOUT / u32::try_from(upstreams.len()).unwrap_or(1).max(1);
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for upstream in upstreams {
            match tokio::time::timeout(share, ask(upstream, query)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }
}

impl Service {
    /// The answer to a query of a sandbox, if it gets one.
    async fn answer(&self, peer: IpAddr, query: &[u8], is_long: bool) -> Option<Vec<u8>> {
        if query.len() < HEADER {
            return None;
        }
        let fate = query::judge(self.gate.policy(peer).as_deref(), query);
        let clean = match &fate {
            Fate::Relay => query,
            Fate::Ask(clean) => clean,
            Fate::Answer(bytes, refused) => {
                if let Some(name) = refused {
                    let what = format!("query for {name}: no domain of allowOut");
                    self.refusals.tell(peer, &what);
                }
                return Some(bytes.clone());
            }
            Fate::Drop => return None,
        };
        let asked = if is_long {
            self.dns.ask_long(clean).await
        } else {
            self.dns.ask(clean).await
        };
        asked
            .inspect_err(|error| tracing::debug!(error = %Chain(error), "relay a query"))
            .ok()
    }

    async fn serve_udp(self, socket: UdpSocket, tasks: &Tasks) {
        let (socket, permits) = (Arc::new(socket), Arc::new(Semaphore::new(QUERIES)));
        let mut buffer = vec![0; DATAGRAM_LIMIT];
        loop {
            let received = tokio::select! {
                () = tasks.stop_token().cancelled() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (length, client) = match received {
                Ok(received) => received,
                // An ICMP error about an earlier answer is not the end of the service.
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "receive a query");
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                continue;
            };
            let query = buffer.get(..length).unwrap_or_default().to_vec();
            let (socket, service) = (Arc::clone(&socket), self.clone());
            tasks.spawn(async move {
                let _permit = permit;
                if let Some(answer) = service.answer(client.ip(), &query, false).await {
                    // A sandbox that is gone misses nothing.
                    socket.send_to(&answer, client).await.ok();
                }
            });
        }
    }

    async fn serve_tcp(self, listener: TcpListener, tasks: &Tasks) {
        let permits = Arc::new(Semaphore::new(CONVERSATIONS));
        loop {
            let accepted = tokio::select! {
                () = tasks.stop_token().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((client, peer)) = accepted else {
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                continue;
            };
            let service = self.clone();
            tasks.spawn_until_stopped(async move {
                let _permit = permit;
                let talk = service.talk(client, peer.ip());
                // However it ends, the connection is closed; the guest asks again.
                tokio::time::timeout(CONVERSATION_TIMEOUT, talk).await
            });
        }
    }

    async fn talk(&self, mut client: TcpStream, peer: IpAddr) -> io::Result<()> {
        loop {
            let query = read_long(&mut client).await?;
            let Some(answer) = self.answer(peer, &query, true).await else {
                return Ok(());
            };
            write_long(&mut client, &answer).await?;
        }
    }
}

/// Reads a message of a TCP conversation.
async fn read_long(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_long(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    stream.write_all(&bytes).await
}

async fn ask_one_long(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream).await?;
    write_long(&mut server, query).await?;
    let answer = read_long(&mut server).await?;
    if answer.len() >= HEADER && answer.get(..2) == query.get(..2) {
        Ok(answer)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

async fn ask_one(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // A socket of its own per query: a random source port, and no other query's answers.
    let socket = UdpSocket::bind(any).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut answer = vec![0; DATAGRAM_LIMIT];
    loop {
        let length = socket.recv(&mut answer).await?;
        if length >= HEADER && answer.get(..2) == query.get(..2) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_rubbish_is_passed_over() {
        let text = "# a comment\nsearch x\nnameserver 10.0.0.1\n nameserver ::1 \nnameserver huh\n";
        let expected: Vec<SocketAddr> =
            vec!["10.0.0.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(servers(text), expected);
    }

    #[tokio::test]
    async fn a_configuration_without_servers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        assert!(matches!(Dns::new(path.clone()), Err(DnsError::Read { .. })));
        fs::write(&path, "search x\n").unwrap();
        assert!(matches!(Dns::new(path), Err(DnsError::NoServer(_))));
    }
}
