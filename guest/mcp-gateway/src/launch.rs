//! Start: settings, servers, and the part that goes on in the background.
//!
//! The program that the SDK runs starts itself again without a terminal and waits for one
//! word of it, so that a failure is told on the standard error that the SDK shows.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::net::TcpListener;
use warren_service::{Chain, Secret, Tasks};

use crate::child::{Child, ChildError};
use crate::config::{self, ConfigError, ServerSpec, Step};
use crate::gateway::Gateway;
use crate::http::serve;

/// Where the SDKs look for the gateway.
const PORT: u16 = 50005;
/// Where the SDKs look for the token.
const STATE: &str = "/etc/mcp-gateway";
const TOKEN: &str = ".token";
const CONFIG: &str = "config.json";
const LOGS: &str = "/var/log/mcp-gateway";
const REPOSITORIES: &str = "/opt/mcp-gateway";
/// The variable that the SDKs give the token in.
const TOKEN_VARIABLE: &str = "GATEWAY_ACCESS_TOKEN";
/// What the background part says when the servers answer.
const READY: &str = "ready";
/// How much of a program's words is told of a failure.
const SAID: u64 = 2048;

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Settings that make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No token was given.
    #[error("the variable {TOKEN_VARIABLE} is not set")]
    NoToken,
    /// A file can't be written or read.
    #[error("{what} {path}")]
    File {
        /// What was being done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A program can't be run.
    #[error("run {program:?}")]
    Run {
        /// Which.
        program: String,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A step did not succeed.
    #[error("preparing the server {server:?}: {command:?} failed; it said: {said}")]
    Prepare {
        /// Of which server.
        server: String,
        /// Which.
        command: String,
        /// The last of its words.
        said: String,
    },
    /// Packages were not fetched.
    #[error("{0:?} failed")]
    Pull(String),
    /// A server did not start.
    #[error("the server {server:?} did not start")]
    Server {
        /// Which.
        server: String,
        /// The cause.
        #[source]
        cause: ChildError,
    },
    /// The port is taken, or something of that kind.
    #[error("listen on port {PORT}")]
    Listen(#[source] io::Error),
    /// The system refused something.
    #[error("{0}")]
    System(&'static str, #[source] io::Error),
    /// The background part failed, in its words.
    #[error("{0}")]
    Background(String),
}

/// Where things are, for tests to have them elsewhere.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Logs of servers.
    pub logs: PathBuf,
    /// Clones of repositories.
    pub repositories: PathBuf,
}

impl Default for Launch {
    fn default() -> Self {
        Self {
            logs: LOGS.into(),
            repositories: REPOSITORIES.into(),
        }
    }
}

fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LaunchError {
    let path = path.to_owned();
    move |cause| LaunchError::File { what, path, cause }
}

/// Starts the servers of these settings in the background; they answer on return.
///
/// # Errors
/// [`LaunchError`]; nothing runs then.
pub fn launch(config: &str) -> Result<(), LaunchError> {
    // Told before anything is done.
    config::read(config, Path::new(REPOSITORIES))?;
    let token = std::env::var(TOKEN_VARIABLE)
        .ok()
        .filter(|token| !token.is_empty());
    let token = token.ok_or(LaunchError::NoToken)?;
    let state = Path::new(STATE);
    make_dir(state, 0o700)?;
    write_private(&state.join(TOKEN), &token)?;
    write_private(&state.join(CONFIG), config)?;
    make_dir(Path::new(LOGS), 0o755)?;
    let log = open_log(Path::new(LOGS), "gateway")?;
    let program = std::env::current_exe().map_err(|e| LaunchError::System("find itself", e))?;
    let run = |cause| LaunchError::Run {
        program: "mcp-gateway".to_owned(),
        cause,
    };
    let mut child = Command::new(program)
        .arg("serve")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(run)?;
    let mut said = String::new();
    let stdout = child.stdout.take().expect("a pipe was asked for");
    // Its end closes the pipe, whatever befalls it.
    BufReader::new(stdout).read_line(&mut said).map_err(run)?;
    match said.trim_end() {
        READY => Ok(()),
        "" => Err(LaunchError::Background("the gateway ended".to_owned())),
        words => Err(LaunchError::Background(words.to_owned())),
    }
}

/// Runs the servers whose settings were written down. Returns only with an error.
///
/// # Errors
/// [`LaunchError`]
pub fn serve_in_background() -> Result<(), LaunchError> {
    // Signals to the group and the terminal of whoever started it are not meant for it.
    rustix::process::setsid().map_err(|e| LaunchError::System("leave the session", e.into()))?;
    let done = run();
    if let Err(error) = &done {
        // One line, which the part in front passes on.
        let words = Chain(error).to_string().replace('\n', " ");
        let _gone = writeln!(io::stdout(), "{words}");
    }
    done
}

fn run() -> Result<(), LaunchError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| LaunchError::System("start the runtime", e))?;
    runtime.block_on(async {
        let state = Path::new(STATE);
        let token = read_private(&state.join(TOKEN))?;
        let config = read_private(&state.join(CONFIG))?;
        let tasks = Tasks::new();
        // Taken first: a gateway that runs already is told of before anything is fetched.
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await;
        let listener = listener.map_err(LaunchError::Listen)?;
        let gateway = Launch::default().start(&config, &tasks).await?;
        say_ready()?;
        let token = Arc::new(Secret::new(token));
        serve(listener, Arc::new(gateway), token, tasks).await;
        Ok(())
    })
}

