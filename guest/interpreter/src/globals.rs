//! The sandbox's variables, which its agent knows.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use warren_service::Tasks;

use crate::language::{Vars, is_valid};

/// How long the agent may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer in bytes.
const MAX_BODY: usize = 16 << 20;
/// Header that authorises requests to the agent.
pub(crate) const ACCESS_TOKEN: &str = "x-access-token";

/// The agent did not tell the variables.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GlobalsError {
    /// No connection.
    #[error("connect to the agent")]
    Connect(#[source] std::io::Error),
    /// The exchange failed.
    #[error("ask the agent")]
    Exchange(#[source] hyper::Error),
    /// The answer is too long or was cut.
    #[error("read the agent's answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refused.
    #[error("the agent answered {0}")]
    Status(StatusCode),
    /// The answer is something else.
    #[error("the agent's answer")]
    Json(#[source] serde_json::Error),
    /// It took too long.
    #[error("the agent did not answer in time")]
    Late,
}

/// Asks the agent at `address` for the sandbox's variables.
///
/// # Errors
/// The agent can't be asked or refuses.
pub(crate) async fn fetch(
    address: &str,
    token: Option<&HeaderValue>,
    tasks: &Tasks,
) -> Result<Vars, GlobalsError> {
    let exchange = exchange(address, token, tasks);
    let mut vars = timeout(LIMIT, exchange)
        .await
        .map_err(|_| GlobalsError::Late)??;
    vars.retain(|name, value| is_valid(name, value));
    Ok(vars)
}

async fn exchange(
    address: &str,
    token: Option<&HeaderValue>,
    tasks: &Tasks,
) -> Result<Vars, GlobalsError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(GlobalsError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(GlobalsError::Exchange)?;
    tasks.spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static("/envs");
    let headers = request.headers_mut();
    headers.insert(header::HOST, HeaderValue::from_static("localhost"));
    if let Some(token) = token {
        headers.insert(ACCESS_TOKEN, token.clone());
    }
    let response = sender
        .send_request(request)
        .await
        .map_err(GlobalsError::Exchange)?;
    if response.status() != StatusCode::OK {
        return Err(GlobalsError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_BODY).collect();
    let body = body.await.map_err(GlobalsError::Body)?.to_bytes();
    serde_json::from_slice(&body).map_err(GlobalsError::Json)
}
