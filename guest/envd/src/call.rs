//! Runs RPC handlers: codecs, users, limits and the shapes of answers.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt};
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::Instant;
use warren_connect::{
    Code, Codec, ContentType, EnvelopeDecoder, Error, FLAG_COMPRESSED, FLAG_END_STREAM, Kind,
    Message, TIMEOUT_HEADER, encode_end, encode_message, parse_timeout,
};

use crate::agent::Agent;
use crate::auth::{self, header};
use crate::reply::{self, Body};
use crate::users::User;

/// Largest request message in bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// Silence before a keep-alive when the client does not say.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(90);
/// Longest silence that a client may ask for.
const MAX_KEEPALIVE_SECS: u64 = 24 * 3600;

/// A call in progress.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Shared state.
    pub agent: Arc<Agent>,
    /// On whose behalf.
    pub user: User,
    /// When the caller stops waiting.
    pub deadline: Option<Instant>,
    /// Silence before a keep-alive.
    pub keepalive: Duration,
}

/// What a server stream sends.
pub(crate) type Events<M> = BoxStream<'static, Result<M, Error>>;

/// The error of a call that took too long.
#[must_use]
pub(crate) fn deadline_exceeded() -> Error {
    Error::new(Code::DeadlineExceeded, "context deadline exceeded")
}

impl Call {
    fn new(agent: &Arc<Agent>, headers: &HeaderMap) -> Result<Self, Error> {
        let user = auth::rpc_user(agent, headers)?;
        let deadline = match headers.get(TIMEOUT_HEADER) {
            Some(value) => Some(Instant::now() + parse_timeout(value.as_bytes())?),
            None => None,
        };
        Ok(Self {
            agent: Arc::clone(agent),
            user,
            deadline,
            keepalive: keepalive(headers),
        })
    }
}

fn keepalive(headers: &HeaderMap) -> Duration {
    let seconds = header(headers, "keepalive-ping-interval").and_then(|v| v.trim().parse().ok());
    match seconds {
        Some(seconds @ 1..) => Duration::from_secs(u64::min(seconds, MAX_KEEPALIVE_SECS)),
        _ => DEFAULT_KEEPALIVE,
    }
}

/// Checks method and media type; the error is the answer.
fn negotiate(request: &Request<Incoming>, kind: Kind) -> Result<Codec, Box<Response<Body>>> {
    if request.method() != Method::POST {
        let mut response = reply::empty(StatusCode::METHOD_NOT_ALLOWED);
        let headers = response.headers_mut();
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
        return Err(Box::new(response));
    }
    let content_type =
        header(request.headers(), CONTENT_TYPE.as_str()).and_then(ContentType::parse);
    match content_type {
        Some(found) if found.kind == kind => Ok(found.codec),
        _ => {
            let mut response = reply::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE);
            response.headers_mut().insert(
                HeaderName::from_static("accept-post"),
                HeaderValue::from_static(ContentType::accept_post(kind)),
            );
            Err(Box::new(response))
        }
    }
}

/// Serves a unary call.
pub(crate) async fn unary<Req, Res, F>(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
    handler: impl FnOnce(Call, Req) -> F,
) -> Response<Body>
where
    Req: Message,
    Res: Message,
    F: Future<Output = Result<Res, Error>>,
{
    let codec = match negotiate(&request, Kind::Unary) {
        Ok(codec) => codec,
        Err(response) => return *response,
    };
    let (parts, body) = request.into_parts();
    let result = async {
        let call = Call::new(agent, &parts.headers)?;
        refuse_encoding(&parts.headers, "content-encoding")?;
        let deadline = call.deadline;
        let work = async {
            let bytes = read_whole(body).await?;
            handler(call, codec.decode(&bytes)?).await
        };
        let message = until(deadline, work).await?;
        codec.encode(&message)
    }
    .await;
    let kind = Kind::Unary;
    match result {
        Ok(bytes) => typed(
            StatusCode::OK,
            ContentType { kind, codec },
            reply::full(bytes),
        ),
        Err(error) => {
            let codec = Codec::Json;
            let body = reply::full(error.to_json());
            typed(error.code.status(), ContentType { kind, codec }, body)
        }
    }
}

/// Does the work of a call that is answered once, unless the caller stops waiting before.
async fn until<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match deadline {
        Some(at) => tokio::time::timeout_at(at, work)
            .await
            .unwrap_or_else(|_| Err(deadline_exceeded())),
        None => work.await,
    }
}

