//! From a request to a running process.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitStatus};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use warren_connect::process::process_event::data_event::Output;
use warren_connect::process::{ProcessConfig, StartRequest};
use warren_connect::{Code, Error};

use super::pty::{self, Master};
use super::supervise::{Input, Process, Source, supervise};
use crate::agent::Agent;
use crate::env::Vars;
use crate::log::Level;
use crate::paths;
use crate::sys::{self, Plan, REPORT_LEN};
use crate::users::{User, UserDb};

/// Starts a process and the task that follows it. Returns it with its first subscription.
///
/// # Errors
/// `invalid_argument` when the request can't be carried out, `resource_exhausted` when the
/// system has no room.
pub(crate) async fn start(
    agent: Arc<Agent>,
    user: User,
    request: StartRequest,
    deadline: Option<Instant>,
) -> Result<(Arc<Process>, mpsc::Receiver<Output>), Error> {
    let config = request.process.unwrap_or_default();
    let cwd = working_directory(&agent, &user, &config)?;
    let shown = shown_command(&config);
    let prefix = match request.pty {
        Some(_) => format!("error starting pty with command '{shown}'"),
        None => format!("error starting process '{shown}'"),
    };
    let fail = |e: io::Error| start_error(&prefix, &e);

    let vars = agent
        .settings()
        .env
        .for_process(&agent.config.path, &user, &config.envs);
    let ends = match request.pty {
        Some(pty) => Ends::terminal(pty.size.unwrap_or_default(), &user),
        None => Ends::pipes(request.stdin.unwrap_or(true)),
    }
    .map_err(fail)?;
    let plan = plan(&config, &user, &vars, cwd, &ends).map_err(fail)?;

    let (pid, report) = sys::fork_exec(&plan).map_err(fail)?;
    let status = agent.reaper.register(pid);
    drop(plan);
    let (input, sources) = ends.into_ours();
    await_exec(report, status, &fail).await.map(|status| {
        launch(
            &agent,
            pid,
            config,
            request.tag,
            input,
            sources,
            status,
            deadline,
        )
    })
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site; the parts of one process"
)]
fn launch(
    agent: &Arc<Agent>,
    pid: Pid,
    config: ProcessConfig,
    tag: Option<String>,
    input: Input,
    sources: Vec<Source>,
    status: oneshot::Receiver<WaitStatus>,
    deadline: Option<Instant>,
) -> (Arc<Process>, mpsc::Receiver<Output>) {
    let process = Arc::new(Process::new(pid, config, tag, input));
    let output = process.subscribe();
    agent.processes.insert(&process);
    agent.log.write(
        Level::Info,
        "process",
        "process started",
        &[
            ("cmd", &shown_command(&process.config)),
            ("pid", &process.pid.to_string()),
        ],
    );
    agent.tasks.spawn(supervise(
        Arc::clone(agent),
        Arc::clone(&process),
        status,
        sources,
        deadline,
    ));
    (process, output)
}

/// Waits until the child runs its command or has reported why it can't.
async fn await_exec(
    report: OwnedFd,
    status: oneshot::Receiver<WaitStatus>,
    fail: &impl Fn(io::Error) -> Error,
) -> Result<oneshot::Receiver<WaitStatus>, Error> {
    let mut pipe = pipe::Receiver::from_owned_fd(report).map_err(fail)?;
    let mut bytes = [0; REPORT_LEN];
    match pipe.read_exact(&mut bytes).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(status),
        Err(e) => Err(fail(e)),
        Ok(_) => Err(fail(sys::parse_report(bytes))),
    }
}

fn working_directory(agent: &Agent, user: &User, config: &ProcessConfig) -> Result<String, Error> {
    let given = config.cwd.as_deref().unwrap_or_default();
    let workdir = agent.default_workdir();
    let cwd = paths::resolve(given, &user.home, workdir.as_deref())
        .map_err(|e| Error::new(Code::InvalidArgument, e.to_string()))?;
    match std::fs::metadata(&cwd) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::new(
            Code::InvalidArgument,
            format!("cwd '{cwd}' does not exist"),
        )),
        // Whether the user may enter it is found out by entering.
        _ => Ok(cwd),
    }
}

fn shown_command(config: &ProcessConfig) -> String {
    let mut shown = config.cmd.clone();
    for arg in &config.args {
        shown.push(' ');
        shown.push_str(arg);
    }
    shown
}

fn start_error(prefix: &str, cause: &io::Error) -> Error {
    use rustix::io::Errno;
    let exhausted = [
        Errno::AGAIN,
        Errno::NOMEM,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOSPC,
    ];
    let is = |errno: &Errno| cause.raw_os_error() == Some(errno.raw_os_error());
    let code = if exhausted.iter().any(is) {
        Code::ResourceExhausted
    } else {
        Code::InvalidArgument
    };
    Error::new(code, format!("{prefix}: {cause}"))
}

