//! Calls of the agent in a build's sandbox. What it answers comes from a guest: sizes are
//! capped, and the one who calls decides how long it may take.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use warren_cluster::BuildSandbox;
use warren_connect::process::process_event::data_event::Output;
use warren_connect::process::process_event::{self};
use warren_connect::process::{ProcessConfig, StartRequest, StartResponse};
use warren_connect::{
    Codec, StreamDecoder, StreamItem, TIMEOUT_HEADER, VERSION_HEADER, format_timeout,
    stream_request, unary_error,
};
use warren_types::ENVD_PORT;

/// Longest message of a stream; the agent sends far shorter ones.
const MESSAGE_LIMIT: usize = 4 << 20;
/// Longest error text that is read.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Bytes of an upload in one piece.
const PIECE: usize = 256 * 1024;

const BASH: &str = "/bin/bash";

/// Failure to have the agent do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("connect to the agent")]
    Connect(#[source] io::Error),
    #[error("exchange a request with the agent")]
    Exchange(#[source] hyper::Error),
    #[error("{0}")]
    Refused(warren_connect::Error),
    #[error("the sandbox ended in the middle of a command")]
    Cut,
}

/// A program and how to run it.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) shell: &'static str,
    pub(crate) args: Vec<String>,
    pub(crate) user: &'a str,
    pub(crate) workdir: Option<&'a str>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) limit: Duration,
}

impl<'a> Program<'a> {
    /// A line for a login shell.
    pub(crate) fn shell(line: &str, user: &'a str, limit: Duration) -> Self {
        Self {
            shell: BASH,
            args: ["-l", "-c", line].map(str::to_owned).to_vec(),
            user,
            workdir: None,
            env: BTreeMap::new(),
            limit,
        }
    }

    /// A script of ours with its arguments, run as root from `/`.
    pub(crate) fn script(text: &str, args: &[&str], limit: Duration) -> Self {
        let fixed = ["--noprofile", "--norc", "-c", text, "warren"];
        Self {
            shell: BASH,
            args: fixed
                .iter()
                .chain(args)
                .map(|&arg| arg.to_owned())
                .collect(),
            user: "root",
            workdir: Some("/"),
            env: BTreeMap::new(),
            limit,
        }
    }
}

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    Stdout,
    Stderr,
}

/// How a command ended, in the words that users know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    text: String,
}

impl Outcome {
    pub(crate) fn succeeded(&self) -> bool {
        self.code == 0
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Runs a command to its end and tells what it writes as it comes.
pub(crate) async fn run(
    sandbox: &dyn BuildSandbox,
    program: Program<'_>,
    mut output: impl FnMut(Channel, &[u8]),
) -> Result<Outcome, AgentError> {
    let message = StartRequest {
        process: Some(ProcessConfig {
            cmd: program.shell.to_owned(),
            args: program.args,
            envs: program.env,
            cwd: program.workdir.map(str::to_owned),
        }),
        pty: None,
        tag: None,
        stdin: Some(false),
    };
    let body = stream_request(Codec::Json, &message).map_err(AgentError::Refused)?;
    let request = Request::post("/process.Process/Start")
        .header(CONTENT_TYPE, "application/connect+json")
        .header(VERSION_HEADER, "1")
        .header(TIMEOUT_HEADER, format_timeout(program.limit))
        .header(AUTHORIZATION, basic(program.user))
        .body(full(body));
    exchange(sandbox, request, async |response| {
        follow(response, &mut output).await
    })
    .await
}

async fn follow(
    mut response: Response<Incoming>,
    output: &mut impl FnMut(Channel, &[u8]),
) -> Result<Outcome, AgentError> {
    if response.status() != StatusCode::OK {
        return Err(refusal(response).await);
    }
    let mut decoder = StreamDecoder::new(Codec::Json, MESSAGE_LIMIT);
    let mut outcome = None;
    loop {
        match decoder.next_item::<StartResponse>() {
            Err(error) => return Err(AgentError::Refused(error)),
            Ok(Some(StreamItem::End)) => return outcome.ok_or(AgentError::Cut),
            Ok(Some(StreamItem::Message(message))) => {
                match message.event.and_then(|event| event.event) {
                    Some(process_event::Event::Data(data)) => match data.output {
                        Some(Output::Stdout(bytes) | Output::Pty(bytes)) => {
                            output(Channel::Stdout, &bytes);
                        }
                        Some(Output::Stderr(bytes)) => output(Channel::Stderr, &bytes),
                        None => {}
                    },
                    Some(process_event::Event::End(end)) => {
                        let text = match end.error {
                            Some(text) if !text.is_empty() => text,
                            _ => format!("exit status {}", end.exit_code),
                        };
                        outcome = Some(Outcome {
                            code: end.exit_code,
                            text,
                        });
                    }
                    _ => {}
                }
            }
            Ok(None) => match response.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        decoder.push(&data);
                    }
                }
                Some(Err(error)) => return Err(AgentError::Exchange(error)),
                None => return Err(AgentError::Cut),
            },
        }
    }
}

/// Writes a file of root's in the sandbox from `content`, which is `length` bytes long.
pub(crate) async fn upload(
    sandbox: &dyn BuildSandbox,
    path: &str,
    content: tokio::fs::File,
    length: u64,
) -> Result<(), AgentError> {
    let pieces = stream::try_unfold(content, |mut file| async move {
        let mut piece = vec![0; PIECE];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        Ok((read > 0).then(|| (Frame::data(Bytes::from(piece)), file)))
    });
    let query: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("path", path)
        .append_pair("username", "root")
        .finish();
    let request = Request::post(format!("/files?{query}"))
        .header(CONTENT_TYPE, "application/octet-stream")
        .header(CONTENT_LENGTH, length)
        .body(BodyExt::boxed_unsync(StreamBody::new(pieces)));
    exchange(sandbox, request, async |response| {
        match response.status().is_success() {
            true => Ok(()),
            false => Err(refusal(response).await),
        }
    })
    .await
}

fn basic(user: &str) -> String {
    let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:"));
    format!("Basic {credentials}")
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn refusal(response: Response<Incoming>) -> AgentError {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LIMIT)
        .collect()
        .await;
    let bytes = body.map(|body| body.to_bytes()).unwrap_or_default();
    AgentError::Refused(unary_error(status, &bytes))
}

/// Sends a request on a connection of its own, which is driven here: dropping the future
/// closes it, upon which the agent kills what it started.
async fn exchange<T>(
    sandbox: &dyn BuildSandbox,
    request: Result<Request<Body>, hyper::http::Error>,
    answer: impl AsyncFnOnce(Response<Incoming>) -> Result<T, AgentError>,
) -> Result<T, AgentError> {
    let mut request = request
        .map_err(|error| AgentError::Connect(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    request
        .headers_mut()
        .insert(HOST, hyper::header::HeaderValue::from_static("localhost"));
    let stream = sandbox.dial(ENVD_PORT).await.map_err(AgentError::Connect)?;
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
