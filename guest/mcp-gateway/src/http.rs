//! The gateway over HTTP: one address, `/mcp`, behind a token. Every request has its whole
//! answer in its own response; there are no sessions and nothing is sent unasked.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use warren_service::{Secret, Tasks};

use crate::gateway::Gateway;
use crate::rpc::{Answer, Message};

const PATH: &str = "/mcp";
/// Longest message of a client.
const MAX_BODY: usize = 16 << 20;
/// Messages in one request.
const MAX_BATCH: usize = 100;
/// What JSON-RPC calls text that is no JSON.
const PARSE_ERROR: i32 = -32700;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Serves connections for ever.
pub async fn serve(listener: TcpListener, gateway: Arc<Gateway>, token: Arc<Secret>, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (gateway, token) = (Arc::clone(&gateway), Arc::clone(&token));
                tasks.spawn(connection(stream, gateway, token));
            }
            // A lack of descriptors does not pass at once.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn connection(stream: TcpStream, gateway: Arc<Gateway>, token: Arc<Secret>) {
    let service = service_fn(move |request| {
        let (gateway, token) = (Arc::clone(&gateway), Arc::clone(&token));
        async move { Ok::<_, Infallible>(answer(request, &gateway, &token).await) }
    });
    // A client that goes away is no failure of ours.
    let _ended = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    gateway: &Gateway,
    token: &Secret,
) -> Response<Full<Bytes>> {
    if request.uri().path().trim_end_matches('/') != PATH {
        return text(StatusCode::NOT_FOUND, "the servers are at /mcp\n");
    }
    if !is_authorized(&request, token) {
        let words = "send the gateway's token: Authorization: Bearer TOKEN\n";
        let mut response = text(StatusCode::UNAUTHORIZED, words);
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        return response;
    }
    if request.method() != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "messages are posted\n");
        let post = HeaderValue::from_static("POST");
        response.headers_mut().insert(ALLOW, post);
        return response;
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the message is too large\n");
    };
    messages(&body.to_bytes(), gateway).await
}

async fn messages(body: &[u8], gateway: &Gateway) -> Response<Full<Bytes>> {
    // A list would be read as one message with its elements for fields.
    let is_batch = body.trim_ascii_start().starts_with(b"[");
    if !is_batch && let Ok(message) = serde_json::from_slice::<Message>(body) {
        return match gateway.take(message).await {
            Some(reply) => json(StatusCode::OK, reply),
            None => accepted(),
        };
    }
    let Ok(batch) = serde_json::from_slice::<Vec<Message>>(body) else {
        let answer = Answer::error(PARSE_ERROR, "not a message of JSON-RPC");
        let reply = answer.into_text(&serde_json::Value::Null);
        return json(StatusCode::BAD_REQUEST, reply);
    };
    if batch.is_empty() || batch.len() > MAX_BATCH {
        return text(StatusCode::BAD_REQUEST, "an odd number of messages\n");
    }
    let replies = join_all(batch.into_iter().map(|message| gateway.take(message))).await;
    let replies: Vec<_> = replies.into_iter().flatten().collect();
    if replies.is_empty() {
        return accepted();
    }
    let replies = replies.join(&b',');
    json(StatusCode::OK, [&b"["[..], &replies, b"]"].concat())
}

fn is_authorized<B>(request: &Request<B>, token: &Secret) -> bool {
    let shown = request.headers().get(AUTHORIZATION);
    let shown = shown.and_then(|value| value.to_str().ok());
    match shown.and_then(|value| value.split_once(' ')) {
        Some((scheme, shown)) => scheme.eq_ignore_ascii_case("bearer") && token.matches(shown),
        None => false,
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

fn accepted() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}

fn text(status: StatusCode, words: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(words.into()));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
