//! A node without processes that keeps the contract of [`NodeHandle`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use tokio::sync::{Semaphore, mpsc};
use warren_cluster::{
    BuildImage, Captured, CreateSandbox, Deadline, HostFacts, LogQuery, NodeError, NodeEvent,
    NodeHandle, NodeLoad, PauseSandbox, PauseView, ResumeSandbox, Resumed, SandboxView,
};
use warren_service::Secret;
use warren_types::{
    BuildId, CaptureKind, EndReason, LogEntry, MetricsPoint, NetworkPolicy, SandboxEnd, SandboxId,
    SandboxState,
};

/// What the next create does instead of succeeding.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    Start,
    Capacity,
    Panic,
    /// It comes up, and ends before the answer is out.
    Dies,
}

#[derive(Debug)]
pub(crate) struct FakeNode {
    living: Mutex<HashMap<SandboxId, SandboxView>>,
    logs: Mutex<HashMap<SandboxId, Vec<LogEntry>>>,
    events: mpsc::Sender<NodeEvent>,
    receiver: Mutex<Option<mpsc::Receiver<NodeEvent>>>,
    fault: Mutex<Option<Fault>>,
    pub(crate) requests: Mutex<Vec<CreateSandbox>>,
    pub(crate) egress: Mutex<HashMap<SandboxId, NetworkPolicy>>,
    pub(crate) warm: Mutex<Vec<BuildImage>>,
    /// What the next pause, resume or capture is refused with.
    pub(crate) refusal: Mutex<Option<NodeError>>,
    pub(crate) captures: Mutex<Vec<BuildId>>,
    /// How many paused sandboxes were taken up.
    pub(crate) resumes: Mutex<u32>,
    /// Creates and resumes pass one at a time for each permit.
    pub(crate) gate: Semaphore,
    /// Pauses are done one at a time for each permit; until then they are under way.
    pub(crate) pauses: Semaphore,
    /// Whether agents don't answer when they are paused.
    pub(crate) agent_silent: AtomicBool,
    /// Share of memory that is left.
    pub(crate) available_pct: Mutex<Option<u8>>,
}

fn derive(key: &Secret, text: &str) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()).unwrap();
    mac.update(text.as_bytes());
    Secret::new(hex::encode(mac.finalize().into_bytes()))
}

impl FakeNode {
    pub(crate) fn new() -> Arc<Self> {
        let (events, receiver) = mpsc::channel(1024);
        Arc::new(Self {
            living: Mutex::default(),
            logs: Mutex::default(),
            events,
            receiver: Mutex::new(Some(receiver)),
            fault: Mutex::default(),
            requests: Mutex::default(),
            egress: Mutex::default(),
            warm: Mutex::default(),
            refusal: Mutex::default(),
            captures: Mutex::default(),
            resumes: Mutex::default(),
            gate: Semaphore::new(1_000_000),
            pauses: Semaphore::new(1_000_000),
            agent_silent: AtomicBool::new(false),
            available_pct: Mutex::default(),
        })
    }

    /// The same sandboxes under a new server. A pause that was under way never was.
    pub(crate) fn restarted(&self) -> Arc<Self> {
        let node = Self::new();
        let mut living = self.living.lock().unwrap().clone();
        for view in living.values_mut().filter(|view| view.pause.is_none()) {
            view.state = SandboxState::Running;
        }
        *node.living.lock().unwrap() = living;
        node
    }

