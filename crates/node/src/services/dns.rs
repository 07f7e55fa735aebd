//! Name resolution for sandboxes: relays queries to the host's own resolvers, so that
//! names resolve inside exactly as they do on the host, whatever its resolver is.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use warren_service::{Chain, Tasks};

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
pub struct Dns {
    config: PathBuf,
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
        let dns = Self { config };
        dns.upstreams()?;
        Ok(dns)
    }

    fn upstreams(&self) -> Result<Vec<SocketAddr>, DnsError> {
        let text = fs::read_to_string(&self.config).map_err(|source| DnsError::Read {
            path: self.config.clone(),
            source,
        })?;
        let servers = servers(&text);
        if servers.is_empty() {
            Err(DnsError::NoServer(self.config.clone()))
        } else {
            Ok(servers)
        }
    }

    /// Serves datagrams until the tasks are stopped.
    pub async fn serve_udp(self, socket: UdpSocket, tasks: Tasks) {
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
            if length < HEADER {
                continue;
            }
            let query = buffer.get(..length).unwrap_or_default().to_vec();
            let (socket, relay) = (Arc::clone(&socket), self.clone());
            tasks.spawn(async move {
                let _permit = permit;
                match relay.ask(&query).await {
                    Ok(answer) => {
                        socket.send_to(&answer, client).await.ok();
                    }
                    Err(error) => tracing::debug!(error = %Chain(&error), "relay a query"),
                }
            });
        }
    }

    /// Asks the servers one after another; the first answer to this very query counts.
    async fn ask(&self, query: &[u8]) -> io::Result<Vec<u8>> {
        let upstreams = self.upstreams().map_err(io::Error::other)?;
        let share = ANSWER_TIMEOUT / u32::try_from(upstreams.len()).unwrap_or(1).max(1);
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for upstream in upstreams {
            match tokio::time::timeout(share, ask_one(upstream, query)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    /// Serves TCP conversations until the tasks are stopped.
    pub async fn serve_tcp(self, listener: TcpListener, tasks: Tasks) {
        let permits = Arc::new(Semaphore::new(CONVERSATIONS));
        loop {
            let accepted = tokio::select! {
                () = tasks.stop_token().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((mut client, _)) = accepted else {
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                continue;
            };
            let Ok(upstreams) = self.upstreams() else {
                continue;
            };
            tasks.spawn(async move {
                let _permit = permit;
                let talk = async {
                    for upstream in upstreams {
                        if let Ok(mut server) = TcpStream::connect(upstream).await {
                            tokio::io::copy_bidirectional(&mut client, &mut server)
                                .await
                                .ok();
                            return;
                        }
                    }
                };
                tokio::time::timeout(CONVERSATION_TIMEOUT, talk).await.ok();
            });
        }
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