/// Serves a server-stream call.
pub(crate) async fn server_stream<Req, Res, F>(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
    handler: impl FnOnce(Call, Req) -> F,
) -> Response<Body>
where
    Req: Message,
    Res: Message + 'static,
    F: Future<Output = Result<Events<Res>, Error>>,
{
    let codec = match negotiate(&request, Kind::Stream) {
        Ok(codec) => codec,
        Err(response) => return *response,
    };
    let (parts, body) = request.into_parts();
    let result = async {
        let call = Call::new(agent, &parts.headers)?;
        refuse_encoding(&parts.headers, "connect-content-encoding")?;
        let mut input = Frames::<Req>::new(codec, body);
        let message = input
            .next()
            .await?
            .ok_or_else(|| Error::new(Code::Unimplemented, "unary request has zero messages"))?;
        handler(call, message).await
    }
    .await;
    let body = match result {
        Ok(events) => reply::streaming(envelopes(codec, events)),
        Err(error) => reply::full(encode_end(Err(&error))),
    };
    stream_response(codec, body)
}

/// Serves a client-stream call.
pub(crate) async fn client_stream<Req, Res, F>(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
    handler: impl FnOnce(Call, Frames<Req>) -> F,
) -> Response<Body>
where
    Req: Message,
    Res: Message,
    F: Future<Output = Result<Res, Error>>,
{
    let codec = match negotiate(&request, Kind::Stream) {
        Ok(codec) => codec,
        Err(response) => return *response,
    };
    let (parts, body) = request.into_parts();
    let result = async {
        let call = Call::new(agent, &parts.headers)?;
        refuse_encoding(&parts.headers, "connect-content-encoding")?;
        let deadline = call.deadline;
        let work = handler(call, Frames::new(codec, body));
        let message = until(deadline, work).await?;
        encode_message(codec, &message)
    }
    .await;
    let bytes = match result {
        Ok(message) => [message, encode_end(Ok(()))].concat().into(),
        Err(error) => encode_end(Err(&error)),
    };
    stream_response(codec, reply::full(bytes))
}

fn typed(status: StatusCode, content_type: ContentType, body: Body) -> Response<Body> {
    let mut response = reply::with_body(status, body);
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(content_type.as_str()),
    );
    response
}

fn stream_response(codec: Codec, body: Body) -> Response<Body> {
    let kind = Kind::Stream;
    let mut response = typed(StatusCode::OK, ContentType { kind, codec }, body);
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}

/// Turns events into frames; the last one tells how the stream ended.
fn envelopes<M: Message + 'static>(
    codec: Codec,
    events: Events<M>,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Send {
    futures_util::stream::unfold(Some(events), move |events| async move {
        let mut events = events?;
        let result = match events.next().await {
            Some(Ok(message)) => encode_message(codec, &message),
            Some(Err(error)) => Err(error),
            None => return Some((Ok(encode_end(Ok(()))), None)),
        };
        match result {
            Ok(frame) => Some((Ok(frame), Some(events))),
            Err(error) => Some((Ok(encode_end(Err(&error))), None)),
        }
    })
}

fn refuse_encoding(headers: &HeaderMap, name: &str) -> Result<(), Error> {
    match header(headers, name) {
        None | Some("" | "identity") => Ok(()),
        Some(other) => Err(Error::new(
            Code::Unimplemented,
            format!("unknown compression \"{other}\": supported encodings are identity"),
        )),
    }
}

async fn read_whole(body: Incoming) -> Result<Bytes, Error> {
    match Limited::new(body, MAX_MESSAGE).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => Err(Error::new(
            Code::ResourceExhausted,
            format!("message is larger than configured max {MAX_MESSAGE}"),
        )),
        Err(e) => Err(Error::new(Code::Canceled, format!("read request: {e}"))),
    }
}

/// The messages of a request stream.
#[derive(Debug)]
pub(crate) struct Frames<M> {
    codec: Codec,
    body: Incoming,
    decoder: EnvelopeDecoder,
    message: std::marker::PhantomData<fn() -> M>,
}

impl<M: Message> Frames<M> {
    fn new(codec: Codec, body: Incoming) -> Self {
        Self {
            codec,
            body,
            decoder: EnvelopeDecoder::new(MAX_MESSAGE),
            message: std::marker::PhantomData,
        }
    }

    /// The next message; `None` when the client has finished.
    ///
    /// # Errors
    /// Bytes that are no frames, a message that can't be read, or a lost connection.
    pub(crate) async fn next(&mut self) -> Result<Option<M>, Error> {
        loop {
            if let Some(envelope) = self.decoder.next_envelope()? {
                if envelope.flags & FLAG_COMPRESSED != 0 {
                    return Err(Error::new(
                        Code::Internal,
                        "protocol error: sent compressed message without compression support",
                    ));
                }
                if envelope.flags & FLAG_END_STREAM != 0 {
                    return Ok(None);
                }
                return self.codec.decode(&envelope.payload).map(Some);
            }
            match self.body.frame().await {
                None => {
                    self.decoder.finish()?;
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.decoder.push(data);
                    }
                }
                Some(Err(e)) => {
                    return Err(Error::new(Code::Canceled, format!("read request: {e}")));
                }
            }
        }
    }
}