    /// Waits until a sandbox is in this state.
    pub(crate) async fn until(&self, id: &SandboxId, state: SandboxState) {
        while self.living.lock().unwrap()[id].state != state {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn change_state(&self, id: &SandboxId, state: SandboxState) -> Result<(), NodeError> {
        let mut living = self.living.lock().unwrap();
        let missing = || NodeError::NotFound(id.clone());
        living.get_mut(id).ok_or_else(missing)?.state = state;
        Ok(())
    }

    pub(crate) fn fail_next(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }

    pub(crate) fn count(&self) -> usize {
        self.living.lock().unwrap().len()
    }

    pub(crate) fn end_at(&self, id: &str) -> Timestamp {
        self.living.lock().unwrap()[&id.parse::<SandboxId>().unwrap()].end_at
    }

    /// Forgets a sandbox without a word, as a host that went down.
    pub(crate) fn lose(&self, id: &str) {
        self.living
            .lock()
            .unwrap()
            .remove(&id.parse::<SandboxId>().unwrap());
    }

    /// Ends a sandbox by itself and tells.
    pub(crate) async fn die(&self, id: &SandboxId, reason: EndReason) {
        if self.living.lock().unwrap().remove(id).is_some() {
            self.tell(id.as_str(), reason).await;
        }
    }

    /// Tells that a sandbox ended.
    pub(crate) async fn tell(&self, id: &str, reason: EndReason) {
        let id = id.parse().unwrap();
        let mut end = SandboxEnd::new(reason, Timestamp::now());
        if reason == EndReason::OutOfMemory {
            end.memory_peak = Some(512 << 20);
        }
        self.events
            .send(NodeEvent::Ended { id, end })
            .await
            .unwrap();
    }

    /// Tells that a sandbox is at work.
    pub(crate) async fn use_cpu(&self, id: &str) {
        let point = MetricsPoint {
            at: Timestamp::now(),
            cpu_count: 2,
            cpu_used_pct: 50.0,
            mem_used: 1,
            mem_total: 2,
            mem_cache: 0,
            disk_used: 1,
            disk_total: 2,
        };
        let samples = vec![(id.parse().unwrap(), point)];
        self.events.send(NodeEvent::Metrics(samples)).await.unwrap();
    }

    async fn change(&self, view: &SandboxView) {
        let changed = NodeEvent::Changed(Box::new(view.clone()));
        self.events.send(changed).await.unwrap();
    }

    /// Ends what is due.
    pub(crate) async fn tick(&self) {
        let now = Timestamp::now();
        let due: Vec<_> = self
            .living
            .lock()
            .unwrap()
            .values()
            .filter(|view| view.end_at <= now)
            .map(|view| view.id.clone())
            .collect();
        for id in due {
            self.die(&id, EndReason::TimedOut).await;
        }
    }

    pub(crate) async fn sample(&self, id: &str, point: MetricsPoint) {
        let id = id.parse().unwrap();
        self.events
            .send(NodeEvent::Metrics(vec![(id, point)]))
            .await
            .unwrap();
    }

    pub(crate) fn log(&self, id: &str, entry: LogEntry) {
        self.logs
            .lock()
            .unwrap()
            .entry(id.parse().unwrap())
            .or_default()
            .push(entry);
    }
}

#[async_trait]
impl NodeHandle for FakeNode {
    async fn create(&self, request: CreateSandbox) -> Result<SandboxView, NodeError> {
        self.requests.lock().unwrap().push(request.clone());
        let _pass = self.gate.acquire().await.unwrap();
        let fault = self.fault.lock().unwrap().take();
        match fault {
            Some(Fault::Start) => {
                let cause = "/secret/path: no such file".into();
                return Err(NodeError::StartFailed(cause));
            }
            Some(Fault::Capacity) => return Err(NodeError::NoCapacity("addresses".into())),
            Some(Fault::Panic) => panic!("the node panicked"),
            Some(Fault::Dies) | None => {}
        }
        let (id, now) = (SandboxId::random(), Timestamp::now());
        let key = request.access_token;
        let view = SandboxView {
            state: SandboxState::Running,
            started_at: now,
            end_at: now + request.timeout,
            resources: request.image.resources,
            access_token: key.as_ref().map(|key| derive(key, id.as_str())),
            traffic_access_token: None,
            tier: "namespace",
            revision: 0,
            pause: None,
            template_id: request.image.template_id,
            build_id: request.image.build_id,
            id,
        };
        self.living
            .lock()
            .unwrap()
            .insert(view.id.clone(), view.clone());
        if matches!(fault, Some(Fault::Dies)) {
            self.die(&view.id, EndReason::Crashed).await;
        }
        Ok(view)
    }

    async fn get(&self, id: &SandboxId) -> Result<SandboxView, NodeError> {
        let living = self.living.lock().unwrap();
        living
            .get(id)
            .cloned()
            .ok_or_else(|| NodeError::NotFound(id.clone()))
    }

    async fn list(&self) -> Vec<SandboxView> {
        self.living.lock().unwrap().values().cloned().collect()
    }

    async fn end(&self, id: &SandboxId, reason: EndReason) -> Result<(), NodeError> {
        self.get(id).await?;
        self.die(id, reason).await;
        Ok(())
    }

    async fn set_deadline(&self, id: &SandboxId, to: Deadline) -> Result<SandboxView, NodeError> {
        let mut living = self.living.lock().unwrap();
        let view = living
            .get_mut(id)
            .ok_or_else(|| NodeError::NotFound(id.clone()))?;
        if view.state == SandboxState::Pausing {
            return Err(NodeError::Transition {
                id: id.clone(),
                state: view.state,
            });
        }
        view.end_at = match to {
            Deadline::Set(at) => at,
            Deadline::Extend(at) => view.end_at.max(at),
        };
        Ok(view.clone())
    }

    async fn set_egress(&self, id: &SandboxId, policy: NetworkPolicy) -> Result<(), NodeError> {
        self.get(id).await?;
        self.egress.lock().unwrap().insert(id.clone(), policy);
        Ok(())
    }

    async fn pause(&self, id: &SandboxId, request: PauseSandbox) -> Result<SandboxView, NodeError> {
        if self.get(id).await?.pause.is_some() {
            return Err(NodeError::Paused(id.clone()));
        }
        self.change_state(id, SandboxState::Pausing)?;
        let _pass = self.pauses.acquire().await.unwrap();
        if let Some(error) = self.refusal.lock().unwrap().take() {
            self.change_state(id, SandboxState::Running)?;
            return Err(error);
        }
        let view = {
            let mut living = self.living.lock().unwrap();
            let missing = || NodeError::NotFound(id.clone());
            let view = living.get_mut(id).ok_or_else(missing)?;
            if view.pause.is_some() {
                return Err(NodeError::Paused(id.clone()));
            }
            let at = Timestamp::now();
            view.state = SandboxState::Paused;
            view.revision += 1;
            view.end_at = at;
            view.pause = Some(PauseView {
                at,
                memory: request.memory,
                note: None,
                agent_silent: self.agent_silent.load(Ordering::Relaxed),
            });
            view.clone()
        };
        self.change(&view).await;
        Ok(view)
    }

    async fn resume(&self, id: &SandboxId, request: ResumeSandbox) -> Result<Resumed, NodeError> {
        let _pass = self.gate.acquire().await.unwrap();
        if let Some(error) = self.refusal.lock().unwrap().take() {
            return Err(error);
        }
        let (view, was_running) = {
            let mut living = self.living.lock().unwrap();
            let missing = || NodeError::NotFound(id.clone());
            let view = living.get_mut(id).ok_or_else(missing)?;
            let now = Timestamp::now();
            let was_running = view.pause.take().is_none();
            if was_running {
                let latest = view.started_at + request.max_length;
                view.end_at = view.end_at.max((now + request.timeout).min(latest));
            } else {
                *self.resumes.lock().unwrap() += 1;
                view.state = SandboxState::Running;
                view.revision += 1;
                view.started_at = now;
                view.end_at = now + request.timeout.min(request.max_length);
            }
            (view.clone(), was_running)
        };
        if !was_running {
            self.change(&view).await;
        }
        Ok(Resumed { view, was_running })
    }

    async fn capture(
        &self,
        id: &SandboxId,
        build: BuildId,
        memory: bool,
    ) -> Result<Captured, NodeError> {
        if let Some(error) = self.refusal.lock().unwrap().take() {
            return Err(error);
        }
        let view = self.get(id).await?;
        if view.pause.is_some() {
            return Err(NodeError::Paused(id.clone()));
        }
        let mut image = self.requests.lock().unwrap()[0].image.clone();
        image.build_id = build;
        image.capture = Some(match memory {
            true => CaptureKind::Memory,
            false => CaptureKind::Filesystem,
        });
        self.captures.lock().unwrap().push(build);
        Ok(Captured { image, bytes: 1 })
    }

    async fn keep_ready(&self, image: &BuildImage) -> Result<(), NodeError> {
        self.captures.lock().unwrap().push(image.build_id);
        Ok(())
    }

    async fn forget_capture(&self, build: BuildId) -> Result<(), NodeError> {
        self.captures.lock().unwrap().retain(|kept| *kept != build);
        Ok(())
    }

    async fn captures(&self) -> Result<Vec<BuildId>, NodeError> {
        Ok(self.captures.lock().unwrap().clone())
    }

    fn memory_captures(&self) -> Result<(), String> {
        Ok(())
    }

    async fn logs(&self, id: &SandboxId, query: LogQuery) -> Result<Vec<LogEntry>, NodeError> {
        let logs = self.logs.lock().unwrap();
        let mut entries = logs.get(id).cloned().unwrap_or_default();
        if query.backward {
            entries.reverse();
        }
        let (mut first, mut last) = (query.from, query.until);
        if query.backward {
            std::mem::swap(&mut first, &mut last);
        }
        entries.retain(|entry| {
            let logger = query.logger.as_ref();
            first.is_none_or(|first| entry.timestamp >= first)
                && last.is_none_or(|last| entry.timestamp <= last)
                && logger.is_none_or(|logger| entry.fields.get("logger") == Some(logger))
                && query.min_level.is_none_or(|level| entry.level >= level)
                && query
                    .search
                    .as_ref()
                    .is_none_or(|text| entry.message.contains(text))
        });
        entries.truncate(query.limit);
        Ok(entries)
    }

    async fn set_warm_builds(&self, builds: Vec<BuildImage>) {
        *self.warm.lock().unwrap() = builds;
    }

    async fn load(&self) -> NodeLoad {
        NodeLoad {
            running: self.count(),
            paused: 0,
            warm: 0,
            available_pct: *self.available_pct.lock().unwrap(),
        }
    }

    async fn host(&self) -> HostFacts {
        HostFacts {
            name: "fake".to_owned(),
            cpu_count: 4,
            ..HostFacts::default()
        }
    }

    fn take_events(&self) -> Option<mpsc::Receiver<NodeEvent>> {
        self.receiver.lock().unwrap().take()
    }
}
