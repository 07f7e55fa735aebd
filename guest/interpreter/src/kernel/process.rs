//! One kernel: its process, its channels, its start and its end.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll};
use rustix::process::Signal;
use serde::Serialize;
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use warren_service::Tasks;
use zeromq::{
    DealerSocket, Socket, SocketEvent, SocketRecv, SocketSend, SubSocket, ZmqError, ZmqMessage,
};

use super::output::Tail;
use super::place::{Channel, Place, RunDir};
use super::spec::{InterruptMode, KernelSpec};
use super::wire::{Message, Session, WireError};
use crate::random;
use crate::sys;
use crate::users::User;

/// How long a kernel may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Pause between looks for a starting kernel's sockets.
const LOOK: Duration = Duration::from_millis(10);
/// How long a starting kernel's answer is waited for before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long a kernel may take to answer over a connection that replaces a lost one.
const RECONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A kernel that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The working directory can't be used.
    #[error("working directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its files can't be made.
    #[error("make the kernel's files")]
    Files(#[source] io::Error),
    /// The description names no program.
    #[error("kernel {0} has an empty command line")]
    NoCommand(String),
    /// The program can't be run.
    #[error("run {program}")]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("the kernel ended while starting ({status}): {output}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last it wrote.
        output: String,
    },
    /// It does not answer.
    #[error("the kernel did not answer within {} s: {output}", limit.as_secs())]
    Silent {
        /// How long was waited.
        limit: Duration,
        /// The last it wrote.
        output: String,
    },
    /// A channel can't be used.
    #[error("connect to the kernel")]
    Channel(#[source] SendError),
}

