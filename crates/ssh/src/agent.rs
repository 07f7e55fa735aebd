//! Calls of the agent in a sandbox. What it answers comes from a guest: sizes are capped.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use warren_connect::process::process_event::data_event::Output;
use warren_connect::process::process_event::{self, EndEvent};
use warren_connect::process::process_input::Input;
use warren_connect::process::process_selector::Selector;
use warren_connect::process::stream_input_request::{self as input_frame, DataEvent, StartEvent};
use warren_connect::process::{
    CloseStdinRequest, ProcessConfig, ProcessInput, ProcessSelector, Pty, StartRequest,
    StartResponse, StreamInputRequest, UpdateRequest,
};
use warren_connect::{
    Codec, Message, StreamDecoder, StreamItem, VERSION_HEADER, encode_message, stream_request,
    unary_error,
};
use warren_service::{Secret, Tasks};
use warren_types::ENVD_PORT;

use crate::host::Guest;

/// Longest message of a stream; the agent sends far shorter ones.
const MESSAGE_LIMIT: usize = 4 << 20;
/// Longest error text that is read.
const ANSWER_LIMIT: usize = 64 * 1024;
/// Pieces of input on their way to the agent.
const INPUT_PIECES: usize = 4;

/// Why the agent did not do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("the sandbox can't be reached")]
    Connect(#[source] io::Error),
    #[error("the sandbox does not answer")]
    Exchange(#[source] hyper::Error),
    #[error("{0}")]
    Refused(warren_connect::Error),
    #[error("the sandbox ended in the middle of a command")]
    Cut,
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The way to the agent of one run.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    guest: Guest,
    user: Option<String>,
    tasks: Tasks,
}

/// A program to run.
#[derive(Debug, Default)]
pub(crate) struct Program {
    pub(crate) words: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// The terminal that it gets.
    pub(crate) terminal: Option<Pty>,
    pub(crate) has_input: bool,
}

/// What a process did.
#[derive(Debug)]
pub(crate) enum Event {
    Stdout(Bytes),
    Stderr(Bytes),
    End(EndEvent),
}

/// A process that is followed.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    events: Events,
}

impl Process {
    /// Waits for what it does next.
    pub(crate) async fn next(&mut self) -> Result<Event, AgentError> {
        loop {
            match self.events.next().await? {
                process_event::Event::Data(data) => match data.output {
                    Some(Output::Stdout(bytes) | Output::Pty(bytes)) => {
                        return Ok(Event::Stdout(bytes));
                    }
                    Some(Output::Stderr(bytes)) => return Ok(Event::Stderr(bytes)),
                    None => {}
                },
                process_event::Event::End(end) => return Ok(Event::End(end)),
                process_event::Event::Start(_) | process_event::Event::Keepalive(_) => {}
            }
        }
    }
}

#[derive(Debug)]
struct Events {
    response: Response<Incoming>,
    decoder: StreamDecoder,
}

impl Events {
    async fn next(&mut self) -> Result<process_event::Event, AgentError> {
        loop {
            let item = self.decoder.next_item::<StartResponse>();
            match item.map_err(AgentError::Refused)? {
                Some(StreamItem::Message(message)) => {
                    if let Some(event) = message.event.and_then(|event| event.event) {
                        return Ok(event);
                    }
                }
                Some(StreamItem::End) => return Err(AgentError::Cut),
                None => match self.response.frame().await {
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            self.decoder.push(&data);
                        }
                    }
                    Some(Err(error)) => return Err(AgentError::Exchange(error)),
                    None => return Err(AgentError::Cut),
                },
            }
        }
    }
}

/// Where input of a process goes.
#[derive(Debug)]
pub(crate) struct InputSender {
    pieces: mpsc::Sender<Bytes>,
    has_terminal: bool,
}

impl InputSender {
    /// Sends a piece. `false` once the process takes no more.
    pub(crate) async fn send(&self, bytes: &Bytes) -> bool {
        let bytes = bytes.clone();
        let input = if self.has_terminal {
            Input::Pty(bytes)
        } else {
            Input::Stdin(bytes)
        };
        let frame = StreamInputRequest {
            event: Some(input_frame::Event::Data(DataEvent {
                input: Some(ProcessInput { input: Some(input) }),
            })),
        };
        match encode_message(Codec::Proto, &frame) {
            Ok(frame) => self.pieces.send(frame).await.is_ok(),
            Err(_) => false,
        }
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "the field is optional in every message"
)]
fn selector(pid: u32) -> Option<ProcessSelector> {
    Some(ProcessSelector {
        selector: Some(Selector::Pid(pid)),
    })
}

fn full(bytes: impl Into<Bytes>) -> Body {
    let body = Full::new(bytes.into());
    BodyExt::boxed_unsync(body.map_err(|never| match never {}))
}

impl Agent {
    /// Acts as `user`, or as the sandbox's default one.
    pub(crate) fn new(guest: Guest, user: Option<String>, tasks: Tasks) -> Self {
        Self { guest, user, tasks }
    }

