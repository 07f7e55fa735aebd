//! From a command line to a serving agent and its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::Pid;
use tokio::signal::unix::{SignalKind, signal};
use warren_service::Secret;

use crate::agent::{Agent, AgentConfig};
use crate::cli::Options;
use crate::env::DEFAULT_PATH;
use crate::log::{Level, Log};
use crate::{init, server, sys};

/// Longest init key in bytes.
const MAX_INIT_KEY: u64 = 4096;
/// Threads for file work.
const BLOCKING_THREADS: usize = 8;
/// Stack of such a thread: the deepest walk needs a few hundred bytes per level.
const BLOCKING_STACK: usize = 1 << 20;
/// How long connections get when the agent stops.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// Why the agent can't run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It needs other users' rights.
    #[error("must be run as root: processes and files belong to the sandbox's users")]
    NotRoot,
    /// A descriptor on the command line can't be used.
    #[error("failed to use descriptor {fd} of -{flag}")]
    Descriptor {
        /// The flag.
        flag: &'static str,
        /// The number.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The run-time directory can't be made.
    #[error("failed to prepare /run/e2b")]
    RunDir(#[source] io::Error),
    /// The runtime can't be made.
    #[error("failed to start")]
    Start(#[source] io::Error),
    /// The port is taken.
    #[error("failed to listen on port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves until the process is told to stop.
///
/// # Errors
/// The agent can't start.
pub fn run(options: &Options) -> Result<(), RunError> {
    if !rustix::process::geteuid().is_root() {
        return Err(RunError::NotRoot);
    }
    sys::hide_descriptors();
    let ready = take_fd("ready-fd", options.ready_fd)?;
    let log = take_fd("log-fd", options.log_fd)?;
    let init_key = match (
        take_fd("init-key-fd", options.init_key_fd)?,
        options.init_key_fd,
    ) {
        (Some(fd), Some(number)) => Some(read_key(fd).map_err(|source| RunError::Descriptor {
            flag: "init-key-fd",
            fd: number,
            source,
        })?),
        _ => None,
    };
    sys::ignore_hangup();
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    init::prepare_run_dir().map_err(RunError::RunDir)?;

    let config = AgentConfig {
        set_clock: options.set_clock,
        limits: options.limits,
        path: std::env::var("PATH")
            .ok()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| DEFAULT_PATH.to_owned()),
    };
    let agent = Arc::new(Agent::new(config, init_key, Log::new(log, options.verbose)));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(BLOCKING_STACK)
        .build()
        .map_err(RunError::Start)?;
    let result = runtime.block_on(serve(&agent, options, ready));
    // Threads that hang in the file system must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(
    agent: &Arc<Agent>,
    options: &Options,
    ready: Option<OwnedFd>,
) -> Result<(), RunError> {
    let port = options.port;
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Start)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Start)?;
    let reaping = Arc::clone(&agent.reaper).start().map_err(RunError::Start)?;
    let listener = server::bind(options.address, port)
        .await
        .map_err(|source| RunError::Listen { port, source })?;
    let bound = listener
        .local_addr()
        .map_err(|source| RunError::Listen { port, source })?
        .port();
    if let Some(ready) = ready {
        // A host that does not wait any more is no reason to stop.
        let _ = writeln!(File::from(ready), "{bound}");
    }
    agent.log.write(
        Level::Info,
        "envd",
        "listening",
        &[("port", &bound.to_string()), ("version", crate::VERSION)],
    );
    tokio::select! {
        () = server::serve(Arc::clone(agent), listener) => {}
        () = reaping => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop(agent).await;
    Ok(())
}

/// Ends everything that was started here; as process 1, everything there is.
async fn stop(agent: &Agent) {
    agent.log.write(Level::Info, "envd", "stopping", &[]);
    agent.reaper.kill_all();
    if rustix::process::getpid() == Pid::INIT {
        sys::kill_everyone();
    }
    agent.tasks.stop(STOP_LIMIT).await;
}

fn take_fd(flag: &'static str, number: Option<RawFd>) -> Result<Option<OwnedFd>, RunError> {
    number
        .map(|fd| sys::inherited_fd(fd).map_err(|source| RunError::Descriptor { flag, fd, source }))
        .transpose()
}

fn read_key(fd: OwnedFd) -> io::Result<Secret> {
    let mut key = String::new();
    File::from(fd).take(MAX_INIT_KEY).read_to_string(&mut key)?;
    let key = key.trim_end_matches(['\r', '\n']);
    if key.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Secret::new(key.to_owned()))
}
