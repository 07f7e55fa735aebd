//! The connections to hosts that the requests of one client's connection are passed on over.

use std::io;

use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use tokio::sync::Mutex;
use warren_service::Chain;

use crate::Broker;
use crate::broker::Flow;
use crate::http::Executor;
use crate::tunnel::Wire;

/// Idle connections that are kept.
const KEPT: usize = 8;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How to send a request.
#[derive(Debug)]
pub(crate) enum Sender {
    /// On a connection that has no other meanwhile.
    One(http1::SendRequest<Incoming>),
    /// On one that has many at a time.
    Many(http2::SendRequest<Incoming>),
}

#[derive(Debug, Default)]
struct Kept {
    many: Option<http2::SendRequest<Incoming>>,
    /// Connections with the hosts that they are with.
    one: Vec<(String, http1::SendRequest<Incoming>)>,
    /// The host is known to speak HTTP/1 only.
    is_http1_only: bool,
}

/// The connections that are kept for further requests.
#[derive(Debug)]
pub(crate) struct Upstreams {
    is_tls: bool,
    is_http2: bool,
    kept: Mutex<Kept>,
}

impl Upstreams {
    /// `is_http2` is what the client speaks.
    pub(crate) fn new(is_tls: bool, is_http2: bool) -> Self {
        Self {
            is_tls,
            is_http2,
            kept: Mutex::default(),
        }
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2
    }

    /// A connection to a host, from before or new.
    pub(crate) async fn sender(
        &self,
        broker: &Broker,
        flow: &Flow,
        name: &str,
    ) -> io::Result<Sender> {
        let mut kept = self.kept.lock().await;
        if let Some(many) = kept.many.take_if(|many| many.is_closed()) {
            drop(many);
        }
        if let Some(many) = &kept.many {
            return Ok(Sender::Many(many.clone()));
        }
        kept.one.retain(|(_, one)| !one.is_closed());
        if self.is_http2 {
            let ready =
                |(host, one): &(String, http1::SendRequest<_>)| host == name && one.is_ready();
            if let Some(at) = kept.one.iter().position(ready) {
                return Ok(Sender::One(kept.one.swap_remove(at).1));
            }
            if !kept.is_http1_only {
                // Others wait: most likely they share it.
                let sender = self.connect(broker, flow, name).await?;
                match &sender {
                    Sender::Many(many) => kept.many = Some(many.clone()),
                    Sender::One(_) => kept.is_http1_only = true,
                }
                return Ok(sender);
            }
        } else if let Some((host, mut one)) = kept.one.pop()
            && host == name
            && one.ready().await.is_ok()
        {
            return Ok(Sender::One(one));
        }
        drop(kept);
        self.connect(broker, flow, name).await
    }

    /// Keeps a connection for the next request.
    pub(crate) async fn keep(&self, name: &str, sender: http1::SendRequest<Incoming>) {
        let mut kept = self.kept.lock().await;
        if kept.one.len() < KEPT {
            kept.one.push((name.to_owned(), sender));
        }
    }

    async fn connect(&self, broker: &Broker, flow: &Flow, name: &str) -> io::Result<Sender> {
        let stream = broker.dial_name(flow, name).await?;
        if !self.is_tls {
            return over_http1(broker, stream).await;
        }
        let handshake = broker.trust.connect(name, stream, self.is_http2);
        let connected = tokio::time::timeout(broker.limits.dial, handshake).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.inspect_err(|error| {
            let why = format!("TLS with the host: {}", Chain(error));
            broker.refuse(flow, Some(name), &why);
        })?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        if is_http2 {
            over_http2(broker, Box::new(stream)).await
        } else {
            over_http1(broker, Box::new(stream)).await
        }
    }
}

async fn over_http1(broker: &Broker, stream: Wire) -> io::Result<Sender> {
    let (sender, connection) = http1::Builder::new()
        .preserve_header_case(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // The exchange sees how it ends.
    broker.tasks.spawn_until_stopped(connection.with_upgrades());
    Ok(Sender::One(sender))
}

async fn over_http2(broker: &Broker, stream: Wire) -> io::Result<Sender> {
    let (sender, connection) = http2::Builder::new(Executor(broker.tasks.clone()))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    broker.tasks.spawn_until_stopped(connection);
    Ok(Sender::Many(sender))
}
