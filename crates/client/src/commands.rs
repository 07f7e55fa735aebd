//! Commands in a sandbox.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use warren_connect::process::process_event::data_event::Output as DataOutput;
use warren_connect::process::process_event::{self, EndEvent};
use warren_connect::process::process_input::Input;
use warren_connect::process::process_selector::Selector;
use warren_connect::process::{
    CloseStdinRequest, CloseStdinResponse, ConnectRequest, ConnectResponse, ListRequest,
    ListResponse, ProcessConfig, ProcessEvent, ProcessInfo, ProcessInput, ProcessSelector,
    SendInputRequest, SendInputResponse, SendSignalRequest, SendSignalResponse, Signal,
    StartRequest, StartResponse, UpdateRequest, UpdateResponse,
};

use crate::agent::{Agent, Messages};
use crate::error::Error;
use crate::terminal::{Terminal, TerminalSize};

pub(crate) const SERVICE: &str = "process.Process";
const START: &str = "run a command";
const FOLLOW: &str = "follow a process";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Output that [`Commands::run`] keeps, of both streams together.
const OUTPUT_LIMIT: usize = 64 << 20;

/// A command line and how to run it. By default as the sandbox's user, in its home, for at
/// most a minute, without standard input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    line: String,
    envs: BTreeMap<String, String>,
    cwd: Option<String>,
    user: Option<String>,
    stdin: bool,
    timeout: Option<Duration>,
}

impl Command {
    /// A line for a login shell.
    #[must_use]
    pub fn new(line: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            envs: BTreeMap::new(),
            cwd: None,
            user: None,
            stdin: false,
            timeout: Some(DEFAULT_TIMEOUT),
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.envs.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<String>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Runs it as another user.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// Gives it a standard input, to be written with [`Process::send_stdin`].
    #[must_use]
    pub fn stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Kills it after this time; `None` lets it run on.
    #[must_use]
    pub fn timeout(mut self, timeout: Option<Duration>) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<T: Into<String>> From<T> for Command {
    fn from(line: T) -> Self {
        Self::new(line)
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// Exit code; -1 after a signal.
    pub code: i32,
    /// Outcome in words unless it was success, such as `signal: killed`.
    pub error: Option<String>,
}

impl From<EndEvent> for Exit {
    fn from(end: EndEvent) -> Self {
        Self {
            code: end.exit_code,
            error: end.error,
        }
    }
}

/// What a process did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It wrote to its standard output, or its terminal.
    Stdout(Bytes),
    /// It wrote to its standard error.
    Stderr(Bytes),
    /// It ended. Nothing follows.
    Exit(Exit),
}

/// What a command wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// How it ended. A code other than 0 is no [`Error`].
    pub exit: Exit,
}

impl Output {
    /// Standard output as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text; bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// Runs commands in a sandbox.
#[derive(Debug, Clone)]
pub struct Commands {
    agent: Agent,
}

impl Commands {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent }
    }

    /// Runs a command to its end. Takes a line or a [`Command`].
    ///
    /// # Errors
    /// [`Error`]; [`Error::TooLong`] over 64 MiB of output, and then the command runs on.
    pub async fn run(&self, command: impl Into<Command>) -> Result<Output, Error> {
        let mut process = self.start(command).await?;
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(event) = process.next().await? {
            match event {
                Event::Stdout(bytes) => stdout.extend_from_slice(&bytes),
                Event::Stderr(bytes) => stderr.extend_from_slice(&bytes),
                Event::Exit(exit) => {
                    return Ok(Output {
                        stdout,
                        stderr,
                        exit,
                    });
                }
            }
            if stdout.len() + stderr.len() > OUTPUT_LIMIT {
                return Err(Error::TooLong {
                    operation: START,
                    limit: OUTPUT_LIMIT,
                });
            }
        }
        Err(Error::Cut { operation: START })
    }

