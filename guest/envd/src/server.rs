//! Connections and routes.

use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN,
};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::Agent;
use crate::auth;
use crate::call::{client_stream, server_stream, unary};
use crate::log::Level;
use crate::query::Query;
use crate::reply::{self, Body, RestError};
use crate::signature::Operation;
use crate::{files, filesystem, init, process};

/// How long an idle connection is kept: longer than the proxy in front keeps it.
const IDLE: Duration = Duration::from_secs(640);
/// Read buffer of a connection at its largest.
const MAX_BUFFER: usize = 256 << 10;
/// Pause after a failed accept, which a lack of descriptors causes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Accepts connections until the agent stops.
pub(crate) async fn serve(agent: Arc<Agent>, listener: TcpListener) {
    let stop = agent.tasks.stop_token().clone();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                agent.tasks.spawn(connection(Arc::clone(&agent), stream));
            }
            Err(e) => {
                let why = e.to_string();
                let fields = [("error", why.as_str())];
                agent
                    .log
                    .write(Level::Warn, "server", "accept failed", &fields);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(agent: Arc<Agent>, stream: TcpStream) {
    // Small answers must not wait for an acknowledgement; a dead socket fails later anyway.
    let _ = stream.set_nodelay(true);
    let stop = agent.tasks.stop_token().clone();
    let service = service_fn(move |request| {
        let agent = Arc::clone(&agent);
        async move { Ok::<_, Infallible>(handle(&agent, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Errors are the client's: it left, or spoke no HTTP.
        _ = connection => {}
        () = stop.cancelled() => {}
    }
}

async fn handle(agent: &Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    let headers = request.headers();
    let preflight = request.method() == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        preflight_response(headers.get(ACCESS_CONTROL_REQUEST_HEADERS))
    } else {
        let allowed = auth::check_token(agent, request.method(), request.uri().path(), headers);
        match allowed {
            Ok(()) => route(agent, request).await,
            Err(error) => error.into_response(),
        }
    };
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static(
            "Grpc-Status, Grpc-Message, Grpc-Status-Details-Bin, Location, Cache-Control, X-Content-Type-Options",
        ),
    );
    response
}

fn preflight_response(requested: Option<&HeaderValue>) -> Response<Body> {
    let mut response = reply::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("HEAD, GET, POST, PUT, PATCH, DELETE"),
    );
    // The wildcard does not cover `Authorization`, so what was asked for is repeated.
    let any = HeaderValue::from_static("*");
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        requested.cloned().unwrap_or(any),
    );
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200"));
    response
}

async fn route(agent: &Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    if let Some(method) = path.strip_prefix("/process.Process/") {
        return process_call(agent, method, request).await;
    }
    if let Some(method) = path.strip_prefix("/filesystem.Filesystem/") {
        return filesystem_call(agent, method, request).await;
    }
    let method = request.method().clone();
    match (path.as_str(), method) {
        ("/health", Method::GET) => reply::no_store(reply::empty(StatusCode::NO_CONTENT)),
        ("/metrics", Method::GET) => match agent.meter.collect() {
            Ok(metrics) => reply::no_store(reply::json(StatusCode::OK, &metrics)),
            Err(e) => RestError::internal(format!("error collecting metrics: {e}")).into_response(),
        },
        ("/envs", Method::GET) => {
            let vars = agent.settings().env.merged();
            reply::no_store(reply::json(StatusCode::OK, &vars))
        }
        ("/files", Method::GET | Method::POST) => file_request(agent, request).await,
        ("/files/compose", Method::POST) => match files::compose(agent, request).await {
            Ok(composed) => reply::json(StatusCode::OK, &composed),
            Err(error) => error.into_response(),
        },
        ("/init", Method::POST) => init::init(agent, request).await,
        ("/health" | "/metrics" | "/envs" | "/files" | "/files/compose" | "/init", _) => {
            reply::empty(StatusCode::METHOD_NOT_ALLOWED)
        }
        _ => not_found(),
    }
}

fn not_found() -> Response<Body> {
    reply::text(StatusCode::NOT_FOUND, "404 page not found")
}

async fn file_request(agent: &Arc<Agent>, request: Request<Incoming>) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let expiration = match query.get("signature_expiration").map(str::parse::<i64>) {
        None => None,
        Some(Ok(seconds)) => Some(seconds),
        Some(Err(e)) => {
            let message = format!("Invalid format for parameter signature_expiration: {e}");
            return reply::text(StatusCode::BAD_REQUEST, &message);
        }
    };
    let operation = match *request.method() {
        Method::GET => Operation::Read,
        _ => Operation::Write,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let headers = request.headers();
    let allowed = auth::check_file_access(agent, headers, &query, operation, expiration, now);
    if let Err(error) = allowed {
        return error.into_response();
    }
    match operation {
        Operation::Read => files::download(agent, headers, &query)
            .await
            .unwrap_or_else(RestError::into_response),
        Operation::Write => files::upload(agent, request, &query).await,
    }
}

async fn process_call(
    agent: &Arc<Agent>,
    method: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    match method {
        "List" => unary(agent, request, process::list).await,
        "Connect" => server_stream(agent, request, process::connect).await,
        "Start" => server_stream(agent, request, process::start).await,
        "Update" => unary(agent, request, process::update).await,
        "StreamInput" => client_stream(agent, request, process::stream_input).await,
        "SendInput" => unary(agent, request, process::send_input).await,
        "SendSignal" => unary(agent, request, process::send_signal).await,
        "CloseStdin" => unary(agent, request, process::close_stdin).await,
        _ => not_found(),
    }
}

async fn filesystem_call(
    agent: &Arc<Agent>,
    method: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    match method {
        "Stat" => unary(agent, request, filesystem::stat).await,
        "MakeDir" => unary(agent, request, filesystem::make_dir).await,
        "Move" => unary(agent, request, filesystem::move_entry).await,
        "ListDir" => unary(agent, request, filesystem::list_dir).await,
        "Remove" => unary(agent, request, filesystem::remove).await,
        "WatchDir" => server_stream(agent, request, filesystem::watch_dir).await,
        "CreateWatcher" => unary(agent, request, filesystem::create_watcher).await,
        "GetWatcherEvents" => unary(agent, request, filesystem::get_watcher_events).await,
        "RemoveWatcher" => unary(agent, request, filesystem::remove_watcher).await,
        _ => not_found(),
    }
}

/// Binds the agent's port.
///
/// # Errors
/// The port is taken.
pub(crate) async fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((address, port)).await
}
