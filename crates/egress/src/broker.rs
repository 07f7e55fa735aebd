//! Takes the connections that the router hands over, finds the name that each shows, and
//! lets it out or closes it.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddrV4};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::ip_original_dst;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use warren_service::{Chain, Tasks};
use warren_types::egress::{EgressPolicy, Verdict, normalize_name};

use crate::head::{self, Head};
use crate::hello::{self, Hello};
use crate::http::Exchange;
use crate::prefixed::Prefixed;
use crate::refusals::Refusals;
use crate::tunnel::{Target, Wire};
use crate::{Gate, Resolver, Trust, Vault};

/// Ports whose connections show a name.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Addresses of a name that are tried.
pub(crate) const ATTEMPTS: usize = 4;
/// Bytes that wait in each direction of a connection.
const BUFFER: usize = 64 * 1024;
/// A peer that is gone is noticed after a minute or so.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Bounds of the broker.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one sandbox at a time.
    pub per_sandbox: usize,
    /// Time for a client to show its name.
    pub head: Duration,
    /// Time to connect.
    pub dial: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            per_sandbox: 1024,
            head: Duration::from_secs(10),
            dial: Duration::from_secs(30),
        }
    }
}

/// The broker. Clones share everything.
#[derive(Debug, Clone)]
pub struct Broker {
    pub(crate) gate: Arc<dyn Gate>,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) resolver: Resolver,
    pub(crate) trust: Trust,
    pub(crate) refusals: Refusals,
    pub(crate) limits: Limits,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    pub(crate) tasks: Tasks,
}

/// A connection of a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Flow {
    pub(crate) peer: IpAddr,
    /// Where the sandbox wanted it to go.
    pub(crate) to: SocketAddrV4,
    pub(crate) policy: Arc<EgressPolicy>,
}

/// What a connection's first bytes show.
#[derive(Debug, Default)]
struct Seen {
    bytes: Vec<u8>,
    name: Option<String>,
    is_http: bool,
    is_encrypted: bool,
}

/// A place among the open connections.
struct Place<'a>(&'a Broker, IpAddr);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.1);
            }
        }
    }
}

impl Broker {
    /// Makes a broker whose connections are tasks of `tasks`.
    #[must_use]
    pub fn new(
        gate: Arc<dyn Gate>,
        vault: Arc<dyn Vault>,
        resolver: Resolver,
        trust: Trust,
        limits: Limits,
        tasks: Tasks,
    ) -> Self {
        Self {
            refusals: Refusals::new(Arc::clone(&gate)),
            gate,
            vault,
            resolver,
            trust,
            limits,
            open: Arc::default(),
            tasks,
        }
    }