/// A request that could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// It can't be written.
    #[error("write a request")]
    Wire(#[source] WireError),
    /// The connection is lost.
    #[error("the connection to the kernel")]
    Socket(#[source] Box<ZmqError>),
}

impl From<ZmqError> for SendError {
    fn from(error: ZmqError) -> Self {
        Self::Socket(Box::new(error))
    }
}

/// What kernels are started with.
#[derive(Debug, Clone)]
pub struct Launch {
    /// User to become; `None` stays who the server is.
    pub(crate) user: Option<User>,
    /// Variables, which the kernel's description adds to.
    pub env: BTreeMap<String, String>,
    /// Where kernels' files are.
    pub run_dir: RunDir,
}

/// What happened in a kernel.
#[derive(Debug)]
pub enum Event {
    /// It published a message.
    Published(Message),
    /// It answered a request.
    Answered(Message),
    /// Its process ended.
    Ended(ExitStatus),
    /// It can't be heard any more although it runs: connections over ports end when a sandbox
    /// goes on from a capture.
    Lost,
}

/// A running kernel. Dropping it kills its process group.
#[derive(Debug)]
pub struct Kernel {
    child: Child,
    leader: u32,
    ended: bool,
    channels: Channels,
    interrupt_mode: InterruptMode,
    output: Tail,
    env: BTreeMap<String, String>,
    place: Place,
}

struct Channels {
    session: Session,
    shell: DealerSocket,
    control: DealerSocket,
    iopub: SubSocket,
    /// Tells what becomes of the connections on which the kernel is heard.
    watch: SelectAll<BoxStream<'static, SocketEvent>>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

impl Kernel {
    /// Starts a kernel in `cwd` and waits until it answers.
    ///
    /// # Errors
    /// It can't be started or does not answer in time.
    pub async fn start(
        spec: &KernelSpec,
        launch: &Launch,
        cwd: &Path,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let credentials = launch.user.as_ref().map(|user| user.credentials.clone());
        let place = Place::make(
            &launch.run_dir,
            spec.transport(),
            &spec.name,
            credentials.as_ref(),
        )
        .map_err(StartError::Files)?;
        let mut env = launch.env.clone();
        for (name, value) in &spec.env {
            env.insert(name.clone(), expand(value, &launch.env));
        }
        let mut child = spawn(spec, launch, cwd, &place, &env)?;
        let output = Tail::default();
        if let Some(pipe) = child.stdout.take() {
            tasks.spawn(output.clone().collect(pipe));
        }
        if let Some(pipe) = child.stderr.take() {
            tasks.spawn(output.clone().collect(pipe));
        }
        let leader = child.id().unwrap_or_default();
        let kill = KillOnDrop(leader);
        place.record(leader).map_err(StartError::Files)?;
        let channels = Channels::when_ready(&place, &mut child, &output).await?;
        kill.disarm();
        Ok(Self {
            child,
            leader,
            ended: false,
            channels,
            interrupt_mode: spec.interrupt_mode,
            output,
            env,
            place,
        })
    }

    /// The environment that the kernel was started with.
    #[must_use]
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The last that the process wrote outside the protocol.
    #[must_use]
    pub fn last_output(&self) -> String {
        self.output.text()
    }

    /// Asks the kernel to run code. Returns the id that answers will name. Silent code is
    /// not counted, not remembered, and its results are not published.
    ///
    /// # Errors
    /// The connection is lost.
    pub async fn execute(&mut self, code: &str, silent: bool) -> Result<String, SendError> {
        let content = json!({
            "code": code, "silent": silent, "store_history": !silent,
            "user_expressions": {}, "allow_stdin": false, "stop_on_error": false,
        });
        self.channels.ask("execute_request", &content).await
    }

    /// Waits for the next event. Nothing is lost when the wait is given up. Without
    /// `published` the kernel's publications stay where they are, up to its own limits.
    pub async fn next(&mut self, published: bool) -> Event {
        loop {
            let channels = &mut self.channels;
            let (frames, is_answer) = tokio::select! {
                () = disconnected(&mut channels.watch) => return self.lost().await,
                status = self.child.wait(), if !self.ended => match status {
                    Ok(status) => {
                        self.ended = true;
                        return Event::Ended(status);
                    }
                    Err(_) => return Event::Lost,
                },
                frames = channels.iopub.recv(), if published => (frames, false),
                frames = channels.shell.recv() => (frames, true),
            };
            let Ok(frames) = frames else {
                return self.lost().await;
            };
            // What is not signed is not the kernel's.
            if let Ok(message) = channels.session.decode(&frames.into_vec()) {
                return if is_answer {
                    Event::Answered(message)
                } else {
                    Event::Published(message)
                };
            }
        }
    }

    /// What a broken connection means: that the kernel has ended, or that it is lost. A dying
    /// kernel's connections break before its end is told.
    pub async fn lost(&mut self) -> Event {
        match timeout(ASK_AGAIN, self.child.wait()).await {
            Ok(Ok(status)) => {
                self.ended = true;
                Event::Ended(status)
            }
            _ => Event::Lost,
        }
    }

    /// Connects anew to a kernel that was lost. What it said meanwhile is gone.
    ///
    /// # Errors
    /// It has ended, or does not answer in time.
    pub async fn reconnect(&mut self) -> Result<(), StartError> {
        let deadline = Instant::now() + RECONNECT_LIMIT;
        let (child, output) = (&mut self.child, &self.output);
        let check = || still_starting(child, output, (RECONNECT_LIMIT, deadline));
        self.channels = Channels::open(&self.place, check).await?;
        Ok(())
    }

    /// Takes what an ended kernel published before its end; `None` when there is no more.
    pub async fn last_words(&mut self) -> Option<Message> {
        const WAIT: Duration = Duration::from_millis(100);
        loop {
            let frames = timeout(WAIT, self.channels.iopub.recv()).await.ok()?.ok()?;
            if let Ok(message) = self.channels.session.decode(&frames.into_vec()) {
                return Some(message);
            }
        }
    }

    /// Asks the kernel to stop the running cell.
    pub async fn interrupt(&mut self) {
        match self.interrupt_mode {
            InterruptMode::Signal => sys::signal_group(self.leader, Signal::INT),
            InterruptMode::Message => {
                // A kernel that can't be asked has lost its cell already.
                let _ = self.channels.interrupt().await;
            }
        }
    }

    /// Kills the kernel and everything in its process group, and waits for its end.
    pub async fn end(mut self) {
        sys::signal_group(self.leader, Signal::KILL);
        if !self.ended {
            // The group's leader can't refuse; what else could fail is that it is gone.
            let _ = self.child.wait().await;
            self.ended = true;
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        sys::signal_group(self.leader, Signal::KILL);
    }
}

impl Channels {
    /// Connects once the kernel listens, and asks until it answers on all channels: what it
    /// publishes before it knows of our subscription is lost.
    async fn when_ready(
        place: &Place,
        child: &mut Child,
        output: &Tail,
    ) -> Result<Self, StartError> {
        let limit = (START_LIMIT, Instant::now() + START_LIMIT);
        for channel in [Channel::Shell, Channel::Iopub, Channel::Control] {
            while !place.endpoints.may_listen(channel) {
                if let Err(error) = still_starting(child, output, limit) {
                    // Its last words arrive after its end.
                    sleep(LOOK).await;
                    return still_starting(child, output, limit).and(Err(error));
                }
                sleep(LOOK).await;
            }
        }
        Self::open(place, || still_starting(child, output, limit)).await
    }

    /// Connects, and asks until the kernel answers on all channels or `check` fails.
    async fn open(
        place: &Place,
        mut check: impl FnMut() -> Result<(), StartError>,
    ) -> Result<Self, StartError> {
        let connect = Self::connect(place);
        let mut channels = connect.await.map_err(StartError::Channel)?;
        let (mut answered, mut published) = (false, false);
        while !(answered && published) {
            check()?;
            let asked = channels.ask("kernel_info_request", &json!({})).await;
            asked.map_err(StartError::Channel)?;
            let again = sleep(ASK_AGAIN);
            tokio::pin!(again);
            while !(answered && published) {
                tokio::select! {
                    () = &mut again => break,
                    frames = channels.shell.recv(), if !answered => {
                        frames.map_err(|e| StartError::Channel(e.into()))?;
                        answered = true;
                    }
                    frames = channels.iopub.recv(), if !published => {
                        frames.map_err(|e| StartError::Channel(e.into()))?;
                        published = true;
                    }
                }
            }
        }
        Ok(channels)
    }

    async fn connect(place: &Place) -> Result<Self, SendError> {
        let endpoints = &place.endpoints;
        let mut shell = DealerSocket::new();
        let mut iopub = SubSocket::new();
        let watch = [shell.monitor().boxed(), iopub.monitor().boxed()];
        shell.connect(&endpoints.of(Channel::Shell)).await?;
        let mut control = DealerSocket::new();
        control.connect(&endpoints.of(Channel::Control)).await?;
        iopub.connect(&endpoints.of(Channel::Iopub)).await?;
        iopub.subscribe("").await?;
        let session = Session::new(place.key.clone(), random::hex::<8>());
        Ok(Self {
            session,
            shell,
            control,
            iopub,
            watch: watch.into_iter().collect(),
        })
    }

    async fn ask<T: Serialize>(&mut self, kind: &str, content: &T) -> Result<String, SendError> {
        let (id, frames) = self
            .session
            .request(kind, content)
            .map_err(SendError::Wire)?;
        self.shell.send(message(frames)?).await?;
        Ok(id)
    }

    async fn interrupt(&mut self) -> Result<(), SendError> {
        let request = self.session.request("interrupt_request", &json!({}));
        let (_, frames) = request.map_err(SendError::Wire)?;
        self.control.send(message(frames)?).await?;
        Ok(())
    }
}

fn message(frames: Vec<Bytes>) -> Result<ZmqMessage, SendError> {
    ZmqMessage::try_from(frames)
        .map_err(|_| SendError::from(ZmqError::Other("a request without frames")))
}

/// Resolves when a connection ends.
async fn disconnected(watch: &mut SelectAll<BoxStream<'static, SocketEvent>>) {
    while let Some(event) = watch.next().await {
        if matches!(event, SocketEvent::Disconnected(_)) {
            return;
        }
    }
    std::future::pending().await
}

/// Fails once a kernel has ended or its time is up, which lasts so long and ends then.
fn still_starting(
    child: &mut Child,
    output: &Tail,
    (limit, deadline): (Duration, Instant),
) -> Result<(), StartError> {
    match child.try_wait() {
        Ok(Some(status)) => Err(StartError::Ended {
            status,
            output: output.text(),
        }),
        _ if Instant::now() >= deadline => Err(StartError::Silent {
            limit,
            output: output.text(),
        }),
        _ => Ok(()),
    }
}

/// Kills a process group when a start is given up.
struct KillOnDrop(u32);

impl KillOnDrop {
    fn disarm(mut self) {
        self.0 = 0;
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if self.0 != 0 {
            sys::signal_group(self.0, Signal::KILL);
        }
    }
}

fn spawn(
    spec: &KernelSpec,
    launch: &Launch,
    cwd: &Path,
    place: &Place,
    env: &BTreeMap<String, String>,
) -> Result<Child, StartError> {
    let directory = |source| StartError::Directory {
        path: cwd.to_owned(),
        source,
    };
    if !std::fs::metadata(cwd).map_err(directory)?.is_dir() {
        return Err(directory(io::ErrorKind::NotADirectory.into()));
    }
    let dir = CString::new(cwd.as_os_str().as_bytes())
        .map_err(|_| directory(io::ErrorKind::InvalidInput.into()))?;
    let connection_file = place.connection_file().display().to_string();
    let resource_dir = spec.dir.display().to_string();
    let mut argv = spec.argv.iter().map(|arg| {
        arg.replace("{connection_file}", &connection_file)
            .replace("{resource_dir}", &resource_dir)
    });
    let program = argv
        .next()
        .ok_or_else(|| StartError::NoCommand(spec.name.clone()))?;
    let mut command = Command::new(&program);
    command.args(argv).env_clear().envs(env);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let credentials = launch.user.as_ref().map(|user| user.credentials.clone());
    sys::isolate(&mut command, dir, credentials);
    command
        .spawn()
        .map_err(|source| StartError::Spawn { program, source })
}

/// Replaces `${NAME}` by the variable's value, by nothing if there is none.
fn expand(value: &str, env: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        let Some((name, end)) = after.split_once('}') else {
            result.push_str("${");
            rest = after;
            continue;
        };
        result.push_str(env.get(name).map_or("", String::as_str));
        rest = end;
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_description_are_expanded() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x${A}y${B}z${", &env), "x1yz${");
        assert_eq!(expand("$A", &env), "$A");
    }
}