    /// Starts a command and returns once it runs.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn start(&self, command: impl Into<Command>) -> Result<Process, Error> {
        let Command {
            line,
            envs,
            cwd,
            user,
            stdin,
            timeout,
        } = command.into();
        let request = StartRequest {
            process: Some(ProcessConfig {
                cmd: "/bin/bash".to_owned(),
                args: vec!["-l".to_owned(), "-c".to_owned(), line],
                envs,
                cwd,
            }),
            pty: None,
            tag: None,
            stdin: Some(stdin),
        };
        let agent = self.agent.clone().with_user(user);
        let messages = agent
            .stream(START, SERVICE, "Start", &request, timeout)
            .await?;
        Process::begin(agent, messages, Followed::Start).await
    }

    /// Follows a process that runs already, from now on.
    ///
    /// # Errors
    /// [`Error`]; not found if it does not run.
    pub async fn connect(&self, pid: u32) -> Result<Process, Error> {
        let request = ConnectRequest {
            process: selector(pid),
        };
        let agent = self.agent.clone();
        let messages = agent
            .stream(FOLLOW, SERVICE, "Connect", &request, None)
            .await?;
        Process::begin(agent, messages, Followed::Connect).await
    }

    /// Lists the processes that were started through the agent and still run.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self) -> Result<Vec<ProcessInfo>, Error> {
        let answer: ListResponse = self
            .agent
            .unary("list processes", SERVICE, "List", &ListRequest {})
            .await?;
        Ok(answer.processes)
    }

    /// Starts a program on a terminal and returns once it runs. Its output arrives as
    /// [`Event::Stdout`].
    ///
    /// # Errors
    /// [`Error`].
    pub async fn start_terminal(&self, terminal: Terminal) -> Result<Process, Error> {
        let (request, user) = terminal.into_request();
        let agent = self.agent.clone().with_user(user);
        let messages = agent
            .stream(START, SERVICE, "Start", &request, None)
            .await?;
        Process::begin(agent, messages, Followed::Start).await
    }

    /// Types into the terminal of a process, in the order of calls.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn send_terminal(&self, pid: u32, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.send(pid, Input::Pty(bytes.into())).await
    }

    /// Changes the size of the terminal of a process.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn resize(&self, pid: u32, size: TerminalSize) -> Result<(), Error> {
        let request = UpdateRequest {
            process: selector(pid),
            pty: Some(size.into()),
        };
        let operation = "resize a terminal";
        let _: UpdateResponse = self
            .agent
            .unary(operation, SERVICE, "Update", &request)
            .await?;
        Ok(())
    }

    /// Kills a process. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn kill(&self, pid: u32) -> Result<bool, Error> {
        let request = SendSignalRequest {
            process: selector(pid),
            signal: Signal::Sigkill.into(),
        };
        let answer: Result<SendSignalResponse, Error> = self
            .agent
            .unary("kill a process", SERVICE, "SendSignal", &request)
            .await;
        match answer {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes to the standard input of a process, in the order of calls.
    ///
    /// # Errors
    /// [`Error`]; the agent's `internal` if it was started without one.
    pub async fn send_stdin(&self, pid: u32, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.send(pid, Input::Stdin(bytes.into())).await
    }

    async fn send(&self, pid: u32, input: Input) -> Result<(), Error> {
        let request = SendInputRequest {
            process: selector(pid),
            input: Some(ProcessInput { input: Some(input) }),
        };
        let _: SendInputResponse = self
            .agent
            .unary("write to a process", SERVICE, "SendInput", &request)
            .await?;
        Ok(())
    }

    /// Ends the standard input of a process.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn close_stdin(&self, pid: u32) -> Result<(), Error> {
        let request = CloseStdinRequest {
            process: selector(pid),
        };
        let operation = "end the input of a process";
        let _: CloseStdinResponse = self
            .agent
            .unary(operation, SERVICE, "CloseStdin", &request)
            .await?;
        Ok(())
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

/// Which of two like messages a stream carries.
#[derive(Debug, Clone, Copy)]
enum Followed {
    Start,
    Connect,
}

/// A process that is followed. Dropped, it runs on.
#[derive(Debug)]
pub struct Process {
    commands: Commands,
    pid: u32,
    messages: Messages,
    followed: Followed,
}

impl Process {
    async fn begin(agent: Agent, messages: Messages, followed: Followed) -> Result<Self, Error> {
        let mut process = Self {
            commands: Commands::new(agent),
            pid: 0,
            messages,
            followed,
        };
        match process.next_event().await? {
            Some(process_event::Event::Start(start)) => process.pid = start.pid,
            _ => {
                return Err(Error::Cut {
                    operation: process.operation(),
                });
            }
        }
        Ok(process)
    }

    fn operation(&self) -> &'static str {
        match self.followed {
            Followed::Start => START,
            Followed::Connect => FOLLOW,
        }
    }

    /// Its process id inside the sandbox.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    async fn next_event(&mut self) -> Result<Option<process_event::Event>, Error> {
        loop {
            let event: Option<ProcessEvent> = match self.followed {
                Followed::Start => match self.messages.next::<StartResponse>().await? {
                    Some(message) => message.event,
                    None => return Ok(None),
                },
                Followed::Connect => match self.messages.next::<ConnectResponse>().await? {
                    Some(message) => message.event,
                    None => return Ok(None),
                },
            };
            match event.and_then(|event| event.event) {
                // An empty message is an event that this client does not know.
                Some(process_event::Event::Keepalive(_)) | None => {}
                Some(event) => return Ok(Some(event)),
            }
        }
    }

    /// Waits for what it does next; `None` after its exit. Cancel-safe.
    ///
    /// # Errors
    /// [`Error`]; the agent's `deadline_exceeded` after the command's time-out.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        while let Some(event) = self.next_event().await? {
            match event {
                process_event::Event::Data(data) => match data.output {
                    Some(DataOutput::Stdout(bytes) | DataOutput::Pty(bytes)) => {
                        return Ok(Some(Event::Stdout(bytes)));
                    }
                    Some(DataOutput::Stderr(bytes)) => return Ok(Some(Event::Stderr(bytes))),
                    None => {}
                },
                process_event::Event::End(end) => return Ok(Some(Event::Exit(end.into()))),
                process_event::Event::Start(_) | process_event::Event::Keepalive(_) => {}
            }
        }
        Ok(None)
    }

    /// Drops output until it ends.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn wait(&mut self) -> Result<Exit, Error> {
        while let Some(event) = self.next().await? {
            if let Event::Exit(exit) = event {
                return Ok(exit);
            }
        }
        Err(Error::Cut {
            operation: self.operation(),
        })
    }

    /// As [`Commands::send_stdin`].
    ///
    /// # Errors
    /// As [`Commands::send_stdin`].
    pub async fn send_stdin(&self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.commands.send_stdin(self.pid, bytes).await
    }

    /// As [`Commands::close_stdin`].
    ///
    /// # Errors
    /// As [`Commands::close_stdin`].
    pub async fn close_stdin(&self) -> Result<(), Error> {
        self.commands.close_stdin(self.pid).await
    }

    /// As [`Commands::send_terminal`].
    ///
    /// # Errors
    /// As [`Commands::send_terminal`].
    pub async fn send_terminal(&self, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.commands.send_terminal(self.pid, bytes).await
    }

    /// As [`Commands::resize`].
    ///
    /// # Errors
    /// As [`Commands::resize`].
    pub async fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.commands.resize(self.pid, size).await
    }

    /// What runs commands in its sandbox, as the user that it was started as.
    #[must_use]
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// As [`Commands::kill`].
    ///
    /// # Errors
    /// As [`Commands::kill`].
    pub async fn kill(&self) -> Result<bool, Error> {
        self.commands.kill(self.pid).await
    }
}
