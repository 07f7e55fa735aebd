//! Commands run through a sandbox's agent. What comes back is a guest's: sizes are capped, and
//! the one who calls decides how long it may take.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Response, StatusCode};
use warren_connect::process::process_event::Event;
use warren_connect::process::process_event::data_event::Output;
use warren_connect::process::{ProcessConfig, StartRequest, StartResponse};
use warren_connect::{
    Code, Codec, Error, StreamDecoder, StreamItem, TIMEOUT_HEADER, VERSION_HEADER, format_timeout,
    stream_request, unary_error,
};
use warren_runtime::Dial;

use crate::agent::{self, AgentError};

/// Longest message of a stream; the agent sends far shorter ones.
const MESSAGE_LIMIT: usize = 1 << 20;

/// A line for a login shell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    pub(crate) text: &'a str,
    pub(crate) user: &'a str,
    pub(crate) workdir: Option<&'a str>,
    pub(crate) env: &'a BTreeMap<String, String>,
    /// The agent kills what runs longer; `None` leaves it running for good.
    pub(crate) limit: Option<Duration>,
}

/// Runs a line to its end, tells what it writes as it comes, and returns how it ended.
/// Dropped before, it leaves the line running within its limit.
pub(crate) async fn run(
    dial: &dyn Dial,
    line: Line<'_>,
    mut output: impl FnMut(&[u8]),
) -> Result<Ended, AgentError> {
    let request = request(line)?;
    agent::converse(dial, request, async |response| {
        follow(response, &mut output).await
    })
    .await
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    /// In the agent's words.
    pub(crate) text: String,
}

fn request(line: Line<'_>) -> Result<Request<Full<Bytes>>, AgentError> {
    let message = StartRequest {
        process: Some(ProcessConfig {
            cmd: "/bin/bash".to_owned(),
            args: ["-l", "-c", line.text].map(str::to_owned).to_vec(),
            envs: line.env.clone(),
            cwd: line.workdir.map(str::to_owned),
        }),
        pty: None,
        tag: None,
        stdin: Some(false),
    };
    let body = stream_request(Codec::Json, &message).map_err(AgentError::Command)?;
    let user = format!("{}:", line.user);
    let credentials = base64::engine::general_purpose::STANDARD.encode(user);
    let mut request = Request::post("/process.Process/Start")
        .header(CONTENT_TYPE, "application/connect+json")
        .header(VERSION_HEADER, "1")
        .header(AUTHORIZATION, format!("Basic {credentials}"));
    if let Some(limit) = line.limit {
        request = request.header(TIMEOUT_HEADER, format_timeout(limit));
    }
    let invalid = |error: hyper::http::Error| {
        AgentError::Command(Error::new(Code::InvalidArgument, error.to_string()))
    };
    request.body(Full::new(body)).map_err(invalid)
}

async fn follow(
    mut response: Response<Incoming>,
    output: &mut impl FnMut(&[u8]),
) -> Result<Ended, AgentError> {
    let status = response.status();
    if status != StatusCode::OK {
        let text = agent::text(response).await;
        return Err(AgentError::Command(unary_error(status, &text)));
    }
    let mut decoder = StreamDecoder::new(Codec::Json, MESSAGE_LIMIT);
    let mut ended = None;
    loop {
        let item = decoder.next_item::<StartResponse>();
        match item.map_err(AgentError::Command)? {
            Some(StreamItem::End) => return ended.ok_or(AgentError::Cut),
            Some(StreamItem::Message(message)) => {
                match message.event.and_then(|event| event.event) {
                    Some(Event::Data(data)) => match data.output {
                        Some(
                            Output::Stdout(bytes) | Output::Stderr(bytes) | Output::Pty(bytes),
                        ) => output(&bytes),
                        None => {}
                    },
                    Some(Event::End(end)) => {
                        let text = end.error.filter(|text| !text.is_empty());
                        ended = Some(Ended {
                            code: end.exit_code,
                            text: text.unwrap_or_else(|| format!("exit status {}", end.exit_code)),
                        });
                    }
                    _ => {}
                }
            }
            None => match response.frame().await {
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
