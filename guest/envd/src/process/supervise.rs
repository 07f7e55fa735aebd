//! One running process: its input, its subscribers, and the task that owns it.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use rustix::process::{Pid, Signal, WaitStatus};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use warren_connect::process::ProcessConfig;
use warren_connect::process::process_event::EndEvent;
use warren_connect::process::process_event::data_event::Output;
use warren_service::CancellationToken;

use super::outcome::end_event;
use super::pty::Master;
use crate::agent::{Agent, lock};
use crate::log::Level;

/// Events that wait for a slow subscriber before the process is held up.
const QUEUE: usize = 64;
/// Largest read from a pipe.
const PIPE_CHUNK: usize = 32 << 10;
/// Largest read from a terminal.
const PTY_CHUNK: usize = 16 << 10;
/// Reads that are still made after the process was told to stop.
const LAST_READS: usize = 64;

/// Where a process's input goes.
#[derive(Debug)]
pub(crate) enum Input {
    /// Nowhere.
    None,
    /// A pipe, until it is closed.
    Pipe(tokio::sync::Mutex<Option<pipe::Sender>>),
    /// A terminal; the lock keeps writes in order.
    Terminal(Arc<Master>, tokio::sync::Mutex<()>),
}

/// A process started through the agent.
#[derive(Debug)]
pub(crate) struct Process {
    /// Process id.
    pub(crate) pid: u32,
    /// Name given at start.
    pub(crate) tag: Option<String>,
    /// Configuration as received.
    pub(crate) config: ProcessConfig,
    /// Its input.
    pub(crate) input: Input,
    kernel_pid: Pid,
    /// `None` once the process has ended.
    subscribers: Mutex<Option<Vec<mpsc::Sender<Output>>>>,
    end: OnceLock<EndEvent>,
    expired: AtomicBool,
    /// Ends the wait for output that others may still hold open.
    stop: CancellationToken,
    /// Tells the readers that the wait is over.
    drain: CancellationToken,
    bytes: AtomicU64,
}

/// A source of output.
#[derive(Debug)]
pub(crate) enum Source {
    /// Standard output.
    Stdout(pipe::Receiver),
    /// Standard error.
    Stderr(pipe::Receiver),
    /// A terminal.
    Terminal(Arc<Master>),
}

impl Source {
    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Stdout(pipe) | Self::Stderr(pipe) => pipe.readable().await,
            Self::Terminal(master) => master.readable().await,
        }
    }

    /// Reads without waiting; `None` at the end.
    fn try_read(&self) -> io::Result<Option<Output>> {
        // On the stack: an idle process then holds no buffer.
        let mut buffer = [0; PIPE_CHUNK];
        let count = match self {
            Self::Stdout(pipe) | Self::Stderr(pipe) => pipe.try_read(&mut buffer)?,
            Self::Terminal(master) => master.try_read(&mut buffer[..PTY_CHUNK])?,
        };
        if count == 0 {
            return Ok(None);
        }
        let bytes = Bytes::copy_from_slice(&buffer[..count]);
        Ok(Some(match self {
            Self::Stdout(_) => Output::Stdout(bytes),
            Self::Stderr(_) => Output::Stderr(bytes),
            Self::Terminal(_) => Output::Pty(bytes),
        }))
    }
}

impl Process {
    pub(crate) fn new(
        kernel_pid: Pid,
        config: ProcessConfig,
        tag: Option<String>,
        input: Input,
    ) -> Self {
        Self {
            pid: kernel_pid.as_raw_nonzero().get().unsigned_abs(),
            tag,
            config,
            input,
            kernel_pid,
            subscribers: Mutex::new(Some(Vec::new())),
            end: OnceLock::new(),
            expired: AtomicBool::new(false),
            stop: CancellationToken::new(),
            drain: CancellationToken::new(),
            bytes: AtomicU64::new(0),
        }
    }

    /// Receives all output from now on; the channel closes when the process has ended.
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<Output> {
        let (tx, rx) = mpsc::channel(QUEUE);
        if let Some(subscribers) = lock(&self.subscribers).as_mut() {
            subscribers.retain(|subscriber| !subscriber.is_closed());
            subscribers.push(tx);
        }
        rx
    }

    /// How it ended, if it has.
    pub(crate) fn end(&self) -> Option<EndEvent> {
        self.end.get().cloned()
    }

