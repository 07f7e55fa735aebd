//! The calls of `process.Process`.

use bytes::Bytes;
use futures_util::StreamExt;
use rustix::process::Signal as KernelSignal;
use tokio::io::AsyncWriteExt;
use warren_connect::process::{
    CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, ListRequest,
    ListResponse, ProcessInput, SendInputRequest, SendInputResponse, SendSignalRequest,
    SendSignalResponse, Signal, StartRequest, StartResponse, StreamInputRequest,
    StreamInputResponse, UpdateRequest, UpdateResponse, process_input, stream_input_request,
};
use warren_connect::{Code, Error};

use super::registry::Found;
use super::spawn;
use super::stream::{Deadline, ended, follow};
use super::supervise::{Input, Process};
use crate::call::{Call, Events, Frames};

pub(crate) async fn list(call: Call, _: ListRequest) -> Result<ListResponse, Error> {
    Ok(ListResponse {
        processes: call.agent.processes.list(),
    })
}

pub(crate) async fn start(
    call: Call,
    request: StartRequest,
) -> Result<Events<StartResponse>, Error> {
    // Detached from the connection: a client that leaves must not stop a start half way.
    let (agent, user, at) = (call.agent.clone(), call.user, call.deadline);
    let started = agent
        .clone()
        .tasks
        .spawn(spawn::start(agent, user, request, at));
    let (process, output) = started
        .await
        .map_err(|e| Error::new(Code::Internal, format!("error starting process: {e}")))??;
    let deadline = match at {
        Some(_) => Deadline::Process,
        None => Deadline::Never,
    };
    let events = follow(process, output, call.keepalive, deadline);
    let wrap = |event| StartResponse { event: Some(event) };
    Ok(events.map(move |event| event.map(wrap)).boxed())
}

pub(crate) async fn connect(
    call: Call,
    request: ConnectRequest,
) -> Result<Events<ConnectResponse>, Error> {
    let wrap = |event| ConnectResponse { event: Some(event) };
    let deadline = call.deadline.map_or(Deadline::Never, Deadline::Stream);
    Ok(match call.agent.processes.live_or_ended(request.process)? {
        Found::Live(process) => {
            let output = process.subscribe();
            follow(process, output, call.keepalive, deadline)
                .map(move |event| event.map(wrap))
                .boxed()
        }
        Found::Ended(pid, end) => ended(pid, end).map(move |event| event.map(wrap)).boxed(),
    })
}

pub(crate) async fn update(call: Call, request: UpdateRequest) -> Result<UpdateResponse, Error> {
    let process = call.agent.processes.live(request.process)?;
    let Some(pty) = request.pty else {
        return Ok(UpdateResponse {});
    };
    let fail = |why: &dyn std::fmt::Display| {
        Error::new(Code::Internal, format!("error resizing tty: {why}"))
    };
    match &process.input {
        Input::Terminal(master, _) => master
            .resize(pty.size.unwrap_or_default())
            .map_err(|e| fail(&e))?,
        Input::Pipe(_) | Input::None => return Err(fail(&"tty not assigned to process")),
    }
    Ok(UpdateResponse {})
}

pub(crate) async fn send_input(
    call: Call,
    request: SendInputRequest,
) -> Result<SendInputResponse, Error> {
    let process = call.agent.processes.live(request.process)?;
    write_input(&process, request.input).await?;
    Ok(SendInputResponse {})
}

pub(crate) async fn stream_input(
    call: Call,
    mut frames: Frames<StreamInputRequest>,
) -> Result<StreamInputResponse, Error> {
    use stream_input_request::Event;
    let mut process = None;
    while let Some(frame) = frames.next().await? {
        match frame.event {
            Some(Event::Start(start)) => {
                process = Some(call.agent.processes.live(start.process)?);
            }
            Some(Event::Data(data)) => {
                let process = process.as_ref().ok_or_else(|| {
                    Error::new(Code::InvalidArgument, "data received before start event")
                })?;
                write_input(process, data.input).await?;
            }
            Some(Event::Keepalive(_)) => {}
            None => {
                return Err(Error::new(Code::Unimplemented, "invalid event type <nil>"));
            }
        }
    }
    Ok(StreamInputResponse {})
}

async fn write_input(process: &Process, input: Option<ProcessInput>) -> Result<(), Error> {
    let Some(input) = input.and_then(|i| i.input) else {
        return Err(Error::new(Code::Unimplemented, "invalid input type <nil>"));
    };
    match input {
        process_input::Input::Stdin(bytes) => write_stdin(process, &bytes)
            .await
            .map_err(|why| Error::new(Code::Internal, format!("error writing to stdin: {why}"))),
        process_input::Input::Pty(bytes) => write_pty(process, &bytes)
            .await
            .map_err(|why| Error::new(Code::Internal, format!("error writing to tty: {why}"))),
    }
}

async fn write_stdin(process: &Process, bytes: &Bytes) -> Result<(), String> {
    match &process.input {
        Input::Terminal(..) => Err(
            "tty assigned to process — input should be written to the pty, not the stdin"
                .to_owned(),
        ),
        Input::None => Err("stdin not enabled or closed".to_owned()),
        Input::Pipe(pipe) => match pipe.lock().await.as_mut() {
            Some(pipe) => pipe.write_all(bytes).await.map_err(|e| e.to_string()),
            None => Err("stdin not enabled or closed".to_owned()),
        },
    }
}

async fn write_pty(process: &Process, bytes: &Bytes) -> Result<(), String> {
    match &process.input {
        Input::Terminal(master, order) => {
            let _turn = order.lock().await;
            master.write_all(bytes).await.map_err(|e| e.to_string())
        }
        Input::Pipe(_) | Input::None => Err(
            "tty not assigned to process — input should be written to the stdin, not the tty"
                .to_owned(),
        ),
    }
}

pub(crate) async fn close_stdin(
    call: Call,
    request: CloseStdinRequest,
) -> Result<CloseStdinResponse, Error> {
    let process = call.agent.processes.live(request.process)?;
    match &process.input {
        Input::Pipe(pipe) => drop(pipe.lock().await.take()),
        Input::None => {}
        Input::Terminal(..) => {
            return Err(Error::new(
                Code::Unknown,
                "error closing stdin: cannot close stdin for PTY process — send Ctrl+D (0x04) instead",
            ));
        }
    }
    Ok(CloseStdinResponse {})
}

pub(crate) async fn send_signal(
    call: Call,
    request: SendSignalRequest,
) -> Result<SendSignalResponse, Error> {
    let process = call.agent.processes.live(request.process)?;
    let signal = match Signal::try_from(request.signal) {
        Ok(Signal::Sigkill) => KernelSignal::KILL,
        Ok(Signal::Sigterm) => KernelSignal::TERM,
        Ok(Signal::Unspecified) | Err(_) => {
            let number = request.signal;
            let message = match Signal::try_from(number) {
                Ok(known) => format!("invalid signal: {}", known.as_str_name()),
                Err(_) => format!("invalid signal: {number}"),
            };
            return Err(Error::new(Code::Unimplemented, message));
        }
    };
    process
        .kill(&call.agent, signal)
        .map_err(|e| Error::new(Code::Internal, format!("error sending signal: {e}")))?;
    Ok(SendSignalResponse {})
}
