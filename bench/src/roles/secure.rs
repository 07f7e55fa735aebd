//! The backend and the client over TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use serde::{Deserialize, Serialize};
use tokio_rustls::TlsAcceptor;

use super::ANSWER;

/// Times in nanoseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Times {
    /// From the first byte of a connection to its first answer.
    pub(crate) first: Vec<u64>,
    /// Of the second request on a connection.
    pub(crate) second: Vec<u64>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What connections are accepted with.
pub(super) fn acceptor(certificate: &Path, key: &Path) -> anyhow::Result<TlsAcceptor> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Makes `count` connections and sends two requests on each, after a connection that is not
/// counted. No session is resumed.
pub(super) fn ask(name: &str, count: usize, roots: &Path, fresh: bool) -> anyhow::Result<Times> {
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(roots)? {
        // The system's store may hold some that this library does not take.
        trusted.add(certificate?).ok();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    let config = Arc::new(config);
    let run = std::process::id();
    let mut times = Times::default();
    for number in 0..=count {
        let name = if fresh {
            format!("n{number}-{run}.{name}")
        } else {
            name.to_owned()
        };
        // The name's resolution is not what is measured.
        let address = (name.as_str(), 443)
            .to_socket_addrs()?
            .find(SocketAddr::is_ipv4)
            .context("the name has no address")?;
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n");
        let begun = Instant::now();
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let session = ClientConnection::new(Arc::clone(&config), ServerName::try_from(name)?)?;
        let mut stream = StreamOwned::new(session, stream);
        let first = exchange(&mut stream, &request, begun)?;
        let second = exchange(&mut stream, &request, Instant::now())?;
        if number > 0 {
            times.first.push(nanos(first));
            times.second.push(nanos(second));
        }
    }
    Ok(times)
}

fn exchange(
    stream: &mut (impl Read + Write),
    request: &str,
    begun: Instant,
) -> anyhow::Result<Duration> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    let mut part = [0; 1024];
    while !answer.ends_with(ANSWER) {
        let length = stream.read(&mut part)?;
        let read = part.get(..length).filter(|read| !read.is_empty());
        answer.extend_from_slice(read.context("the connection ended")?);
        anyhow::ensure!(answer.len() < 8192, "not the backend's answer");
    }
    anyhow::ensure!(
        answer.starts_with(b"HTTP/1.1 200"),
        "not the backend's answer"
    );
    Ok(begun.elapsed())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
