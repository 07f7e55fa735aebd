//! Connecting to a service inside a sandbox.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

use crate::source::Dial;
use crate::stream::Stream;

/// Pauses between attempts: they bridge a service that is just starting.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(400),
];
/// All attempts and the TLS handshake together.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(20);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("the sandbox is gone")]
    Gone,
    #[error("nothing accepts connections on port {port}")]
    Closed {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("no connection to port {port} in {} s", TOTAL_TIMEOUT.as_secs())]
    TimedOut { port: u16 },
    #[error("no TLS session with port {port}")]
    Tls {
        port: u16,
        #[source]
        source: io::Error,
    },
}

/// Connects to `port`, retrying a few times, and speaks TLS there if `tls` is given.
pub(crate) async fn connect(
    dial: &dyn Dial,
    port: u16,
    tls: Option<(&Arc<rustls::ClientConfig>, &str)>,
) -> Result<Stream, ConnectError> {
    let deadline = Instant::now() + TOTAL_TIMEOUT;
    let attempts = async {
        let tcp = dial_with_retries(dial, port).await?;
        let Some((config, host)) = tls else {
            return Ok(Stream::Plain(tcp));
        };
        let session = TlsConnector::from(Arc::clone(config)).connect(server_name(host), tcp);
        match session.await {
            Ok(session) => Ok(Stream::Tls(Box::new(session.into()))),
            Err(source) => Err(ConnectError::Tls { port, source }),
        }
    };
    match timeout_at(deadline, attempts).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::TimedOut { port }),
    }
}

async fn dial_with_retries(dial: &dyn Dial, port: u16) -> Result<TcpStream, ConnectError> {
    let mut pauses = PAUSES.iter();
    loop {
        let source = match dial.dial(port).await.and_then(configured) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ConnectError::Gone);
            }
            Err(error) => error,
        };
        match pauses.next() {
            Some(pause) => sleep(*pause).await,
            None => return Err(ConnectError::Closed { port, source }),
        }
    }
}

fn configured(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// The name for SNI. The certificate is not verified, so any well-formed name does.
fn server_name(host: &str) -> ServerName<'static> {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    ServerName::try_from(name.to_owned())
        .unwrap_or_else(|_| ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into()))
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Fails in the given way until the attempt `ready`, then connects to a listener.
    #[derive(Debug)]
    struct Starting {
        kind: io::ErrorKind,
        ready: usize,
        attempts: AtomicUsize,
        listener: tokio::net::TcpListener,
    }

    impl Dial for Starting {
        fn dial(
            &self,
            _port: u16,
        ) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>> {
            Box::pin(async move {
                let attempt = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
                if attempt < self.ready {
                    return Err(self.kind.into());
                }
                TcpStream::connect(self.listener.local_addr()?).await
            })
        }
    }

    async fn starting(kind: io::ErrorKind, ready: usize) -> Starting {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Starting {
            kind,
            ready,
            attempts: AtomicUsize::new(0),
            listener,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_just_starts_is_reached() {
        let dial = starting(io::ErrorKind::ConnectionRefused, 5).await;
        assert!(connect(&dial, 80, None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_port_is_given_up_after_five_attempts() {
        let dial = starting(io::ErrorKind::ConnectionRefused, usize::MAX).await;
        let result = connect(&dial, 80, None).await;
        assert!(
            matches!(result, Err(ConnectError::Closed { port: 80, .. })),
            "{result:?}"
        );
        assert_eq!(dial.attempts.load(Ordering::SeqCst), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_that_is_gone_is_not_asked_twice() {
        let dial = starting(io::ErrorKind::NotFound, usize::MAX).await;
        assert!(matches!(
            connect(&dial, 80, None).await,
            Err(ConnectError::Gone)
        ));
        assert_eq!(dial.attempts.load(Ordering::SeqCst), 1);
    }
}
