//! From options to a serving interpreter and its end.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use warren_service::Tasks;

use crate::cli::Options;
use crate::context::Shared;
use crate::identity::Identity;
use crate::kernel::{Launch, RunDir, SpecDirs};
use crate::memory::OomMeter;
use crate::registry::Registry;
use crate::{log, server, users};

/// How long the end of all tasks is waited for.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// First pause before default contexts are tried again; it doubles up to the longest.
const RETRY: Duration = Duration::from_millis(200);
/// Longest such pause.
const RETRY_LONGEST: Duration = Duration::from_secs(10);
/// Search path of kernels when the server itself has none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The server could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No runtime.
    #[error("start")]
    Start(#[source] io::Error),
    /// The user is unknown.
    #[error("look up user {name}")]
    User {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory for kernels' files can't be used.
    #[error("use {}", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The address is taken.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Serves until a signal asks to stop. All kernels end with the server.
///
/// # Errors
/// The server can't start.
pub fn run(options: &Options, env: BTreeMap<String, String>) -> Result<(), RunError> {
    // One thread: cells run in kernels, and what dies with "its parent" dies with a thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.map_err(RunError::Start)?.block_on(async {
        let listener = server::bind(&options.listen).await.map_err(|source| {
            let address = options.listen.clone();
            RunError::Listen { address, source }
        })?;
        let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Start)?;
        let tasks = Tasks::new();
        start(options, env, listener, &tasks)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tasks.stop(STOP_LIMIT).await;
        Ok(())
    })
}

/// Starts serving on `listener`, as part of a program that owns `tasks`.
///
/// # Errors
/// The user or the directory can't be used.
pub fn start(
    options: &Options,
    mut env: BTreeMap<String, String>,
    listener: TcpListener,
    tasks: &Tasks,
) -> Result<(), RunError> {
    let user = if rustix::process::geteuid().is_root() {
        let name = &options.user;
        let found = users::find(name);
        Some(found.map_err(|source| RunError::User {
            name: name.clone(),
            source,
        })?)
    } else {
        None
    };
    env.entry("PATH".to_owned())
        .or_insert_with(|| DEFAULT_PATH.to_owned());
    env.entry("LANG".to_owned())
        .or_insert_with(|| "C.UTF-8".to_owned());
    if let Some(user) = &user {
        env.insert("HOME".to_owned(), user.home.clone());
        env.insert("USER".to_owned(), user.name.clone());
        env.insert("LOGNAME".to_owned(), user.name.clone());
    }
    let home = env.get("HOME").map_or("/", String::as_str);
    let path = env.get("PATH").map(String::as_str);
    let dirs = SpecDirs::of_system(env.get("JUPYTER_PATH").map(String::as_str), home, path);
    let run_dir = RunDir::open(&options.run_dir).map_err(|source| {
        let path = options.run_dir.clone();
        RunError::RunDir { path, source }
    })?;
    let shared = Shared {
        launch: Arc::new(Launch { user, env, run_dir }),
        agent: options.agent.as_str().into(),
        oom: Arc::new(OomMeter::new(options.host.clone())),
        identity: Arc::new(Identity::new(options.identity.clone())),
        tasks: tasks.clone(),
    };
    tasks.spawn(know_oom_kills(shared.clone()));
    let registry = Arc::new(Registry::new(shared, dirs, options.cwd.clone()));
    tasks.spawn(defaults(Arc::clone(&registry)));
    tasks.spawn(server::serve(registry, tasks.clone(), listener));
    Ok(())
}

/// What was killed before the first kernel, in a server that was started again.
async fn know_oom_kills(shared: Shared) {
    if let Err(error) = shared.oom.ask(&shared.tasks).await {
        log::warn("the sandbox's memory", &error);
    }
}

/// Makes the default contexts; tries again until it has them. Only the first language's
/// kernel runs from the start: most sandboxes need no other, and each costs a lot of memory.
async fn defaults(registry: Arc<Registry>) {
    let mut pause = RETRY;
    for language in server::DEFAULTS {
        let dormant = language != server::DEFAULT_LANGUAGE;
        while registry.is_installed(language) {
            match registry.start_default(language, dormant).await {
                Ok(()) => break,
                Err(error) => log::warn("default contexts", &error),
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }
}
