//! Connections, routes and the stream of a cell.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    CONTENT_TYPE, HeaderValue, ORIGIN,
};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use warren_service::{Chain, Tasks};

use crate::context::Cell;
use crate::fetch::ACCESS_TOKEN;
use crate::language::{Vars, is_valid};
use crate::line::Line;
use crate::log;
use crate::registry::{ContextError, CreateError, Registry, is_usable_cwd};

/// How long an idle connection is kept: longer than the proxy in front keeps it.
const IDLE: Duration = Duration::from_secs(640);
/// Pause after a failed accept, which a lack of descriptors causes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Longest request body in bytes.
const MAX_BODY: usize = 64 << 20;
/// Silence after which a line is sent that makes a vanished client visible.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Lines of a cell that wait for a slow client.
const LINES: usize = 4;
/// Languages whose default contexts exist from the start.
pub(crate) const DEFAULTS: [&str; 2] = ["python", "javascript"];
/// Language of requests that name none.
pub(crate) const DEFAULT_LANGUAGE: &str = "python";
/// How long a health check waits for kernels that start.
const HEALTH_WAIT: Duration = Duration::from_secs(5);
/// Pause between looks of a waiting health check.
const HEALTH_LOOK: Duration = Duration::from_millis(20);

type ReplyBody = Either<Full<Bytes>, Lines>;

/// Accepts connections until the server stops.
pub(crate) async fn serve(registry: Arc<Registry>, tasks: Tasks, listener: TcpListener) {
    let stop = tasks.stop_token().clone();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(connection(Arc::clone(&registry), stream));
            }
            Err(error) => {
                log::warn("accept", &error);
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(registry: Arc<Registry>, stream: TcpStream) {
    // Small answers must not wait for an acknowledgement; a dead socket fails later anyway.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let registry = Arc::clone(&registry);
        async move { Ok::<_, Infallible>(handle(&registry, request).await) }
    });
    // Errors are the client's: it left, or spoke no HTTP.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A refusal: its status and its text.
struct Refusal(StatusCode, String);

impl Refusal {
    fn bad_request(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, Chain(&error).to_string())
    }
}

impl From<ContextError> for Refusal {
    fn from(error: ContextError) -> Self {
        let status = match error {
            ContextError::Unknown => StatusCode::NOT_FOUND,
            ContextError::NoVariables(_) => StatusCode::BAD_REQUEST,
            ContextError::Start(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, Chain(&error).to_string())
    }
}

async fn handle(registry: &Arc<Registry>, request: Request<Incoming>) -> Response<ReplyBody> {
    let headers = request.headers();
    let is_preflight = request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if is_preflight {
        preflight(headers.get(ACCESS_CONTROL_REQUEST_HEADERS))
    } else {
        route(registry, request)
            .await
            .unwrap_or_else(|Refusal(status, message)| text(status, message))
    };
    let any = HeaderValue::from_static("*");
    response
        .headers_mut()
        .insert(ACCESS_CONTROL_ALLOW_ORIGIN, any);
    response
}

fn preflight(requested: Option<&HeaderValue>) -> Response<ReplyBody> {
    let mut response = text(StatusCode::OK, "OK".to_owned());
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
    );
    // The wildcard does not cover `Authorization`, so what was asked for is repeated.
    let any = HeaderValue::from_static("*");
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        requested.cloned().unwrap_or(any),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

async fn route(
    registry: &Arc<Registry>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Refusal> {
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let context = path
        .strip_prefix("/contexts/")
        .and_then(|rest| match rest.split_once('/') {
            None => Some((rest, "")),
            Some((id, "restart")) => Some((id, "restart")),
            Some(_) => None,
        });
    match (path.as_str(), &method, context) {
        ("/health", &Method::GET, _) => health(registry).await,
        ("/execute", &Method::POST, _) => execute(registry, request).await,
        ("/contexts", &Method::GET, _) => Ok(json(&registry.list())),
        ("/contexts", &Method::POST, _) => create(registry, request).await,
        (_, &Method::POST, Some((id, "restart"))) => {
            registry.restart(id).await?;
            Ok(json(&()))
        }
        (_, &Method::DELETE, Some((id, ""))) => {
            registry.remove(id).await?;
            Ok(json(&()))
        }
        ("/health" | "/execute" | "/contexts", _, _) | (_, _, Some(_)) => {
            let message = "Method Not Allowed".to_owned();
            Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, message))
        }
        _ => Err(Refusal(StatusCode::NOT_FOUND, "Not Found".to_owned())),
    }
}