    /// Starts a program and returns once it runs.
    pub(crate) async fn start(&self, program: Program) -> Result<Process, AgentError> {
        let mut words = program.words.into_iter();
        let message = StartRequest {
            process: Some(ProcessConfig {
                cmd: words.next().unwrap_or_default(),
                args: words.collect(),
                envs: program.env,
                cwd: None,
            }),
            pty: program.terminal,
            tag: None,
            stdin: Some(program.has_input),
        };
        let body = stream_request(Codec::Proto, &message).map_err(AgentError::Refused)?;
        let response = self
            .call("Start", "application/connect+proto", full(body))
            .await?;
        let mut events = Events {
            response,
            decoder: StreamDecoder::new(Codec::Proto, MESSAGE_LIMIT),
        };
        match events.next().await? {
            process_event::Event::Start(start) => Ok(Process {
                pid: start.pid,
                events,
            }),
            _ => Err(AgentError::Cut),
        }
    }

    /// A stream of input for a process, and what must be awaited for it to flow. That ends
    /// after the sender was dropped, or when the process takes no more.
    pub(crate) fn input(
        &self,
        pid: u32,
        has_terminal: bool,
    ) -> (
        InputSender,
        impl Future<Output = Result<(), AgentError>> + '_,
    ) {
        let (pieces, queue) = mpsc::channel(INPUT_PIECES);
        let sending = async move {
            let start = StreamInputRequest {
                event: Some(input_frame::Event::Start(StartEvent {
                    process: selector(pid),
                })),
            };
            let first = encode_message(Codec::Proto, &start).map_err(AgentError::Refused)?;
            let rest = stream::unfold(queue, |mut queue| async {
                queue.recv().await.map(|piece| (piece, queue))
            });
            let frames = stream::once(async { first })
                .chain(rest)
                .map(|piece| Ok(Frame::data(piece)));
            let body = BodyExt::boxed_unsync(StreamBody::new(frames));
            let kind = "application/connect+proto";
            self.call("StreamInput", kind, body).await?;
            Ok(())
        };
        let sender = InputSender {
            pieces,
            has_terminal,
        };
        (sender, sending)
    }

    /// Ends the standard input of a process.
    pub(crate) async fn close_input(&self, pid: u32) -> Result<(), AgentError> {
        let request = CloseStdinRequest {
            process: selector(pid),
        };
        self.unary("CloseStdin", &request).await
    }

    /// Changes the size of the terminal of a process.
    pub(crate) async fn resize(&self, pid: u32, terminal: Pty) -> Result<(), AgentError> {
        let request = UpdateRequest {
            process: selector(pid),
            pty: Some(terminal),
        };
        self.unary("Update", &request).await
    }

    /// Sends a signal to a process, or to all of its group.
    pub(crate) async fn kill(
        &self,
        pid: u32,
        whole_group: bool,
        signal: &str,
    ) -> Result<(), AgentError> {
        let target = if whole_group {
            format!("-{pid}")
        } else {
            pid.to_string()
        };
        let words = [
            "/bin/sh",
            "-c",
            r#"kill -s "$1" -- "$2""#,
            "sh",
            signal,
            &target,
        ];
        let program = Program {
            words: words.map(str::to_owned).to_vec(),
            ..Program::default()
        };
        let mut process = self.start(program).await?;
        while !matches!(process.next().await?, Event::End(_)) {}
        Ok(())
    }

    async fn unary<M: Message>(&self, method: &str, message: &M) -> Result<(), AgentError> {
        let body = Codec::Proto.encode(message).map_err(AgentError::Refused)?;
        self.call(method, "application/proto", full(body)).await?;
        Ok(())
    }

    /// One request on a connection of its own. A status other than 200 is a refusal.
    async fn call(
        &self,
        method: &str,
        content_type: &str,
        body: Body,
    ) -> Result<Response<Incoming>, AgentError> {
        let stream = self
            .guest
            .dial
            .dial(ENVD_PORT)
            .await
            .map_err(AgentError::Connect)?;
        // A delay of small pieces would be felt while typing; without it they still arrive.
        let _immediate = stream.set_nodelay(true);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(AgentError::Exchange)?;
        // Ends with the connection, whose failure the exchange below tells.
        self.tasks.spawn(connection);
        let mut request = Request::post(format!("/process.Process/{method}"))
            .header(HOST, "sandbox")
            .header(CONTENT_TYPE, content_type)
            .header(VERSION_HEADER, "1");
        if let Some(token) = self.guest.access_token.as_ref().map(Secret::expose) {
            request = request.header("x-access-token", token);
        }
        if let Some(user) = &self.user {
            let credentials = base64::engine::general_purpose::STANDARD.encode(format!("{user}:"));
            request = request.header(AUTHORIZATION, format!("Basic {credentials}"));
        }
        let request = request.body(body).map_err(|_| AgentError::Cut)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(AgentError::Exchange)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        let status = response.status();
        let text = match Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
        {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::new(),
        };
        Err(AgentError::Refused(unary_error(status, &text)))
    }
}
