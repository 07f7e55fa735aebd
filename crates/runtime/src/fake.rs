//! A runtime without isolation for tests of the layers above: each sandbox is a TCP
//! listener on loopback that answers every request as an idle agent would. It obeys the
//! contract of [`Runtime`] and can be told to fail.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use warren_types::{ENVD_PORT, NetworkPolicy, Resources, SandboxId};

use crate::{
    AdoptError, Attachment, BootSpec, Capabilities, CaptureInfo, CheckpointSupport, Committed,
    Dial, ExitCause, Record, Restored, Runtime, RuntimeError, Sandbox, SweepReport, Usage,
};

/// How often an agent that is frozen looks whether it still is.
const FROZEN_LOOK: Duration = Duration::from_millis(5);

/// What becomes of a command that an agent is asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeCommand {
    /// It writes this and ends with this code.
    Ends(&'static str, i32),
    /// It writes this and runs for good.
    Runs(&'static str),
}

/// Shared facts of the pretended host: they outlive the runtime object, as processes
/// outlive a server.
#[derive(Debug, Clone)]
pub struct FakeHost {
    inner: Arc<Mutex<HostState>>,
    /// Agents run here: they outlive the runtime that a test starts a node on.
    agents: tokio::runtime::Handle,
}

#[derive(Debug, Default)]
struct HostState {
    alive: HashMap<SandboxId, FakeSandbox>,
    boots: usize,
    restores: usize,
    restore_failures: VecDeque<String>,
    failures: VecDeque<&'static str>,
    agent_status: u16,
    commands: Vec<(&'static str, FakeCommand)>,
    boot_id: String,
    log_dir: PathBuf,
    frozen: HashSet<SandboxId>,
    attached: HashMap<SandboxId, Vec<(String, bool)>>,
    captures: HashMap<PathBuf, (CaptureInfo, World)>,
    worlds: HashMap<SandboxId, World>,
    checkpoint_refusal: Option<String>,
    capture_failures: VecDeque<io::ErrorKind>,
}

/// What is in a sandbox, as far as the words of the suite for runtimes reach.
#[derive(Debug, Clone, Default)]
struct World {
    files: HashMap<String, String>,
    memory: String,
    /// Ports on which something answers with their number.
    ports: HashSet<u16>,
}

impl World {
    /// Does what a line of the suite asks for, within the limits.
    fn answer(&mut self, line: &str, limits: &Resources) -> Result<String, String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (path, content) = rest.split_once(' ').unwrap_or((rest, ""));
        match word {
            "=write" => {
                self.files.insert(path.to_owned(), content.to_owned());
                Ok(String::new())
            }
            "=read" => self
                .files
                .get(path)
                .cloned()
                .ok_or("No such file".to_owned()),
            "=fill"
                if content
                    .parse::<u32>()
                    .is_ok_and(|mib| mib < limits.disk_mib) =>
            {
                Ok(String::new())
            }
            "=fill" => Err("No space left on device".to_owned()),
            "=remember" => {
                rest.clone_into(&mut self.memory);
                Ok(String::new())
            }
            "=recall" => Ok(self.memory.clone()),
            "=listen" => {
                self.ports.extend(rest.parse::<u16>());
                Ok(String::new())
            }
            "=spawn" => Ok(rest
                .parse::<u32>()
                .unwrap_or(0)
                .min(limits.max_processes)
                .to_string()),
            _ => Err(format!("no such word: {word}")),
        }
    }
}

impl FakeHost {
    /// Makes an empty host whose agents log into `log_dir` and run on the calling
    /// tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(log_dir: PathBuf) -> Self {
        let state = HostState {
            agent_status: 204,
            boot_id: "boot-1".to_owned(),
            log_dir,
            ..HostState::default()
        };
        Self {
            inner: Arc::new(Mutex::new(state)),
            agents: tokio::runtime::Handle::current(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HostState> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the next boot fail at a step of this name.
    pub fn fail_next_boot(&self, step: &'static str) {
        self.lock().failures.push_back(step);
    }

    /// Sets the status that agents answer `/init` with.
    pub fn set_agent_status(&self, status: u16) {
        self.lock().agent_status = status;
    }

    /// Sets what becomes of commands that hold `text`; others end with success at once.
    pub fn set_command(&self, text: &'static str, command: FakeCommand) {
        let mut state = self.lock();
        state.commands.retain(|(known, _)| *known != text);
        state.commands.push((text, command));
    }

    /// Ids of the sandboxes that run.
    #[must_use]
    pub fn alive(&self) -> Vec<SandboxId> {
        self.lock().alive.keys().cloned().collect()
    }

    /// Where directories were mounted in a sandbox, and whether read-only.
    #[must_use]
    pub fn attached(&self, id: &SandboxId) -> Vec<(String, bool)> {
        self.lock().attached.get(id).cloned().unwrap_or_default()
    }

    /// How many boots were tried.
    #[must_use]
    pub fn boots(&self) -> usize {
        self.lock().boots
    }

    /// How many of the boots took up the memory of a capture.
    #[must_use]
    pub fn restores(&self) -> usize {
        self.lock().restores
    }

    /// Lets the next restore of memory fail for this reason.
    pub fn fail_next_restore(&self, reason: &str) {
        self.lock().restore_failures.push_back(reason.to_owned());
    }

    /// Lets captures with memory fail for this reason; `None` lets them succeed.
    pub fn refuse_checkpoints(&self, reason: Option<&str>) {
        self.lock().checkpoint_refusal = reason.map(str::to_owned);
    }

    /// Lets the next capture fail with an error of this kind.
    pub fn fail_next_capture(&self, kind: io::ErrorKind) {
        self.lock().capture_failures.push_back(kind);
    }

    /// Ids of the sandboxes that are frozen.
    #[must_use]
    pub fn frozen(&self) -> Vec<SandboxId> {
        self.lock().frozen.iter().cloned().collect()
    }

    /// Places of the captures that there are.
    #[must_use]
    pub fn captures(&self) -> Vec<PathBuf> {
        self.lock().captures.keys().cloned().collect()
    }

    /// Kills a sandbox's first process, as a crash would.
    pub fn crash(&self, id: &SandboxId, cause: ExitCause) {
        self.lock().frozen.remove(id);
        if let Some(sandbox) = self.lock().alive.remove(id) {
            sandbox.exit.send_replace(Some(cause));
        }
    }

    /// Pretends that the machine was restarted.
    pub fn reboot(&self) {
        let mut state = self.lock();
        state.boot_id = "boot-2".to_owned();
        state.frozen.clear();
        for (_, sandbox) in state.alive.drain() {
            sandbox.exit.send_replace(Some(ExitCause::Died));
        }
    }
}

/// The runtime of a [`FakeHost`].
#[derive(Debug, Clone)]
pub struct FakeRuntime {
    host: FakeHost,
}

impl FakeRuntime {
    /// Makes a runtime on `host`.
    #[must_use]
    pub fn new(host: FakeHost) -> Self {
        Self { host }
    }
}

/// A sandbox of a [`FakeHost`].
#[derive(Debug, Clone)]
pub struct FakeSandbox {
    host: FakeHost,
    record: Record,
    policy: Arc<Mutex<NetworkPolicy>>,
    address: SocketAddr,
    exit: watch::Sender<Option<ExitCause>>,
}

async fn serve_agent(
    listener: std::net::TcpListener,
    host: FakeHost,
    id: SandboxId,
    limits: Resources,
    mut exit: watch::Receiver<Option<ExitCause>>,
) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        let accepted = tokio::select! {
            _ = async { exit.wait_for(Option::is_some).await.map(drop) } => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            return;
        };
        let (answering, mut exit) = (host.clone(), exit.clone());
        let id = id.clone();
        host.agents.spawn(async move {
            tokio::select! {
                _ = async { exit.wait_for(Option::is_some).await.map(drop) } => {}
                // A client that goes away is no failure.
                _ = answer(stream, &answering, &id, &limits) => {}
            }
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    host: &FakeHost,
    id: &SandboxId,
    limits: &Resources,
) -> io::Result<()> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    // One that is frozen answers when it runs again.
    while host.lock().frozen.contains(id) {
        tokio::time::sleep(FROZEN_LOOK).await;
    }
    let request = String::from_utf8_lossy(&request);
    if let Some(mib) = request.strip_prefix("=hold ") {
        if mib
            .trim()
            .parse::<u32>()
            .is_ok_and(|mib| mib >= limits.memory_mib)
        {
            host.crash(id, ExitCause::OutOfMemory);
            return Ok(());
        }
        return stream.write_all(b"\n=0\n").await;
    }
    if request.starts_with('=') {
        let answer = {
            let mut state = host.lock();
            let world = state.worlds.entry(id.clone()).or_default();
            match world.answer(request.trim_end(), limits) {
                Ok(text) => format!("{text}\n=0\n"),
                Err(text) => format!("{text}\n=1\n"),
            }
        };
        return stream.write_all(answer.as_bytes()).await;
    }
    if !request.starts_with("POST /process.Process/Start ") {
        let status = host.lock().agent_status;
        let answer =
            format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        return stream.write_all(answer.as_bytes()).await;
    }
    let command = host
        .lock()
        .commands
        .iter()
        .find(|(text, _)| request.contains(text))
        .map_or(FakeCommand::Ends("", 0), |(_, command)| command.clone());
    let (FakeCommand::Ends(text, _) | FakeCommand::Runs(text)) = command;
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/connect+json\r\n\
        Connection: close\r\n\r\n"
        .to_vec();
    frame(&mut answer, 0, r#"{"event":{"start":{"pid":2}}}"#);
    let data = format!(r#"{{"event":{{"data":{{"stderr":"{}"}}}}}}"#, base64(text));
    frame(&mut answer, 0, &data);
    if let FakeCommand::Ends(_, code) = command {
        let end = format!(r#"{{"event":{{"end":{{"exitCode":{code},"exited":true}}}}}}"#);
        frame(&mut answer, 0, &end);
        frame(&mut answer, 2, "{}");
    }
    stream.write_all(&answer).await?;
    if matches!(command, FakeCommand::Runs(_)) {
        // Until the caller goes away.
        while stream.read_u8().await.is_ok() {}
    }
    Ok(())
}

/// Whether a request has come in with its whole body.
fn is_whole(request: &[u8]) -> bool {
    if request.starts_with(b"=") {
        return request.ends_with(b"\n");
    }
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    body.len() >= length.unwrap_or(0)
}

/// Adds a message of a stream.
fn frame(to: &mut Vec<u8>, flags: u8, json: &str) {
    to.push(flags);
    to.extend(u32::try_from(json.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend(json.as_bytes());
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let mut bits = 0_u32;
        for place in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(place).copied().unwrap_or(0));
        }
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            out.push(if place > chunk.len() {
                '='
            } else {
                char::from(digit)
            });
        }
    }
    out
}

impl Runtime for FakeRuntime {
    type Sandbox = FakeSandbox;

    async fn boot(&self, spec: BootSpec) -> Result<FakeSandbox, RuntimeError> {
        let (failure, boot_id) = {
            let mut state = self.host.lock();
            state.boots += 1;
            (state.failures.pop_front(), state.boot_id.clone())
        };
        if let Some(step) = failure {
            return Err(RuntimeError::Step {
                step: step.to_owned(),
                source: io::Error::other("told to fail"),
            });
        }
        let step = |source| RuntimeError::Step {
            step: "listen".to_owned(),
            source,
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(step)?;
        listener.set_nonblocking(true).map_err(step)?;
        let address = listener.local_addr().map_err(step)?;
        let (exit, exited) = watch::channel(None);
        let sandbox = FakeSandbox {
            host: self.host.clone(),
            record: Record {
                id: spec.id.clone(),
                runtime: "fake".to_owned(),
                pid: 1,
                pid_start_time: 1,
                boot_id,
                slot: 0,
                resources: spec.resources,
                layers: spec.layers,
                policy: spec.policy.clone(),
            },
            policy: Arc::new(Mutex::new(spec.policy)),
            address,
            exit,
        };
        self.host
            .lock()
            .alive
            .insert(spec.id.clone(), sandbox.clone());
        let (host, limits) = (self.host.clone(), spec.resources);
        let agent = serve_agent(listener, host, spec.id, limits, exited);
        self.host.agents.spawn(agent);
        Ok(sandbox)
    }

    async fn adopt(&self, record: Record) -> Result<FakeSandbox, AdoptError> {
        let state = self.host.lock();
        if record.boot_id != state.boot_id {
            return Err(AdoptError::HostRestarted);
        }
        state.alive.get(&record.id).cloned().ok_or(AdoptError::Gone)
    }

    fn capabilities(&self) -> Capabilities {
        let checkpoint = match &self.host.lock().checkpoint_refusal {
            Some(reason) => Err(reason.clone()),
            None => Ok(CheckpointSupport {
                version: "fake".to_owned(),
                path: PathBuf::from("/nonexistent"),
            }),
        };
        Capabilities { checkpoint }
    }

    fn captures_dir(&self) -> PathBuf {
        self.host.lock().log_dir.join("captures")
    }

    async fn restore(
        &self,
        mut spec: BootSpec,
        from: &Path,
        memory: bool,
        mounts: Vec<Attachment>,
    ) -> Result<Restored<FakeSandbox>, RuntimeError> {
        let capture = self.inspect_capture(from).await?;
        if memory && !capture.has_memory {
            return Err(RuntimeError::NoCheckpoint(
                "the capture has none".to_owned(),
            ));
        }
        if let Err(reason) = self.capabilities().checkpoint
            && memory
        {
            return Err(RuntimeError::NoCheckpoint(reason));
        }
        if spec.layers.is_empty() {
            spec.layers = capture.layers;
        }
        if memory {
            let mut state = self.host.lock();
            if let Some(reason) = state.restore_failures.pop_front() {
                return Err(RuntimeError::NoCheckpoint(reason));
            }
            state.restores += 1;
        }
        let id = spec.id.clone();
        let sandbox = self.boot(spec).await?;
        let world = {
            let state = self.host.lock();
            let (_, world) = state
                .captures
                .get(from)
                .ok_or_else(|| RuntimeError::NoCapture(from.to_owned()))?;
            World {
                memory: if memory {
                    world.memory.clone()
                } else {
                    String::new()
                },
                files: world.files.clone(),
                ports: HashSet::new(),
            }
        };
        self.host.lock().worlds.insert(id, world);
        sandbox.attach(mounts).await?;
        Ok(Restored { sandbox, memory })
    }

    async fn inspect_capture(&self, capture: &Path) -> Result<CaptureInfo, RuntimeError> {
        let state = self.host.lock();
        let found = state.captures.get(capture).map(|(info, _)| info.clone());
        found.ok_or_else(|| RuntimeError::NoCapture(capture.to_owned()))
    }

    async fn forget_capture(&self, capture: &Path) -> Result<(), RuntimeError> {
        self.host.lock().captures.remove(capture);
        match std::fs::remove_dir_all(capture) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
        .map_err(|source| RuntimeError::Step {
            step: "forget a capture".to_owned(),
            source,
        })
    }

    async fn sweep(&self, keep: &[SandboxId]) -> Result<SweepReport, RuntimeError> {
        let doomed: Vec<SandboxId> = self
            .host
            .alive()
            .into_iter()
            .filter(|id| !keep.contains(id))
            .collect();
        for id in &doomed {
            self.host.crash(id, ExitCause::Died);
        }
        Ok(SweepReport {
            sandboxes: doomed.len(),
        })
    }

    async fn drain(&self) {}

    async fn shutdown(&self) {}
}

fn gone(step: &str) -> RuntimeError {
    RuntimeError::Step {
        step: step.to_owned(),
        source: io::ErrorKind::NotFound.into(),
    }
}

#[derive(Debug)]
struct FakeDial(FakeSandbox);

impl Dial for FakeDial {
    fn dial(&self, port: u16) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>> {
        Box::pin(async move {
            if self.0.exit.borrow().is_some() {
                return Err(io::ErrorKind::NotFound.into());
            }
            if port == ENVD_PORT {
                return TcpStream::connect(self.0.address).await;
            }
            let is_open = {
                let state = self.0.host.lock();
                let world = state.worlds.get(&self.0.record.id);
                world.is_some_and(|world| world.ports.contains(&port))
            };
            if !is_open {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let stream = TcpStream::connect(listener.local_addr()?).await?;
            let (mut answering, _) = listener.accept().await?;
            answering.write_all(port.to_string().as_bytes()).await?;
            Ok(stream)
        })
    }

    fn listen(
        &self,
        port: u16,
        _is_loopback: bool,
    ) -> Pin<Box<dyn Future<Output = io::Result<TcpListener>> + Send + '_>> {
        Box::pin(async move { TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).await })
    }
}

impl Sandbox for FakeSandbox {
    fn record(&self) -> Record {
        let policy = self
            .policy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Record {
            policy,
            ..self.record.clone()
        }
    }

    fn dialer(&self) -> Arc<dyn Dial> {
        Arc::new(FakeDial(self.clone()))
    }

    async fn usage(&self) -> Result<Usage, RuntimeError> {
        Ok(Usage {
            cpu_micros: 1000,
            memory_used: 1 << 20,
            ..Usage::default()
        })
    }

    async fn set_policy(&self, policy: NetworkPolicy) -> Result<(), RuntimeError> {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = policy;
        Ok(())
    }

    async fn attach(&self, mounts: Vec<Attachment>) -> Result<(), RuntimeError> {
        let mut state = self.host.lock();
        if !state.alive.contains_key(&self.record.id) {
            return Err(gone("mount volumes"));
        }
        let attached = state.attached.entry(self.record.id.clone()).or_default();
        attached.extend(
            mounts
                .into_iter()
                .map(|mount| (mount.path, mount.read_only)),
        );
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.host
            .lock()
            .log_dir
            .join(format!("{}.agent.jsonl", self.record.id))
    }

    async fn exited(&self) -> ExitCause {
        let mut exit = self.exit.subscribe();
        match exit.wait_for(Option::is_some).await {
            Ok(cause) => (*cause).unwrap_or(ExitCause::Died),
            Err(_) => ExitCause::Died,
        }
    }

    async fn commit(&self, into: PathBuf) -> Result<Committed, RuntimeError> {
        self.host.crash(&self.record.id, ExitCause::Died);
        std::fs::create_dir(into).map_err(|source| RuntimeError::Step {
            step: "commit a layer".to_owned(),
            source,
        })?;
        Ok(Committed::default())
    }

    async fn freeze(&self) -> Result<(), RuntimeError> {
        let mut state = self.host.lock();
        if !state.alive.contains_key(&self.record.id) {
            return Err(gone("freeze"));
        }
        state.frozen.insert(self.record.id.clone());
        Ok(())
    }

    async fn thaw(&self) -> Result<(), RuntimeError> {
        let mut state = self.host.lock();
        if !state.alive.contains_key(&self.record.id) {
            return Err(gone("thaw"));
        }
        state.frozen.remove(&self.record.id);
        Ok(())
    }

    async fn is_frozen(&self) -> Result<bool, RuntimeError> {
        Ok(self.host.lock().frozen.contains(&self.record.id))
    }

    async fn capture(&self, into: &Path, memory: bool) -> Result<CaptureInfo, RuntimeError> {
        let mut state = self.host.lock();
        if !state.alive.contains_key(&self.record.id) {
            return Err(gone("capture"));
        }
        if !state.frozen.contains(&self.record.id) {
            return Err(RuntimeError::NotFrozen);
        }
        if let Some(kind) = state.capture_failures.pop_front() {
            return Err(RuntimeError::Step {
                step: "capture the disk".to_owned(),
                source: kind.into(),
            });
        }
        if let Some(reason) = &state.checkpoint_refusal
            && memory
        {
            return Err(RuntimeError::NoCheckpoint(reason.clone()));
        }
        let info = CaptureInfo {
            source: self.record.id.clone(),
            bytes: 4096,
            has_memory: memory,
            resources: self.record.resources,
            layers: self.record.layers.clone(),
        };
        std::fs::create_dir_all(into).map_err(|source| RuntimeError::Step {
            step: "capture the disk".to_owned(),
            source,
        })?;
        let world = state
            .worlds
            .get(&self.record.id)
            .cloned()
            .unwrap_or_default();
        state
            .captures
            .insert(into.to_owned(), (info.clone(), world));
        Ok(info)
    }

    async fn destroy(&self) -> Result<(), RuntimeError> {
        self.host.crash(&self.record.id, ExitCause::Died);
        Ok(())
    }
}
