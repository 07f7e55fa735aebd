//! The way out through a proxy that the sandbox's owner named. There is no other way then.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;
use tokio_socks::{IntoTargetAddr, TargetAddr};
use warren_service::Chain;
use warren_types::EgressProxy;

use crate::Broker;
use crate::broker::{ATTEMPTS, Flow, prepare};

/// A connection to wherever: direct, or within others.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The same, whatever it is made of.
pub(crate) type Wire = Box<dyn Stream>;

/// Where the proxy is to connect to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target<'a> {
    /// A name, which the proxy resolves.
    Name(&'a str, u16),
    /// An address.
    Address(SocketAddrV4),
}

impl<'a> IntoTargetAddr<'a> for Target<'a> {
    fn into_target_addr(self) -> tokio_socks::Result<TargetAddr<'a>> {
        match self {
            Self::Name(name, port) => (name, port).into_target_addr(),
            Self::Address(address) => std::net::SocketAddr::V4(address).into_target_addr(),
        }
    }
}

impl Broker {
    /// Connects through a proxy. A failure is told in the sandbox's log.
    pub(crate) async fn tunnel(
        &self,
        flow: &Flow,
        proxy: &EgressProxy,
        target: Target<'_>,
    ) -> io::Result<Wire> {
        let dialled = tokio::time::timeout(self.limits.dial, self.try_tunnel(flow, proxy, target));
        let result = dialled
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        result.inspect_err(|error| {
            let name = match target {
                Target::Name(name, _) => Some(name),
                Target::Address(_) => None,
            };
            self.refuse(flow, name, &format!("the egress proxy: {}", Chain(error)));
        })
    }

    async fn try_tunnel(
        &self,
        flow: &Flow,
        proxy: &EgressProxy,
        target: Target<'_>,
    ) -> io::Result<Wire> {
        let password = match &proxy.sealed_password {
            Some(sealed) => {
                let owner = &flow.policy.rules().owner;
                let opened = self.vault.proxy_password(owner, sealed).await;
                Some(opened.map_err(io::Error::other)?)
            }
            None => None,
        };
        let stream = self.reach_proxy(proxy).await?;
        let stream: Wire = match &proxy.tls {
            None => Box::new(stream),
            Some(tls) => {
                let name = tls.server_name.as_deref().unwrap_or(&proxy.host);
                let connected = self
                    .trust
                    .connect_proxy(name, tls.ca_cert.as_deref(), stream);
                Box::new(connected.await?)
            }
        };
        let connected = match &proxy.username {
            None => Socks5Stream::connect_with_socket(stream, target).await,
            Some(name) => {
                let password = password.as_ref().map_or("", |password| password.expose());
                Socks5Stream::connect_with_password_and_socket(stream, target, name, password).await
            }
        };
        Ok(Box::new(connected.map_err(io::Error::other)?))
    }

    /// Connects to the proxy itself, at an address that sandboxes could reach.
    async fn reach_proxy(&self, proxy: &EgressProxy) -> io::Result<TcpStream> {
        let addresses = match proxy.host.parse::<Ipv4Addr>() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = self.resolver.addresses(&proxy.host).await;
                found.map_err(io::Error::other)?.to_vec()
            }
        };
        let mut last = io::Error::other("its address is not public");
        let public = addresses.into_iter().filter(|ip| self.gate.is_public(*ip));
        for address in public.take(ATTEMPTS) {
            match self
                .gate
                .connect(SocketAddrV4::new(address, proxy.port))
                .await
            {
                Ok(stream) => {
                    prepare(&stream)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}
