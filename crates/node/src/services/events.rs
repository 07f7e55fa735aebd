//! The events service: `GET /me` tells a sandbox its own id, found by its address, and
//! `GET /me/memory` how often the kernel killed one of its processes for lack of memory.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use warren_service::Tasks;
use warren_types::SandboxId;

/// Connections of all sandboxes at a time; more are closed at once.
const CONNECTIONS: usize = 256;
/// A client that has not sent its request by then is cut.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

type WhoIs = dyn Fn(IpAddr) -> Option<SandboxId> + Send + Sync;
type OomKills = dyn Fn(IpAddr) -> Option<u64> + Send + Sync;

/// The service.
#[derive(Clone)]
pub struct Events {
    who_is: Arc<WhoIs>,
    oom_kills: Arc<OomKills>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    /// Makes the service; `who_is` tells the sandbox behind an address, and `oom_kills` its
    /// counter, also of one that belongs to nobody yet.
    pub fn new(
        who_is: impl Fn(IpAddr) -> Option<SandboxId> + Send + Sync + 'static,
        oom_kills: impl Fn(IpAddr) -> Option<u64> + Send + Sync + 'static,
    ) -> Self {
        Self {
            who_is: Arc::new(who_is),
            oom_kills: Arc::new(oom_kills),
        }
    }

    /// Serves until the tasks are stopped.
    pub async fn serve(self, listener: TcpListener, tasks: Tasks) {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = tasks.stop_token().cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                continue;
            };
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                continue;
            };
            let service = self.clone();
            tasks.spawn(async move {
                let _permit = permit;
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    // Who has nothing more to say still waits for the answer.
                    .half_close(true)
                    .serve_connection(
                        TokioIo::new(stream),
                        service_fn(move |request| {
                            let answer = service.answer(peer, &request);
                            async { Ok::<_, Infallible>(answer) }
                        }),
                    );
                tokio::time::timeout(CONNECTION_TIMEOUT, connection)
                    .await
                    .ok();
            });
        }
    }

    fn answer(&self, peer: SocketAddr, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let found = match (request.method(), request.uri().path()) {
            (&Method::GET, "/me") => (self.who_is)(peer.ip())
                .map(|id| serde_json::json!({ "sandboxID": id }))
                .ok_or("no sandbox has this address"),
            (&Method::GET, "/me/memory") => (self.oom_kills)(peer.ip())
                .map(|kills| serde_json::json!({ "oomKills": kills }))
                .ok_or("no sandbox has this address"),
            _ => Err("not found"),
        };
        let (status, body) = match found {
            Ok(body) => (StatusCode::OK, body),
            Err(message) => (StatusCode::NOT_FOUND, error(404, message)),
        };
        let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
        *response.status_mut() = status;
        response.headers_mut().insert(
            hyper::header::CONTENT_TYPE,
            hyper::header::HeaderValue::from_static("application/json"),
        );
        response
    }
}

fn error(code: u16, message: &str) -> serde_json::Value {
    serde_json::json!({ "code": code, "message": message })
}
