//! One context: a kernel and the cells that wait for it.
//!
//! A task owns the kernel and is the only one that talks to it, so cells of a context queue
//! and need no lock. Everything that can happen while a cell runs — output, the end of the
//! kernel, a client that leaves, a restart — is an event of one loop.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use warren_service::{Chain, Tasks};

use crate::globals;
use crate::identity::Identity;
use crate::kernel::{Event, Kernel, KernelSpec, Launch, SendError, StartError};
use crate::language::{self, Changes, Vars};
use crate::line::{CellError, Line, Outcome};
use crate::log;
use crate::memory::{self, OomMeter, OutOfMemory};
use crate::random;
use crate::running::{Done, Fence, Run};

/// Pause between interrupts of a cell whose client is gone: a kernel may not listen yet.
const INTERRUPT_AGAIN: Duration = Duration::from_secs(1);
/// How often such a cell is interrupted.
const INTERRUPTS: u32 = 10;
/// How long code of ours may run before it is interrupted.
const SILENT_LIMIT: Duration = Duration::from_secs(10);
/// A kernel that ends sooner after its start is not started again by itself.
const LIVED: Duration = Duration::from_secs(2);
/// Signal of the out-of-memory killer, and of others.
const SIGKILL: i32 = 9;

/// A cell to run.
#[derive(Debug)]
pub(crate) struct Cell {
    /// Its code.
    pub code: String,
    /// Variables for its time.
    pub env: Vars,
    /// What authorises us towards the agent.
    pub token: Option<HeaderValue>,
    /// Where its lines go. Closed when the client is gone.
    pub lines: mpsc::Sender<Bytes>,
}

/// What a context is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run a cell.
    Run(Cell),
    /// Start a new kernel, whatever the old one does.
    Restart(oneshot::Sender<Result<(), StartError>>),
    /// End.
    Remove(oneshot::Sender<()>),
}

/// What contexts share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// What kernels start with.
    pub launch: Arc<Launch>,
    /// Address of the agent.
    pub agent: Arc<str>,
    /// Tells of the out-of-memory killer.
    pub oom: Arc<OomMeter>,
    /// Tells which sandbox this is.
    pub identity: Arc<Identity>,
    /// Owner of all tasks.
    pub tasks: Tasks,
}

/// A context's task.
#[derive(Debug)]
pub(crate) struct Actor {
    shared: Shared,
    spec: KernelSpec,
    language: String,
    cwd: PathBuf,
    inbox: mpsc::Receiver<Command>,
    queue: VecDeque<Cell>,
    /// `None` before its first cell, and when it could not be started again.
    kernel: Option<Kernel>,
    started: Instant,
    /// How often memory had run out in the sandbox when the kernel started.
    oom_kills: Option<u64>,
    /// The sandbox's variables, once they are known.
    globals: Option<Vars>,
    /// Whether the kernel has them.
    has_globals: bool,
    /// The sandbox that the kernel was made part of. A copy of the kernel may go on in
    /// another.
    settled_in: Option<Vec<u8>>,
}

/// Why a run has no regular end.
enum Broken {
    Ended(ExitStatus),
    Lost,
    /// The cell is over and the kernel leaves, as the cell asked it to.
    Exits,
    /// Nobody waits for the cell any more, and the kernel can't stop it.
    Stuck,
    Restart(oneshot::Sender<Result<(), StartError>>),
    Remove(Option<oneshot::Sender<()>>),
}