    /// Serves what the router hands over until the tasks are stopped.
    pub async fn serve(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                () = self.tasks.stop_token().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, for one; those of ended connections come back.
                    tracing::warn!(error = %Chain(&error), "accept a connection of a sandbox");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let to = match ip_original_dst(&stream) {
                Ok(to) => to,
                Err(error) => {
                    tracing::debug!(%error, "a connection that the router did not hand over");
                    continue;
                }
            };
            let broker = self.clone();
            self.tasks
                .spawn_until_stopped(async move { broker.handle(stream, peer.ip(), to).await });
        }
    }

    /// Serves one connection of the sandbox at `peer` that was to go to `to`.
    pub(crate) async fn handle(&self, stream: TcpStream, peer: IpAddr, to: SocketAddrV4) {
        let Some(_place) = self.place(peer) else {
            self.refusals
                .tell(peer, &format!("tcp {to}: too many connections"));
            return;
        };
        let Some(policy) = self.gate.policy(peer) else {
            tracing::debug!(%peer, %to, "a connection that no policy is known for");
            return;
        };
        let flow = Flow { peer, to, policy };
        if let Err(error) = self.pass(stream, flow).await {
            tracing::debug!(%peer, %to, error = %Chain(&error), "a connection of a sandbox ended");
        }
    }

    fn place(&self, peer: IpAddr) -> Option<Place<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = open.values().sum();
        let own = open.entry(peer).or_default();
        if all >= self.limits.connections || *own >= self.limits.per_sandbox {
            return None;
        }
        *own += 1;
        Some(Place(self, peer))
    }

    async fn pass(&self, mut client: TcpStream, flow: Flow) -> io::Result<()> {
        prepare(&client)?;
        let seen = self.look(&mut client, &flow).await?;
        let name = seen.name.as_deref();
        let has_headers = name.is_some_and(|name| flow.policy.headers_for(name).is_some());
        // Of TLS that is looked into, only the name in the open counts.
        let verdict = self.judge(&flow, name, seen.is_encrypted && !has_headers);
        if let Verdict::Deny(rule) = &verdict {
            self.refuse(&flow, name, rule);
            return Ok(());
        }
        if seen.is_http && (verdict == Verdict::AllowName || has_headers) {
            // Each request names a host of its own.
            let stream = Prefixed::new(seen.bytes, client);
            Exchange::plain(self.clone(), flow).serve(stream).await;
            return Ok(());
        }
        if has_headers && let Some(name) = seen.name {
            let stream = Prefixed::new(seen.bytes, client);
            return self.look_into(stream, flow, name).await;
        }
        let mut server = match (&verdict, name) {
            (Verdict::AllowName, Some(name)) => self.dial_name(&flow, name).await?,
            _ => self.dial_address(&flow, flow.to).await?,
        };
        server.write_all(&seen.bytes).await?;
        drop(seen);
        tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
        Ok(())
    }

    /// Answers as the host whose name a TLS connection shows, and serves the requests in it.
    async fn look_into(
        &self,
        stream: Prefixed<TcpStream>,
        flow: Flow,
        name: String,
    ) -> io::Result<()> {
        let identity = self.gate.identity(flow.peer);
        let Some(authority) = identity.and_then(|identity| identity.authority) else {
            self.refuse(
                &flow,
                Some(&name),
                "the sandbox has no certificate authority",
            );
            return Ok(());
        };
        let config = authority.serve_as(&name).map_err(io::Error::other)?;
        let handshake = TlsAcceptor::from(config).accept(stream);
        let accepted = tokio::time::timeout(self.limits.head, handshake).await?;
        let stream = accepted.inspect_err(|error| {
            let rule = format!("TLS with the sandbox: {}", Chain(error));
            self.refuse(&flow, Some(&name), &rule);
        })?;
        let session = stream.get_ref().1;
        let shown = session.server_name().and_then(normalize_name);
        if shown.as_ref() != Some(&name) {
            self.refuse(&flow, Some(&name), "a client hello with more than one name");
            return Ok(());
        }
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let exchange = Exchange::within_tls(self.clone(), flow, name, is_http2);
        exchange.serve(stream).await;
        Ok(())
    }

    /// Waits for the name that a connection shows, if it is one that does.
    async fn look(&self, client: &mut TcpStream, flow: &Flow) -> io::Result<Seen> {
        let shows_name = flow.policy.has_domains() || flow.policy.has_headers();
        let mut seen = Seen::default();
        if !shows_name || ![HTTP_PORT, HTTPS_PORT].contains(&flow.to.port()) {
            return Ok(seen);
        }
        let is_https = flow.to.port() == HTTPS_PORT;
        let limit = if is_https { hello::LIMIT } else { head::LIMIT };
        let deadline = tokio::time::Instant::now() + self.limits.head;
        loop {
            if is_https {
                match hello::read(&seen.bytes) {
                    Hello::Partial => {}
                    Hello::NotTls | Hello::Malformed => return Ok(seen),
                    Hello::Whole { name, is_encrypted } => {
                        seen.name = name;
                        seen.is_encrypted = is_encrypted;
                        return Ok(seen);
                    }
                }
            } else {
                match head::read(&seen.bytes) {
                    Head::Partial => {}
                    Head::NotHttp => return Ok(seen),
                    Head::Whole(name) => {
                        seen.name = name;
                        seen.is_http = true;
                        return Ok(seen);
                    }
                }
            }
            // The limit has room for what the records' headers add.
            if seen.bytes.len() >= 2 * limit {
                return Ok(seen);
            }
            let more = client.read_buf(&mut seen.bytes);
            match tokio::time::timeout_at(deadline, more).await {
                Ok(Ok(1..)) => {}
                // It waits for the server to speak first, or has said all that it will.
                Ok(Ok(0)) | Err(_) => return Ok(seen),
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Decides on a connection or a request.
    pub(crate) fn judge(&self, flow: &Flow, name: Option<&str>, is_encrypted: bool) -> Verdict {
        if !self.gate.is_public(*flow.to.ip()) {
            return Verdict::Deny("the address is not public".to_owned());
        }
        let verdict = flow.policy.decide(*flow.to.ip(), name);
        if verdict == Verdict::AllowName && is_encrypted && !flow.policy.allows_any_name() {
            return Verdict::Deny("an encrypted client hello hides the name".to_owned());
        }
        verdict
    }

    /// Tells of a refused connection.
    pub(crate) fn refuse(&self, flow: &Flow, name: Option<&str>, rule: &str) {
        let to = flow.to;
        let what = match name {
            Some(name) => format!("tcp {to} for {name}: {rule}"),
            None => format!("tcp {to}: {rule}"),
        };
        self.refusals.tell(flow.peer, &what);
    }

    /// Connects to an address that our resolver gives for a name: the one that the sandbox
    /// chose if it is among them. Through a proxy an allowed name goes as it is.
    pub(crate) async fn dial_name(&self, flow: &Flow, name: &str) -> io::Result<Wire> {
        if let Some(proxy) = flow.policy.proxy()
            && flow.policy.allows_name(name)
        {
            let target = Target::Name(name, flow.to.port());
            return self.tunnel(flow, proxy, target).await;
        }
        let found = self.resolver.addresses(name).await;
        let found = found.map_err(|error| {
            self.refuse(flow, Some(name), &format!("its address: {}", Chain(&error)));
            io::Error::other(error)
        })?;
        let chosen = *flow.to.ip();
        let mut addresses: Vec<_> = found
            .iter()
            .copied()
            .filter(|address| self.gate.is_public(*address))
            .filter(|address| !matches!(flow.policy.decide(*address, Some(name)), Verdict::Deny(_)))
            .collect();
        addresses.sort_by_key(|address| *address != chosen);
        if addresses.is_empty() {
            self.refuse(flow, Some(name), "its addresses are not public");
        }
        let mut last = io::Error::from(io::ErrorKind::PermissionDenied);
        for address in addresses.into_iter().take(ATTEMPTS) {
            let to = SocketAddrV4::new(address, flow.to.port());
            match self.dial_address(flow, to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Connects to an address.
    async fn dial_address(&self, flow: &Flow, to: SocketAddrV4) -> io::Result<Wire> {
        if let Some(proxy) = flow.policy.proxy() {
            return self.tunnel(flow, proxy, Target::Address(to)).await;
        }
        let stream = tokio::time::timeout(self.limits.dial, self.gate.connect(to)).await??;
        prepare(&stream)?;
        Ok(Box::new(stream))
    }
}

pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE / 2)
        .with_retries(4);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
pub(crate) mod tests;
