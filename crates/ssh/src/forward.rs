//! Forwarded connections, both ways.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::BytesMut;
use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;
use warren_service::{CancellationToken, Chain};

use crate::agent::{Agent, AgentError, Event, Process, Program};
use crate::channels::{Feed, Input};
use crate::command::HELPER;
use crate::connection::{ServeError, Shared};

/// Read from a sandbox at once.
const PIECE: usize = 32 * 1024;

/// Where a client wants to be connected to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Target {
    /// Whether it is the sandbox itself.
    fn is_inside(&self) -> bool {
        let host = self.host.trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback() || address.is_unspecified(),
            Err(_) => host.is_empty() || host.eq_ignore_ascii_case("localhost"),
        }
    }
}

/// Why a connection ended before its time. Nobody but the log is told.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("connect or copy")]
    Socket(#[from] io::Error),
    #[error("tell the client")]
    Client(#[from] russh::Error),
    #[error("{0}")]
    Helper(String),
}

impl From<AgentError> for ForwardError {
    fn from(error: AgentError) -> Self {
        ServeError::from(error).into()
    }
}

/// Connects a client to a port of the sandbox, or through it to elsewhere.
pub(crate) async fn direct(
    shared: Arc<Shared>,
    target: Target,
    write: ChannelWriteHalf<Msg>,
    feed: Feed,
    reply: ChannelOpenHandle,
) {
    let result = match connect(&shared, &target).await {
        Ok(connected) => {
            reply.accept().await;
            connected.carry(&shared, &write, feed).await
        }
        Err(error) => {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            Err(error)
        }
    };
    if let Err(error) = result {
        debug!(error = %Chain(&error), ?target, "a forwarded connection ended");
    }
    // A channel that has gone can't be closed.
    let _gone = write.close().await;
    shared.channels.remove(write.id());
}

/// A connection that stands.
enum Connected {
    Socket(TcpStream),
    Helper(Agent, Box<Process>),
}

async fn connect(shared: &Arc<Shared>, target: &Target) -> Result<Connected, ForwardError> {
    let (guest, login) = shared.guest().await?;
    if target.is_inside() {
        let stream = guest.dial.dial(target.port).await?;
        stream.set_nodelay(true)?;
        return Ok(Connected::Socket(stream));
    }
    // A process of the sandbox connects, under its egress policy and with its names.
    let agent = Agent::new(guest.clone(), login.user.clone(), shared.tasks.clone());
    let words = [HELPER, "connect", &target.host, &target.port.to_string()];
    let program = Program {
        words: words.map(str::to_owned).to_vec(),
        has_input: true,
        ..Program::default()
    };
    let mut process = agent.start(program).await?;
    let mut text = String::new();
    loop {
        match process.next().await? {
            // It writes one byte first, once it is connected.
            Event::Stdout(bytes) if bytes.as_ref() == b"\n" => {
                return Ok(Connected::Helper(agent, Box::new(process)));
            }
            Event::Stderr(bytes) if text.len() < 1024 => {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            Event::Stdout(_) | Event::End(_) => return Err(ForwardError::Helper(text)),
            Event::Stderr(_) => {}
        }
    }
}

impl Connected {
    async fn carry(
        self,
        shared: &Arc<Shared>,
        write: &ChannelWriteHalf<Msg>,
        feed: Feed,
    ) -> Result<(), ForwardError> {
        let (guest, _) = shared.guest().await?;
        let hung_up = feed.hung_up.clone();
        let copying = async {
            match self {
                Self::Socket(stream) => copy(stream, write, feed).await,
                Self::Helper(agent, process) => copy_helper(&agent, *process, write, feed).await,
            }
        };
        tokio::select! {
            biased;
            () = guest.run.cancelled() => Ok(()),
            () = hung_up.cancelled() => Ok(()),
            result = copying => result,
        }
    }
}

/// Copies both ways until both have ended, or one has failed.
async fn copy(
    stream: TcpStream,
    write: &ChannelWriteHalf<Msg>,
    mut feed: Feed,
) -> Result<(), ForwardError> {
    let (mut from, mut to) = stream.into_split();
    let forth = async {
        while let Some(Input::Data(held)) = feed.inputs.recv().await {
            to.write_all(held.bytes()).await?;
        }
        to.shutdown().await?;
        Ok::<_, ForwardError>(())
    };
    let back = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(PIECE);
            if from.read_buf(&mut buffer).await? == 0 {
                write.eof().await?;
                return Ok::<_, ForwardError>(());
            }
            write.data_bytes(buffer.split().freeze()).await?;
        }
    };
    tokio::try_join!(forth, back)?;
    Ok(())
}

