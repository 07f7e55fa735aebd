//! The handshake with the in-sandbox agent. What it answers is not trusted: sizes are
//! capped, and every exchange has a time limit.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Serialize;
use warren_runtime::Dial;
use warren_service::Secret;
use warren_types::{BuildId, ENVD_PORT, SandboxId, TemplateId};

use crate::ledger::Entry;

/// An `/init` exchange that takes longer has failed: the agent listens already.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// An agent that does not answer a health check within this is silent.
const PATIENCE: Duration = Duration::from_secs(5);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest error text that is read from an agent.
const ANSWER_LIMIT: usize = 4096;

/// Failure to talk to an agent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("connect to the agent")]
    Connect(#[source] io::Error),
    #[error("exchange a request with the agent")]
    Exchange(#[source] hyper::Error),
    #[error("the agent refused with status {status}: {text}")]
    Refused { status: StatusCode, text: String },
    #[error("the agent did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("run a command: {0}")]
    Command(warren_connect::Error),
    #[error("the agent stopped telling of a command")]
    Cut,
}

/// Body of `/init`, as far as Warren uses it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Init<'a> {
    pub(crate) timestamp: Timestamp,
    /// Replaces those that the agent has; it keeps them if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env_vars: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) access_token: Option<&'a str>,
    /// Replaces the key that authorises to initialise it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init_key: Option<&'a str>,
    pub(crate) default_user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default_workdir: Option<&'a str>,
    #[serde(rename = "lifecycleID")]
    pub(crate) lifecycle_id: &'a str,
    #[serde(rename = "sandboxID")]
    pub(crate) sandbox_id: &'a SandboxId,
    #[serde(rename = "templateID")]
    pub(crate) template_id: &'a TemplateId,
    #[serde(rename = "buildID")]
    pub(crate) build_id: BuildId,
    pub(crate) events_address: &'a str,
    /// Certificates to trust; those of before stay if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_bundle: Option<&'a str>,
}

impl<'a> Init<'a> {
    /// The body for a run of a sandbox.
    pub(crate) fn of(
        entry: &'a Entry,
        env_vars: Option<&'a BTreeMap<String, String>>,
        lifecycle_id: &'a str,
        events_address: &'a str,
    ) -> Self {
        Self {
            timestamp: Timestamp::now(),
            env_vars,
            access_token: entry.access_token.as_ref().map(Secret::expose),
            init_key: None,
            default_user: &entry.image.default_user,
            default_workdir: entry.image.default_workdir.as_deref(),
            lifecycle_id,
            sandbox_id: &entry.id,
            template_id: &entry.image.template_id,
            build_id: entry.image.build_id,
            events_address,
            ca_bundle: entry
                .authority
                .as_ref()
                .map(|authority| authority.certificate.as_str()),
        }
    }
}

/// Initialises the agent behind `dial`. Whether it took a new key: one that goes on from an
/// older capture may know none.
pub(crate) async fn init(
    dial: &dyn Dial,
    init_key: &Secret,
    body: &Init<'_>,
) -> Result<bool, AgentError> {
    let body = serde_json::to_vec(body).expect("an init body is plain text and maps of text");
    let request = Request::post("/init")
        .header(CONTENT_TYPE, "application/json")
        .header("x-init-key", init_key.expose())
        .body(Full::new(Bytes::from(body)))
        .expect("the parts of the request are valid");
    let answer = within(INIT_TIMEOUT, exchange(dial, request)).await?;
    Ok(answer.contains_key("x-init-key-changed"))
}

/// Asks the agent whether it serves.
pub(crate) async fn health(dial: &dyn Dial) -> Result<(), AgentError> {
    let request = Request::get("/health")
        .body(Full::new(Bytes::new()))
        .expect("the parts of the request are valid");
    within(HEALTH_TIMEOUT, exchange(dial, request)).await?;
    Ok(())
}

/// The same, with patience: for when the answer decides over a sandbox's memory.
pub(crate) async fn responds(dial: &dyn Dial) -> Result<(), AgentError> {
    let request = Request::get("/health")
        .body(Full::new(Bytes::new()))
        .expect("the parts of the request are valid");
    within(PATIENCE, exchange(dial, request)).await?;
    Ok(())
}

async fn within<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, AgentError>>,
) -> Result<T, AgentError> {
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or(Err(AgentError::TimedOut(limit)))
}

/// The headers of a successful answer.
async fn exchange(dial: &dyn Dial, request: Request<Full<Bytes>>) -> Result<HeaderMap, AgentError> {
    converse(dial, request, async |response| {
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_parts().0.headers);
        }
        let text = String::from_utf8_lossy(&text(response).await).into_owned();
        Err(AgentError::Refused { status, text })
    })
    .await
}

/// The start of an answer's body; nothing if it can't be read.
pub(crate) async fn text(response: Response<Incoming>) -> Bytes {
    let body = Limited::new(response.into_body(), ANSWER_LIMIT);
    body.collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default()
}

/// Sends a request on a connection of its own and hands the answer over. The connection is
/// driven here rather than in a task, so that dropping the future closes it.
pub(crate) async fn converse<T>(
    dial: &dyn Dial,
    mut request: Request<Full<Bytes>>,
    answer: impl AsyncFnOnce(Response<Incoming>) -> Result<T, AgentError>,
) -> Result<T, AgentError> {
    let host = HeaderValue::from_static("localhost");
    request.headers_mut().insert(HOST, host);
    let stream = dial.dial(ENVD_PORT).await.map_err(AgentError::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(AgentError::Exchange)?;
    let conversation = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(AgentError::Exchange)?;
        answer(response).await
    };
    tokio::pin!(connection, conversation);
    tokio::select! {
        biased;
        answer = &mut conversation => answer,
        ended = &mut connection => match ended {
            Err(error) => Err(AgentError::Exchange(error)),
            Ok(()) => conversation.await,
        },
    }
}
