//! Questions to services around the interpreter: the sandbox's agent and its host.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use warren_service::Tasks;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer in bytes.
const MAX_BODY: usize = 16 << 20;
/// Header that authorises requests to the agent.
pub(crate) const ACCESS_TOKEN: &str = "x-access-token";

/// A question that was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// No connection.
    #[error("connect")]
    Connect(#[source] std::io::Error),
    /// The exchange failed.
    #[error("ask")]
    Exchange(#[source] hyper::Error),
    /// The answer is too long or was cut.
    #[error("read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It was refused.
    #[error("answered with status {0}")]
    Status(StatusCode),
    /// The answer is something else.
    #[error("understand the answer")]
    Json(#[source] serde_json::Error),
    /// It took too long.
    #[error("not answered in time")]
    Late,
}

/// Asks the service at `address` for what is at `path`.
///
/// # Errors
/// It can't be asked or refuses, or its answer is no `T`.
pub(crate) async fn get<T: DeserializeOwned>(
    address: &str,
    path: &'static str,
    token: Option<&HeaderValue>,
    tasks: &Tasks,
) -> Result<T, FetchError> {
    let exchange = exchange(address, path, token, tasks);
    let body = timeout(LIMIT, exchange)
        .await
        .map_err(|_| FetchError::Late)??;
    serde_json::from_slice(&body).map_err(FetchError::Json)
}

async fn exchange(
    address: &str,
    path: &'static str,
    token: Option<&HeaderValue>,
    tasks: &Tasks,
) -> Result<Bytes, FetchError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(FetchError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Exchange)?;
    tasks.spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    if let Some(token) = token {
        headers.insert(ACCESS_TOKEN, token.clone());
    }
    let response = sender
        .send_request(request)
        .await
        .map_err(FetchError::Exchange)?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BODY).collect();
    Ok(body.await.map_err(FetchError::Body)?.to_bytes())
}