/// Tells that all is ready, and lets go of the standard output.
fn say_ready() -> Result<(), LaunchError> {
    let failed = |e| LaunchError::System("tell that it is ready", e);
    writeln!(io::stdout(), "{READY}").map_err(failed)?;
    let null = File::options()
        .write(true)
        .open("/dev/null")
        .map_err(failed)?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| failed(e.into()))
}

impl Launch {
    /// Starts all servers of these settings, at the same time.
    ///
    /// # Errors
    /// [`LaunchError`] of the first that fails; the others are ended.
    pub async fn start(&self, config: &str, tasks: &Tasks) -> Result<Gateway, LaunchError> {
        let specs = config::read(config, &self.repositories)?;
        make_dir(&self.logs, 0o755)?;
        let servers = specs.iter().map(|spec| self.start_one(spec, tasks));
        Ok(Gateway::new(try_join_all(servers).await?))
    }

    async fn start_one(&self, spec: &ServerSpec, tasks: &Tasks) -> Result<Child, LaunchError> {
        for step in &spec.prepare {
            prepare(spec, step).await?;
        }
        let log = open_log(&self.logs, &spec.name)?;
        let begin = log.metadata().map_or(0, |metadata| metadata.len());
        let path = log_path(&self.logs, &spec.name);
        let said = || last_words(&path, begin);
        let child = Child::start(spec, log, said, tasks).await;
        child.map_err(|cause| LaunchError::Server {
            server: spec.name.clone(),
            cause,
        })
    }
}

async fn prepare(spec: &ServerSpec, step: &Step) -> Result<(), LaunchError> {
    if step.unless.as_ref().is_some_and(|path| path.exists()) {
        return Ok(());
    }
    let (program, args) = step.command.split_first().expect("a step has a program");
    let mut command = tokio::process::Command::new(program);
    command
        .args(args)
        .envs(&spec.env)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Some(dir) = &step.dir {
        command.current_dir(dir);
    }
    let output = command.output().await.map_err(|cause| LaunchError::Run {
        program: program.clone(),
        cause,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = if output.stderr.is_empty() {
        output.stdout
    } else {
        output.stderr
    };
    let from = said
        .len()
        .saturating_sub(usize::try_from(SAID).unwrap_or(usize::MAX));
    Err(LaunchError::Prepare {
        server: spec.name.clone(),
        command: step.command.join(" "),
        said: String::from_utf8_lossy(&said[from..]).trim().to_owned(),
    })
}

/// Fetches the packages of servers.
///
/// # Errors
/// [`LaunchError::Config`] of a name that is none, before anything is fetched;
/// [`LaunchError::Pull`].
pub fn pull(names: &[String]) -> Result<(), LaunchError> {
    for words in config::fetching(names)? {
        let (program, args) = words.split_first().expect("a command has a program");
        let status = Command::new(program).args(args).status();
        let status = status.map_err(|cause| LaunchError::Run {
            program: program.clone(),
            cause,
        })?;
        if !status.success() {
            return Err(LaunchError::Pull(words.join(" ")));
        }
    }
    Ok(())
}

fn make_dir(path: &Path, mode: u32) -> Result<(), LaunchError> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(mode).create(path);
    made.map_err(file("make", path))
}

fn write_private(path: &Path, content: &str) -> Result<(), LaunchError> {
    let write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content.as_bytes())
    };
    write().map_err(file("write", path))
}

fn read_private(path: &Path) -> Result<String, LaunchError> {
    fs::read_to_string(path).map_err(file("read", path))
}

fn log_path(logs: &Path, name: &str) -> PathBuf {
    logs.join(format!("{}.log", name.replace('/', "_")))
}

fn open_log(logs: &Path, name: &str) -> Result<File, LaunchError> {
    let path = log_path(logs, name);
    let opened = OpenOptions::new().append(true).create(true).open(&path);
    opened.map_err(file("open", &path))
}

/// The end of what was written to a log since then, on one line.
fn last_words(path: &Path, since: u64) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut log = File::open(path)?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(since.max(length.saturating_sub(SAID))))?;
        let mut words = Vec::new();
        log.take(SAID).read_to_end(&mut words)?;
        Ok(words)
    };
    let words = read().unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let words: Vec<_> = words.split_whitespace().collect();
    words.join(" ")
}