impl Actor {
    /// Makes an actor whose kernel starts with its first cell, or before when asked to.
    pub(crate) fn new(
        shared: Shared,
        spec: KernelSpec,
        language: String,
        cwd: PathBuf,
        inbox: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            shared,
            spec,
            language,
            cwd,
            inbox,
            queue: VecDeque::new(),
            kernel: None,
            started: Instant::now(),
            oom_kills: None,
            globals: None,
            has_globals: false,
            settled_in: None,
        }
    }

    /// Runs cells until the context is removed.
    pub(crate) async fn run(mut self) {
        loop {
            let broken = match self.queue.pop_front() {
                Some(cell) if cell.lines.is_closed() => continue,
                Some(cell) => self.cell(cell).await,
                None => self.idle().await,
            };
            match broken {
                Ok(()) => {}
                Err(Broken::Lost) if self.reconnect().await => {}
                Err(Broken::Ended(_) | Broken::Lost | Broken::Exits | Broken::Stuck) => {
                    self.end_kernel().await;
                    if self.started.elapsed() >= LIVED {
                        // A failure shows at the next cell, which tries again.
                        if let Err(error) = self.start_kernel().await {
                            log::warn(&format!("restart of {}", self.spec.name), &error);
                        }
                    }
                }
                Err(Broken::Restart(done)) => {
                    self.end_kernel().await;
                    // Nobody waits for the answer if the client is gone.
                    let _ = done.send(self.start_kernel().await);
                }
                Err(Broken::Remove(done)) => {
                    self.end_kernel().await;
                    self.refuse_waiting();
                    done.map(|done| done.send(()));
                    return;
                }
            }
        }
    }

    fn refuse_waiting(&mut self) {
        self.inbox.close();
        while let Ok(command) = self.inbox.try_recv() {
            if let Command::Run(cell) = command {
                self.queue.push_back(cell);
            }
        }
        for cell in std::mem::take(&mut self.queue) {
            self.finish(cell.lines, Some(aborted()));
        }
    }

    /// Starts a kernel and waits until it answers.
    ///
    /// # Errors
    /// It can't be started.
    pub(crate) async fn start_kernel(&mut self) -> Result<(), StartError> {
        self.started = Instant::now();
        self.oom_kills = self.shared.oom.known();
        let shared = &self.shared;
        let started = Kernel::start(&self.spec, &shared.launch, &self.cwd, &shared.tasks).await;
        self.kernel = Some(started?);
        self.started = Instant::now();
        Ok(())
    }

    /// Connects anew to a kernel that can't be heard any more. Whether it is there.
    async fn reconnect(&mut self) -> bool {
        let Some(kernel) = &mut self.kernel else {
            return false;
        };
        match kernel.reconnect().await {
            Ok(()) => true,
            Err(error) => {
                log::warn(&format!("the connection to {}", self.spec.name), &error);
                false
            }
        }
    }

    async fn end_kernel(&mut self) {
        self.has_globals = false;
        self.settled_in = None;
        if let Some(kernel) = self.kernel.take() {
            kernel.end().await;
        }
    }

    /// Waits until something is to be done.
    async fn idle(&mut self) -> Result<(), Broken> {
        loop {
            let command = match &mut self.kernel {
                None => self.inbox.recv().await,
                Some(kernel) => tokio::select! {
                    command = self.inbox.recv() => command,
                    // What a kernel publishes between cells has no reader.
                    event = kernel.next(true) => match event {
                        Event::Published(_) | Event::Answered(_) => continue,
                        Event::Ended(status) => return Err(Broken::Ended(status)),
                        Event::Lost => return Err(Broken::Lost),
                    },
                },
            };
            return self.command(command);
        }
    }

    fn command(&mut self, command: Option<Command>) -> Result<(), Broken> {
        match command {
            Some(Command::Run(cell)) => {
                self.queue.push_back(cell);
                Ok(())
            }
            Some(Command::Restart(done)) => Err(Broken::Restart(done)),
            Some(Command::Remove(done)) => Err(Broken::Remove(Some(done))),
            None => Err(Broken::Remove(None)),
        }
    }

    /// Sends the last lines. A client that reads slowly keeps nobody waiting.
    fn finish(&self, lines: mpsc::Sender<Bytes>, error: Option<CellError>) {
        self.shared.tasks.spawn(async move {
            let error = error.map(Line::Error);
            for line in error.iter().chain([&Line::EndOfExecution]) {
                if lines.send(line.encode()).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Runs a cell with its variables and takes them away again.
    async fn cell(&mut self, cell: Cell) -> Result<(), Broken> {
        if self.kernel.is_none()
            && let Err(error) = self.start_kernel().await
        {
            let error = CellError::new("KernelError", Chain(&error).to_string());
            self.finish(cell.lines, Some(error));
            return Ok(());
        }
        let machine = memory::machine();
        let result = self.cell_and_setup(&cell).await;
        let restore = self.restoration(&cell.env);
        match result {
            Ok(outcome) => {
                self.finish(cell.lines, outcome.failure);
                if outcome.exits {
                    return Err(Broken::Exits);
                }
                if let Some(code) = restore {
                    self.silently(&code).await?;
                }
                Ok(())
            }
            Err(broken) => {
                if let (Broken::Lost, Some(kernel)) = (&broken, &mut self.kernel) {
                    // Nobody will hear what it still does.
                    kernel.interrupt().await;
                }
                let error = self.explain(&broken, machine).await;
                self.finish(cell.lines, Some(error));
                Err(broken)
            }
        }
    }

    /// Runs code of ours.
    async fn silently(&mut self, code: &str) -> Result<(), Broken> {
        if let Some(failure) = self.execute(code, None, None).await?.outcome.failure {
            log::note(&format!(
                "variables of {}: {} {}",
                self.language, failure.name, failure.value
            ));
        }
        Ok(())
    }

    async fn cell_and_setup(&mut self, cell: &Cell) -> Result<Outcome, Broken> {
        let here = self.shared.identity.now();
        let mut code = String::new();
        if self.settled_in.is_none() {
            code.push_str(language::seed(&self.language));
        }
        let is_new_here = self.settled_in.as_ref() != Some(&here);
        if is_new_here {
            code.push_str(language::stir(&self.language));
        }
        let mut changes = if is_new_here || !self.has_globals {
            self.new_globals(cell.token.as_ref()).await
        } else {
            Changes::new()
        };
        let own = cell.env.iter();
        changes.extend(own.map(|(name, value)| (name.clone(), Some(value.clone()))));
        code.push_str(&language::apply(&self.language, &changes).unwrap_or_default());
        if !code.is_empty() {
            self.silently(&code).await?;
        }
        self.settled_in = Some(here);
        self.has_globals = self.globals.is_some();
        let client = Some(&cell.lines);
        let done = self.execute(&cell.code, client, None).await?;
        let marker = random::hex::<16>();
        if let Some(code) = self.spec.fence(&marker) {
            let fence = Fence {
                marker,
                cell: done.id,
            };
            self.execute(&code, client, Some(fence)).await?;
        }
        Ok(done.outcome)
    }

    /// Asks for the sandbox's variables, and tells what the kernel lacks of them.
    async fn new_globals(&mut self, token: Option<&HeaderValue>) -> Changes {
        let given = self.globals.clone().filter(|_| self.has_globals);
        match globals::fetch(&self.shared.agent, token, &self.shared.tasks).await {
            Ok(vars) => self.globals = Some(vars),
            // The ones known before serve a restarted kernel; the next cell asks again.
            Err(error) => log::warn("the sandbox's variables", &error),
        }
        let wanted = self.globals.clone().unwrap_or_default();
        language::difference(&given.unwrap_or_default(), &wanted)
    }

    /// Code that takes a cell's variables away: to what the kernel had without it.
    fn restoration(&self, env: &Vars) -> Option<String> {
        let started_with = self.kernel.as_ref().map(Kernel::env);
        let before = |name: &String| {
            let global = self.globals.as_ref().and_then(|globals| globals.get(name));
            global.or_else(|| started_with?.get(name)).cloned()
        };
        let changes = env
            .keys()
            .map(|name| (name.clone(), before(name)))
            .collect();
        language::apply(&self.language, &changes).filter(|code| !code.is_empty())
    }

    /// Runs code to its end. Without a client it is ours, and so is a fence: both are silent.
    /// The outcome has no failure that the client was told already.
    async fn execute(
        &mut self,
        code: &str,
        client: Option<&mpsc::Sender<Bytes>>,
        fence: Option<Fence>,
    ) -> Result<Done, Broken> {
        let is_ours = client.is_none() || fence.is_some();
        let mut is_again = false;
        loop {
            let lost = match self.send(code, is_ours).await {
                Ok(id) => {
                    let interrupt = is_ours.then(|| Instant::now() + SILENT_LIMIT);
                    let mut run = Run::new(id, client, fence.clone(), interrupt);
                    match self.follow(&mut run).await {
                        Ok(()) => return Ok(run.into()),
                        // Nothing was heard of it: the kernel has never got it.
                        Err(Broken::Lost) if !run.heard => Broken::Lost,
                        Err(broken) => return Err(broken),
                    }
                }
                Err(broken) => broken,
            };
            // A capture has ended the connection before the code was sent.
            if !matches!(lost, Broken::Lost) || is_again || !self.reconnect().await {
                return Err(lost);
            }
            is_again = true;
        }
    }

    async fn send(&mut self, code: &str, is_ours: bool) -> Result<String, Broken> {
        let Some(kernel) = &mut self.kernel else {
            return Err(Broken::Lost);
        };
        match kernel.execute(code, is_ours).await {
            Ok(id) => Ok(id),
            Err(SendError::Wire(error)) => {
                log::warn("a cell", &error);
                Err(Broken::Lost)
            }
            Err(SendError::Socket(_)) => Err(self.lost().await),
        }
    }

    async fn follow(&mut self, run: &mut Run<'_>) -> Result<(), Broken> {
        while !run.is_over() {
            self.step(run).await?;
        }
        Ok(())
    }

    /// Why nothing can be sent: mostly since the kernel has ended, which is told after.
    async fn lost(&mut self) -> Broken {
        match &mut self.kernel {
            Some(kernel) => match kernel.lost().await {
                Event::Ended(status) => Broken::Ended(status),
                _ => Broken::Lost,
            },
            None => Broken::Lost,
        }
    }

    async fn step(&mut self, run: &mut Run<'_>) -> Result<(), Broken> {
        let Some(kernel) = &mut self.kernel else {
            return Err(Broken::Lost);
        };
        let client = run.client;
        let has_pending = run.pending.is_some();
        let is_watched = client.is_some() && run.next_interrupt.is_none();
        let interrupt_at = run.next_interrupt.filter(|_| run.interrupts < INTERRUPTS);
        tokio::select! {
            permit = reserve(client), if has_pending => {
                if let (Some(permit), Some(line)) = (permit, run.pending.take()) {
                    permit.send(line);
                }
            }
            // While the client is slow, output stays in the kernel's socket, which fills.
            event = kernel.next(!has_pending) => match event {
                Event::Published(message) => run.published(&message),
                Event::Answered(message) => run.answered(&message),
                Event::Ended(status) => {
                    self.last_words(run).await;
                    return Err(Broken::Ended(status));
                }
                Event::Lost => return Err(Broken::Lost),
            },
            command = self.inbox.recv() => self.command(command)?,
            () = closed(client), if is_watched => {
                run.pending = None;
                run.next_interrupt = Some(Instant::now());
            }
            () = reached(interrupt_at), if interrupt_at.is_some() => {
                if self.spec.replace_after_interrupts() == Some(run.interrupts) {
                    return Err(Broken::Stuck);
                }
                run.interrupts += 1;
                run.next_interrupt = Some(Instant::now() + INTERRUPT_AGAIN);
                kernel.interrupt().await;
            }
        }
        Ok(())
    }

    /// Passes on what a kernel still said before its end.
    async fn last_words(&mut self, run: &mut Run<'_>) {
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        loop {
            if let Some(line) = run.pending.take()
                && let Some(permit) = reserve(run.client).await
            {
                permit.send(line);
            }
            match kernel.last_words().await {
                Some(message) => run.published(&message),
                None => return,
            }
        }
    }

    /// Tells a client why its cell has no regular end.
    async fn explain(&mut self, broken: &Broken, machine: Option<u64>) -> CellError {
        let cause = match broken {
            Broken::Restart(_) => {
                return CellError::new("ContextRestarting", "Context was restarted");
            }
            Broken::Remove(_) => return aborted(),
            Broken::Lost | Broken::Exits | Broken::Stuck => {
                let value = "The connections was lost, rerun the code to get the results";
                return CellError::new("WebSocketError", value);
            }
            Broken::Ended(status) => match (status.signal(), status.code()) {
                (Some(SIGKILL), _) => self.why_killed(machine).await.to_owned(),
                (Some(signal), _) => format!("the kernel was ended by signal {signal}"),
                (None, code) => format!("the kernel exited with code {}", code.unwrap_or_default()),
            },
        };
        let output = self
            .kernel
            .as_ref()
            .map(Kernel::last_output)
            .unwrap_or_default();
        CellError {
            name: "ContextRestarting".to_owned(),
            value: format!("Context was restarted: {cause}"),
            traceback: output,
        }
    }

    async fn why_killed(&mut self, machine: Option<u64>) -> &'static str {
        let Shared { oom, tasks, .. } = &self.shared;
        match oom.since(machine, self.oom_kills, tasks).await {
            OutOfMemory::Certain => "the kernel ran out of memory and was killed",
            OutOfMemory::Likely => {
                "the kernel was killed, most likely because it ran out of memory"
            }
            OutOfMemory::No => "the kernel was killed",
        }
    }
}

fn aborted() -> CellError {
    CellError::new("ExecutionAborted", "Execution was aborted")
}

/// Room for a line; `None` if nobody reads any more.
async fn reserve(client: Option<&mpsc::Sender<Bytes>>) -> Option<mpsc::Permit<'_, Bytes>> {
    client?.reserve().await.ok()
}

async fn closed(client: Option<&mpsc::Sender<Bytes>>) {
    if let Some(client) = client {
        client.closed().await;
    }
}

async fn reached(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time).await;
    }
}