    /// Whether its deadline killed it.
    pub(crate) fn expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }

    /// Sends a signal that ends the process, and stops waiting for others that hold its
    /// output open.
    pub(crate) fn kill(&self, agent: &Agent, signal: Signal) -> io::Result<()> {
        agent.reaper.signal(self.kernel_pid, signal)?;
        self.stop.cancel();
        Ok(())
    }

    /// Reads a source to its end.
    async fn pump(self: Arc<Self>, source: Source) {
        loop {
            tokio::select! {
                // Output that is there goes first, so that a drain loses as little as possible.
                biased;
                ready = source.readable() => if ready.is_err() { return },
                () = self.drain.cancelled() => return self.drain_source(&source),
            }
            let output = match source.try_read() {
                Ok(Some(output)) => output,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
                Ok(None) | Err(_) => return,
            };
            self.count(&output);
            tokio::select! {
                biased;
                () = self.deliver(&output) => {}
                () = self.drain.cancelled() => {
                    self.offer(&output);
                    return self.drain_source(&source);
                }
            }
        }
    }

    /// Takes what is there without waiting for anyone.
    fn drain_source(&self, source: &Source) {
        for _ in 0..LAST_READS {
            let Ok(Some(output)) = source.try_read() else {
                return;
            };
            self.count(&output);
            self.offer(&output);
        }
    }

    fn count(&self, output: &Output) {
        let (Output::Stdout(bytes) | Output::Stderr(bytes) | Output::Pty(bytes)) = output;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    /// Gives output to every subscriber, waiting for the slow ones.
    async fn deliver(&self, output: &Output) {
        let subscribers = lock(&self.subscribers).clone().unwrap_or_default();
        let mut gone = false;
        for subscriber in &subscribers {
            gone |= subscriber.send(output.clone()).await.is_err();
        }
        if gone && let Some(subscribers) = lock(&self.subscribers).as_mut() {
            subscribers.retain(|subscriber| !subscriber.is_closed());
        }
    }

    /// Gives output to the subscribers that have room.
    fn offer(&self, output: &Output) {
        for subscriber in lock(&self.subscribers).iter().flatten() {
            let _ = subscriber.try_send(output.clone());
        }
    }
}

/// Follows a process to its end. `deadline` kills it.
pub(crate) async fn supervise(
    agent: Arc<Agent>,
    process: Arc<Process>,
    status: oneshot::Receiver<WaitStatus>,
    sources: Vec<Source>,
    deadline: Option<Instant>,
) {
    let pumps = sources.into_iter().map(|source| {
        let pump = Arc::clone(&process).pump(source);
        agent.tasks.spawn(pump)
    });
    let pumps: Vec<_> = pumps.collect();

    let Ok(status) = with_deadline(&agent, &process, deadline, status).await else {
        return;
    };
    let all_read = async {
        for pump in pumps {
            // A pump returns nothing and is never aborted.
            let _ = pump.await;
        }
    };
    let mut all_read = std::pin::pin!(all_read);
    let wait = async {
        tokio::select! {
            biased;
            () = &mut all_read => true,
            () = process.stop.cancelled() => false,
        }
    };
    if !with_deadline(&agent, &process, deadline, wait).await {
        process.drain.cancel();
        all_read.await;
    }
    finish(&agent, &process, end_event(status));
}

/// Waits for `work`; when the deadline passes first, kills the process and goes on waiting.
async fn with_deadline<T>(
    agent: &Agent,
    process: &Process,
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> T {
    let mut work = std::pin::pin!(work);
    if let Some(at) = deadline.filter(|_| !process.expired()) {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep_until(at) => {
                process.expired.store(true, Ordering::Relaxed);
                // Only a child that is gone already can't be killed.
                let _ = process.kill(agent, Signal::KILL);
            }
        }
    }
    work.await
}

fn finish(agent: &Agent, process: &Process, end: EndEvent) {
    agent.log.write(
        Level::Info,
        "process",
        "process ended",
        &[
            ("cmd", &process.config.cmd),
            ("pid", &process.pid.to_string()),
            ("exit", &end.status),
            ("bytes", &process.bytes.load(Ordering::Relaxed).to_string()),
        ],
    );
    agent.processes.end(process, end.clone());
    let _ = process.end.set(end);
    lock(&process.subscribers).take();
}