fn plan<'a>(
    config: &ProcessConfig,
    user: &User,
    vars: &Vars,
    cwd: String,
    ends: &'a Ends,
) -> io::Result<Plan<'a>> {
    let mut argv = vec![c_string(config.cmd.clone())?];
    for arg in &config.args {
        argv.push(c_string(arg.clone())?);
    }
    let pairs = vars.iter().map(|(name, value)| format!("{name}={value}"));
    let path = vars.get("PATH").map(String::as_str).unwrap_or_default();
    let cmd = &config.cmd;
    Ok(Plan {
        candidates: candidates(cmd, path)?,
        argv,
        envp: pairs.map(c_string).collect::<io::Result<_>>()?,
        cwd: c_string(cwd)?,
        uid: user.uid,
        gid: user.gid,
        groups: UserDb::load()?.groups_of(user),
        stdio: ends.theirs(),
        terminal: matches!(ends, Ends::Terminal { .. }),
        not_found: format!("envd: '{cmd}': No such file or directory\n").into_bytes(),
        not_executable: format!("envd: '{cmd}': Permission denied\n").into_bytes(),
    })
}

/// The files that a command's name may mean.
fn candidates(cmd: &str, path: &str) -> io::Result<Vec<CString>> {
    if cmd.is_empty() {
        return Ok(Vec::new());
    }
    if cmd.contains('/') {
        return Ok(vec![c_string(cmd.to_owned())?]);
    }
    path.split(':')
        .map(|dir| {
            let dir = if dir.is_empty() { "." } else { dir };
            c_string(format!("{dir}/{cmd}"))
        })
        .collect()
}

fn c_string(text: String) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Both ends of a process's streams.
enum Ends {
    Terminal {
        master: Arc<Master>,
        slave: OwnedFd,
    },
    Pipes {
        stdin: OwnedFd,
        stdin_tx: Option<pipe::Sender>,
        stdout: OwnedFd,
        stdout_rx: pipe::Receiver,
        stderr: OwnedFd,
        stderr_rx: pipe::Receiver,
    },
}

impl Ends {
    fn terminal(size: warren_connect::process::pty::Size, user: &User) -> io::Result<Self> {
        let (master, slave) = pty::open(size, user)?;
        let master = Arc::new(master);
        Ok(Self::Terminal { master, slave })
    }

    fn pipes(with_stdin: bool) -> io::Result<Self> {
        let (stdin, stdin_tx) = if with_stdin {
            let (rx, tx) = pipe_with(PipeFlags::CLOEXEC)?;
            (rx, Some(pipe::Sender::from_owned_fd(tx)?))
        } else {
            (File::open("/dev/null")?.into(), None)
        };
        let (stdout_rx, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr_rx, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok(Self::Pipes {
            stdin,
            stdin_tx,
            stdout,
            stdout_rx: pipe::Receiver::from_owned_fd(stdout_rx)?,
            stderr,
            stderr_rx: pipe::Receiver::from_owned_fd(stderr_rx)?,
        })
    }

    fn theirs(&self) -> [std::os::fd::BorrowedFd<'_>; 3] {
        match self {
            Self::Terminal { slave, .. } => [slave.as_fd(); 3],
            Self::Pipes {
                stdin,
                stdout,
                stderr,
                ..
            } => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        }
    }

    /// Closes the process's ends and keeps ours.
    fn into_ours(self) -> (Input, Vec<Source>) {
        match self {
            Self::Terminal { master, .. } => (
                Input::Terminal(Arc::clone(&master), tokio::sync::Mutex::new(())),
                vec![Source::Terminal(master)],
            ),
            Self::Pipes {
                stdin_tx,
                stdout_rx,
                stderr_rx,
                ..
            } => {
                let input = match stdin_tx {
                    Some(tx) => Input::Pipe(tokio::sync::Mutex::new(Some(tx))),
                    None => Input::None,
                };
                let sources = vec![Source::Stdout(stdout_rx), Source::Stderr(stderr_rx)];
                (input, sources)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_a_slash_are_not_searched() {
        let list = |cmd, path| {
            let found = candidates(cmd, path).unwrap();
            let texts = found.into_iter().map(|c| c.into_string().unwrap());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(list("./x", "/a:/b"), ["./x"]);
        assert_eq!(list("x", "/a::/b"), ["/a/x", "./x", "/b/x"]);
        assert!(list("", "/a").is_empty());
    }

    #[test]
    fn a_lack_of_resources_is_told_apart() {
        let exhausted = start_error("p", &io::Error::from_raw_os_error(libc::EAGAIN));
        assert_eq!(exhausted.code, Code::ResourceExhausted);
        let denied = start_error("p", &io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(denied.code, Code::InvalidArgument);
        assert!(denied.message.starts_with("p: "));
    }
}
