//! One server: its process, its conversation.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child as Process, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use warren_service::Tasks;

use crate::config::ServerSpec;
use crate::rpc::{self, Answer, METHOD_NOT_FOUND, Message};

/// Revision of the protocol that servers are spoken to in.
pub(crate) const PROTOCOL: &str = "2025-06-18";
/// How long a server may take to answer for the first time; its package may be fetched
/// meanwhile. The SDKs wait a minute for all together.
const START_TIME: Duration = Duration::from_secs(50);
/// Longest message of a server.
const MAX_LINE: u64 = 64 << 20;
/// Messages to a server that wait for it to read.
const QUEUE: usize = 64;

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// There is no such program, or it can't be run.
    #[error("run {program:?}")]
    Spawn {
        /// Which.
        program: String,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// It ended.
    #[error("it ended before it answered; it said: {said}")]
    Ended {
        /// The last of its standard error.
        said: String,
    },
    /// It said nothing.
    #[error("it did not answer in {} s; it said: {said}", START_TIME.as_secs())]
    Silent {
        /// The last of its standard error.
        said: String,
    },
    /// It refused to begin.
    #[error("it refused to begin: {0}")]
    Refused(String),
}

/// A server that has answered `initialize`.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    /// What it said of itself.
    pub(crate) about: Value,
    conversation: Conversation,
}

#[derive(Debug, Clone)]
struct Conversation {
    lines: mpsc::Sender<Vec<u8>>,
    pending: Arc<Mutex<Pending>>,
}

#[derive(Debug, Default)]
struct Pending {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    has_ended: bool,
}

/// The server is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Child {
    /// Starts a server and waits until it has answered. What it says on standard error goes
    /// to `log`; `said` reads the last of that.
    pub(crate) async fn start(
        spec: &ServerSpec,
        log: File,
        said: impl Fn() -> String,
        tasks: &Tasks,
    ) -> Result<Self, ChildError> {
        let (program, args) = spec
            .command
            .split_first()
            .ok_or_else(|| ChildError::Refused("there is no command".to_owned()))?;
        let mut command = Command::new(program);
        command
            .args(args)
            .envs(&spec.env)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true);
        if let Some(dir) = &spec.dir {
            command.current_dir(dir);
        }
        let mut process = command.spawn().map_err(|cause| ChildError::Spawn {
            program: program.clone(),
            cause,
        })?;
        let stdin = process.stdin.take().expect("a pipe was asked for");
        let stdout = process.stdout.take().expect("a pipe was asked for");
        let (lines, queue) = mpsc::channel(QUEUE);
        let conversation = Conversation {
            lines,
            pending: Arc::default(),
        };
        tasks.spawn(write(stdin, queue));
        tasks.spawn(read(stdout, process, conversation.clone()));
        let begun = timeout(START_TIME, begin(&conversation)).await;
        let about = match begun {
            Ok(Ok(Answer::Result(about))) => about,
            Ok(Ok(Answer::Error(error))) => return Err(ChildError::Refused(error.to_string())),
            Ok(Err(Gone)) => return Err(ChildError::Ended { said: said() }),
            Err(_) => return Err(ChildError::Silent { said: said() }),
        };
        Ok(Self {
            name: spec.name.clone(),
            about: serde_json::from_str(about.get()).unwrap_or_default(),
            conversation,
        })
    }

    /// Whether it has tools, prompts or resources.
    pub(crate) fn can(&self, what: &str) -> bool {
        self.about["capabilities"].get(what).is_some()
    }

    pub(crate) async fn call(&self, method: &str, params: Option<&Value>) -> Result<Answer, Gone> {
        self.conversation.call(method, params).await
    }
}

async fn begin(conversation: &Conversation) -> Result<Answer, Gone> {
    let about = json!({
        "protocolVersion": PROTOCOL,
        "capabilities": {},
        "clientInfo": { "name": "mcp-gateway", "version": env!("CARGO_PKG_VERSION") },
    });
    let answer = conversation.call("initialize", Some(&about)).await?;
    let initialized = rpc::line(None, "notifications/initialized", None);
    conversation
        .lines
        .send(initialized)
        .await
        .map_err(|_| Gone)?;
    Ok(answer)
}

impl Conversation {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks and waits. Dropping it tells the server that nobody waits any more.
    async fn call(&self, method: &str, params: Option<&Value>) -> Result<Answer, Gone> {
        let (told, answer) = oneshot::channel();
        let id = {
            let mut pending = self.pending();
            if pending.has_ended {
                return Err(Gone);
            }
            pending.last_id += 1;
            let id = pending.last_id;
            pending.waiting.insert(id, told);
            id
        };
        let _cancels = Cancel { of: self, id };
        let line = rpc::line(Some(id), method, params);
        self.lines.send(line).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Deals with a line of the server.
    async fn take(&self, line: &[u8]) {
        // Programs print things that are no messages.
        let Ok(message) = serde_json::from_slice::<Message>(line) else {
            return;
        };
        if let Some(method) = message.method {
            let Some(id) = message.id else { return };
            let answer = match method.as_str() {
                "ping" => Answer::result(&json!({})),
                _ => Answer::error(METHOD_NOT_FOUND, "the gateway can't do that"),
            };
            let mut text = answer.into_text(&id);
            text.push(b'\n');
            let _gone = self.lines.send(text).await;
            return;
        }
        let answer = match (message.result, message.error) {
            (Some(result), _) => Answer::Result(result),
            (None, Some(error)) => Answer::Error(error),
            (None, None) => return,
        };
        let id = message.id.as_ref().and_then(Value::as_u64);
        let waiting = id.and_then(|id| self.pending().waiting.remove(&id));
        if let Some(waiting) = waiting {
            // Whoever asked may have gone away.
            waiting.send(answer).ok();
        }
    }
}

/// Tells the server when a request is given up.
struct Cancel<'a> {
    of: &'a Conversation,
    id: u64,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if self.of.pending().waiting.remove(&self.id).is_some() {
            let params = json!({ "requestId": self.id, "reason": "the client went away" });
            let line = rpc::line(None, "notifications/cancelled", Some(&params));
            // A server that reads nothing will not hear of it.
            self.of.lines.try_send(line).ok();
        }
    }
}

async fn write(mut stdin: ChildStdin, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = queue.recv().await {
        // The reader notices the end.
        if stdin.write_all(&line).await.is_err() || stdin.flush().await.is_err() {
            return;
        }
    }
}

async fn read(stdout: ChildStdout, process: Process, conversation: Conversation) {
    let mut reader = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut limited = (&mut reader).take(MAX_LINE);
        match limited.read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 && line.ends_with(b"\n") => conversation.take(&line).await,
            _ => break,
        }
    }
    let mut pending = conversation.pending();
    pending.has_ended = true;
    pending.waiting.clear();
    drop(pending);
    // Killed if it still runs.
    drop(process);
}