/// Ready once the default contexts are; waits a while for them.
async fn health(registry: &Registry) -> Result<Response<ReplyBody>, Refusal> {
    let deadline = Instant::now() + HEALTH_WAIT;
    loop {
        let mut missing = None;
        for language in DEFAULTS {
            let is_expected = language == DEFAULT_LANGUAGE || registry.is_installed(language);
            if is_expected && !registry.has_default(language) {
                missing = Some(language);
            }
        }
        let Some(language) = missing else {
            return Ok(json(&"OK"));
        };
        if Instant::now() >= deadline {
            let message = format!("the default {language} context is not ready");
            return Err(Refusal(StatusCode::SERVICE_UNAVAILABLE, message));
        }
        sleep(HEALTH_LOOK).await;
    }
}

#[derive(Deserialize)]
struct Execute {
    code: String,
    #[serde(default)]
    context_id: Option<String>,
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    env_vars: Option<BTreeMap<String, String>>,
}

async fn execute(
    registry: &Registry,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Refusal> {
    let token = request.headers().get(ACCESS_TOKEN).cloned();
    let body: Execute = read(request).await?;
    let env: Vars = body.env_vars.unwrap_or_default();
    if let Some((name, _)) = env.iter().find(|(name, value)| !is_valid(name, value)) {
        let message = format!("Environment variable {name:?} can't be set");
        return Err(Refusal::bad_request(message));
    }
    let id = match (body.context_id, body.language) {
        (Some(_), Some(_)) => {
            let message = "Only one of context_id or language can be provided";
            return Err(Refusal::bad_request(message));
        }
        (Some(id), None) => id,
        (None, language) => {
            let language = language.as_deref().unwrap_or(DEFAULT_LANGUAGE);
            registry.default_of(language).await?
        }
    };
    let (lines, received) = mpsc::channel(LINES);
    let cell = Cell {
        code: body.code,
        env,
        token,
        lines,
    };
    registry.execute(&id, cell).await?;
    let body = Lines {
        received,
        silence: Box::pin(sleep(KEEPALIVE)),
    };
    let mut response = Response::new(Either::Right(body));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    Ok(response)
}

#[derive(Deserialize)]
struct Create {
    #[serde(default)]
    language: Option<String>,
    #[serde(default)]
    cwd: Option<String>,
}

async fn create(
    registry: &Registry,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Refusal> {
    let body: Create = read(request).await?;
    let language = body.language.as_deref().unwrap_or(DEFAULT_LANGUAGE);
    let cwd = body.cwd.as_deref().unwrap_or(registry.home());
    if !is_usable_cwd(cwd) {
        return Err(Refusal::bad_request(format!(
            "cwd {cwd:?} is not an absolute path"
        )));
    }
    let info = registry.create(language, cwd).await?;
    Ok(json(&info))
}

async fn read<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let bytes = body.await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let message = format!("The request is longer than {MAX_BODY} bytes");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, message)
        } else {
            Refusal::bad_request("The request was cut")
        }
    })?;
    serde_json::from_slice(&bytes.to_bytes())
        .map_err(|error| Refusal(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
}

/// The lines of a cell as a body. Its drop tells the cell that nobody reads any more.
struct Lines {
    received: mpsc::Receiver<Bytes>,
    silence: Pin<Box<Sleep>>,
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = match self.received.poll_recv(cx) {
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(line)) => line,
            Poll::Pending => match self.silence.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => Line::Keepalive.encode(),
            },
        };
        self.silence.as_mut().reset(Instant::now() + KEEPALIVE);
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}

fn json(value: &impl Serialize) -> Response<ReplyBody> {
    // Strings under string keys: writing them does not fail.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Either::Left(Full::new(bytes.into())));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn text(status: StatusCode, message: String) -> Response<ReplyBody> {
    let mut response = Response::new(Either::Left(Full::new(message.into())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// Binds the server's port.
///
/// # Errors
/// It is taken.
pub(crate) async fn bind(address: &str) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