/// The same for a connection that a process of the sandbox holds; it ends with that.
async fn copy_helper(
    agent: &Agent,
    mut process: Process,
    write: &ChannelWriteHalf<Msg>,
    mut feed: Feed,
) -> Result<(), ForwardError> {
    let pid = process.pid;
    let (sender, sending) = agent.input(pid, false);
    let forth = async {
        let pass = async move {
            while let Some(Input::Data(held)) = feed.inputs.recv().await {
                if !sender.send(held.bytes()).await {
                    break;
                }
            }
        };
        let ((), sent) = tokio::join!(pass, sending);
        sent?;
        agent.close_input(pid).await?;
        Ok::<_, ForwardError>(())
    };
    let back = async {
        loop {
            match process.next().await? {
                Event::Stdout(bytes) => write.data_bytes(bytes).await?,
                Event::Stderr(_) => {}
                Event::End(_) => {
                    write.eof().await?;
                    return Ok::<_, ForwardError>(());
                }
            }
        }
    };
    tokio::pin!(forth, back);
    tokio::select! {
        result = &mut back => result,
        result = &mut forth => {
            result?;
            back.await
        }
    }
}

/// A port inside the sandbox that is listened on for a client.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    pub(crate) port: u16,
    run: CancellationToken,
}

/// Listens in the sandbox: on all addresses if the client says so, else on loopback.
pub(crate) async fn listen(
    shared: &Arc<Shared>,
    address: &str,
    port: u16,
) -> Result<Listener, ListenError> {
    let (guest, _) = shared.guest().await?;
    let is_loopback = !matches!(address, "*" | "0.0.0.0" | "::");
    let listener = guest.dial.listen(port, is_loopback).await?;
    Ok(Listener {
        port: listener.local_addr()?.port(),
        listener,
        run: guest.run.clone(),
    })
}

/// Why a port is not listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error("listen in the sandbox")]
    Socket(#[from] io::Error),
}

/// Passes what connects to the port on to the client.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    listener: Listener,
    address: String,
    handle: Handle,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = listener.run.cancelled() => return,
            accepted = listener.listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "no connection was accepted in a sandbox");
                return;
            }
        };
        if shared.channels.is_full() {
            continue;
        }
        let (shared, handle, address) = (Arc::clone(&shared), handle.clone(), address.clone());
        let tasks = shared.tasks.clone();
        let port = listener.port.into();
        let run = listener.run.clone();
        tasks.spawn(async move {
            let opened = tokio::select! {
                () = run.cancelled() => return,
                opened = handle.channel_open_forwarded_tcpip(
                    address,
                    port,
                    peer.ip().to_string(),
                    peer.port().into(),
                ) => opened,
            };
            let Ok(channel) = opened else {
                return;
            };
            let (_, write) = channel.split();
            let feed = shared.channels.serve(write.id());
            let connected = Connected::Socket(stream);
            if let Err(error) = connected.carry(&shared, &write, feed).await {
                debug!(error = %Chain(&error), "a connection to a client ended");
            }
            // A channel that has gone can't be closed.
            let _gone = write.close().await;
            shared.channels.remove(write.id());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_the_sandbox_itself() {
        let is_inside = |host: &str| {
            let host = host.to_owned();
            Target { host, port: 1 }.is_inside()
        };
        for inside in [
            "localhost",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "0.0.0.0",
            "",
        ] {
            assert!(is_inside(inside), "{inside}");
        }
        for outside in ["example.com", "10.0.0.1", "localhost.example.com"] {
            assert!(!is_inside(outside), "{outside}");
        }
    }
}
