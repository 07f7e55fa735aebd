//! The runtime: opens an instance, boots, adopts, sweeps and shuts down.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Instrument, info_span};
use warren_sys::creds;
use warren_types::egress::EgressPolicy;
use warren_types::{Ipv4Net, SandboxId};

use super::adopt;
use super::boot;
use super::capture::{self, Capture};
use super::cgroup::Cgroups;
use super::config::NsConfig;
use super::core::Core;
use super::criu::{self, Hold, PrepareError, Preparing, Seat};
use super::disk::Disks;
use super::instance::{Instance, RUN_DIR};
use super::net::{BLOCKED, Network, RefusedLog, SERVICE_ADDRESS};
use super::parts::{Guarded, Janitor, Places};
use super::rootfs::Joiner;
use super::sandbox::NsSandbox;
use super::shims::{self, Helper, Pool, Shim};
use super::slot::{Slot, Slots};
use super::step::{Doing, Step};
use super::worker::Worker;
use crate::{
    AdoptError, Attachment, BootSpec, Capabilities, CaptureInfo, CheckpointSupport, Record,
    Restored, Runtime, RuntimeError, Sandbox, SweepReport,
};

/// What records of this runtime carry as its name.
pub const RUNTIME_NAME: &str = "namespace";

/// A server that is just going away may hold the instance this long.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Makes sandboxes out of Linux namespaces.
#[derive(Debug)]
pub struct NsRuntime {
    core: Arc<Core>,
    pool: Arc<Pool>,
    boot_id: String,
}

fn step<T>(what: &str, result: io::Result<T>) -> Result<T, RuntimeError> {
    result.map_err(|source| RuntimeError::Step {
        step: what.to_owned(),
        source,
    })
}

impl NsRuntime {
    /// Opens the instance of a data directory. Sandboxes that an earlier process left keep
    /// running, cut off from the internet until they are adopted. Blocks for some ten
    /// milliseconds, longer while another server of the directory is still stopping.
    ///
    /// # Errors
    /// [`RuntimeError::Unsupported`] with a remedy when the host lacks something;
    /// [`RuntimeError::Step`] when another process serves the data directory, or a step fails.
    pub fn open(config: NsConfig) -> Result<Self, RuntimeError> {
        let instance = step("make the data directory", Instance::of(&config.data_dir))?;
        let lock = step("lock the data directory", lock(&instance))?;
        let cgroups = Cgroups::open(instance.name())?;
        let left = step("list cgroups", cgroups.slots())?;
        let left: Vec<_> = left.into_iter().collect();
        let network = Network::open(&instance, &config, &left);
        let network = Arc::new(step("set up the network", network)?);
        let disks = Disks::open(&instance, &config.data_dir, config.prepared);
        let disks = Arc::new(step("set up the disks", disks)?);
        let slots = Slots::open(&Path::new(RUN_DIR).join("slots"), instance.name());
        let slots = Arc::new(Mutex::new(step("open the slots", slots)?));
        let lock = Arc::new(lock);
        let places = Places {
            network: Arc::clone(&network),
            disks: Arc::clone(&disks),
            slots: Arc::clone(&slots),
            _lock: Arc::clone(&lock),
        };
        let janitor = step("start the janitor", Janitor::start(places))?;
        let count = thread::available_parallelism()
            .map_or(2, usize::from)
            .max(2);
        let launchers = Worker::start(
            "warren-launch",
            count,
            creds::keep_capabilities_on_id_change,
        );
        let launchers = step("start the launcher threads", launchers)?;
        let joiner = step("start joining layers", Joiner::start(config.overlay, count))?;
        let helper = step("start the helper", Helper::start(&config.helper))?;
        let core = Arc::new(Core {
            config,
            instance,
            cgroups,
            network,
            disks,
            slots,
            janitor,
            launchers,
            joiner,
            helper: Mutex::new(Some(helper)),
            criu: Mutex::default(),
            fail_at: Mutex::default(),
            _lock: lock,
        });
        let pool = Arc::new(Pool::default());
        step("start the refill thread", shims::start_refill(&core, &pool))?;
        let boot_id = step("read the boot id", adopt::boot_id())?;
        Ok(Self {
            core,
            pool,
            boot_id,
        })
    }

    /// Number of shims that are ready.
    #[must_use]
    pub fn prepared(&self) -> usize {
        self.pool.ready()
    }

    /// Name of the instance, which is part of the name of all it has on the host.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.core.instance.name()
    }

    /// Number of slots that shims and sandboxes have, those being released included.
    #[must_use]
    pub fn slots_in_use(&self) -> usize {
        self.core.slots().used()
    }

    /// Lets the next boot fail at a step. For tests.
    #[doc(hidden)]
    pub fn fail_next(&self, step: Step) {
        *self
            .core
            .fail_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(step);
    }

    /// Starts to prepare shims and disks ahead. Meant for after adoptions and sweep; boots
    /// work before too.
    pub fn start_preparing(&self) {
        self.pool.start_ahead();
    }

    /// Prepares what captures with memory need, as [`super::prepare_tools`] does, for this
    /// instance. Until it has succeeded they are declared unavailable with the reason.
    /// Blocks.
    ///
    /// # Errors
    /// [`PrepareError`].
    pub fn prepare_checkpoints(
        &self,
        mirror: Option<&str>,
        progress: impl FnMut(Preparing<'_>) -> ControlFlow<()>,
    ) -> Result<CheckpointSupport, PrepareError> {
        if let Ok(found) = self.core.criu() {
            return Ok(found.support());
        }
        *self.core.lock_criu() = Hold::Preparing;
        let prepared = criu::prepare_tools(&self.core.tools(), mirror, progress);
        *self.core.lock_criu() = match &prepared {
            Ok(_) => Hold::Missing,
            Err(error) => Hold::Failed(error.to_string().replace('\n', "; ")),
        };
        prepared
    }

    /// Listens for sandboxes on a TCP port of [`super::SERVICE_ADDRESS`]; non-blocking.
    ///
    /// # Errors
    /// As bind(2) and listen(2).
    pub fn bind_tcp(&self, port: u16) -> io::Result<TcpListener> {
        self.core.network.bind_tcp((SERVICE_ADDRESS, port).into())
    }

    /// Listens for sandboxes on a UDP port of [`super::SERVICE_ADDRESS`]; non-blocking.
    ///
    /// # Errors
    /// As bind(2).
    pub fn bind_udp(&self, port: u16) -> io::Result<UdpSocket> {
        self.core.network.bind_udp((SERVICE_ADDRESS, port).into())
    }

    /// The slot that an address belongs to, as peers of sockets in the router have it; what
    /// records hold. No sandbox can use another's.
    #[must_use]
    pub fn slot_of(&self, address: IpAddr) -> Option<u32> {
        match address {
            IpAddr::V4(address) => Slot::of_address(address).map(Slot::number),
            IpAddr::V6(_) => None,
        }
    }

    /// How often the kernel killed a process for lack of memory in the sandbox that an address
    /// belongs to, since its boot. `None` when there is none.
    #[must_use]
    pub fn oom_kills_at(&self, address: IpAddr) -> Option<u64> {
        let slot = Slot::from_number(self.slot_of(address)?)?;
        self.core.cgroups.of(slot).oom_kills().ok()
    }

    /// The egress policy of the sandbox at an address, as peers of sockets in the router have
    /// it; `None` when it is no sandbox's, or lets out all or nothing.
    #[must_use]
    pub fn egress_of(&self, address: IpAddr) -> Option<Arc<EgressPolicy>> {
        let slot = Slot::from_number(self.slot_of(address)?)?;
        self.core.network.policy(slot)
    }

    /// The egress policy of the sandbox in a slot.
    #[must_use]
    pub fn egress_in(&self, slot: u32) -> Option<Arc<EgressPolicy>> {
        self.core.network.policy(Slot::from_number(slot)?)
    }

    /// Whether a sandbox may reach an address at all: it is public, or the operator allows it.
    #[must_use]
    pub fn is_public(&self, address: Ipv4Addr) -> bool {
        let holds = |net: &str| {
            net.parse::<Ipv4Net>()
                .is_ok_and(|net| net.contains(address))
        };
        let mut allowed = self.core.config.allowed_egress.iter();
        allowed.any(|net| holds(net)) || !BLOCKED.iter().any(|net| holds(net))
    }

    /// Makes a TCP socket in the router, not connected and non-blocking: what it connects to
    /// is what a sandbox could, and nothing of the host.
    ///
    /// # Errors
    /// As socket(2).
    pub async fn router_socket(&self) -> io::Result<std::net::TcpStream> {
        self.core.network.router_socket().await
    }

    /// Tells of packets that the router refuses. `None` after the first call, and where the
    /// kernel can't.
    ///
    /// # Errors
    /// When no I/O driver runs.
    pub fn take_refused(&self) -> io::Result<Option<RefusedLog>> {
        let listener = self.core.network.take_refused();
        listener.map(RefusedLog::new).transpose()
    }

    fn record(&self, spec: &BootSpec, parts: &super::parts::Parts) -> io::Result<Record> {
        let process = parts.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
        Ok(Record {
            id: spec.id.clone(),
            runtime: RUNTIME_NAME.to_owned(),
            pid: process.pid,
            pid_start_time: adopt::start_time(process.pid)?,
            boot_id: self.boot_id.clone(),
            slot: parts.slot.number(),
            resources: spec.resources,
            layers: spec.layers.clone(),
            policy: spec.policy.clone(),
        })
    }

    #[tracing::instrument(name = "runtime start", skip_all)]
    async fn start(
        &self,
        spec: BootSpec,
        from: Option<Capture>,
    ) -> Result<NsSandbox, RuntimeError> {
        let shim = self.pool.take().instrument(info_span!("prepared")).await?;
        let core = Arc::clone(&self.core);
        let sent = spec.clone();
        let launched = self
            .core
            .launchers
            .submit(move |()| boot::launch(&core, shim, &sent, from.as_ref()))
            .instrument(info_span!("launch"));
        let launched = step("launch", launched.await.map_err(io::Error::other))??;
        // The disk taken is prepared again.
        self.pool.poke();
        let parts = launched
            .ready(&self.core)
            .instrument(info_span!("agent up"))
            .await?;
        self.wrap(&spec, parts)
    }

    /// Restores the processes of a capture.
    #[tracing::instrument(name = "runtime restore", skip_all)]
    async fn carry_on(
        &self,
        spec: BootSpec,
        from: Capture,
        mounts: Vec<Attachment>,
    ) -> Result<NsSandbox, RuntimeError> {
        let missing = || RuntimeError::NoCheckpoint("the capture has no memory".to_owned());
        let facts = from.manifest.memory.clone().ok_or_else(missing)?;
        let shim = self.pool.take().await?;
        let core = Arc::clone(&self.core);
        let sent = spec.clone();
        let work = move || {
            let criu = core.criu().map_err(RuntimeError::NoCheckpoint)?;
            creds::keep_capabilities_on_id_change().doing(Step::Restore)?;
            let Shim {
                mut parts,
                orders,
                user_namespace,
            } = shim;
            // The processes know the log as it was; it is cut when they are there.
            let keep = Some((&from, true));
            let root = boot::assemble(&core, &mut parts, user_namespace.as_fd(), &sent, keep)?;
            let seat = Seat {
                parts,
                orders,
                user_namespace,
                root,
            };
            let fresh_log = from.manifest.source != sent.id;
            let from = (from.dir(), &facts);
            criu::restore(&core, &criu, seat, from, fresh_log, mounts)
        };
        // When nobody waits any more, the parts are dropped and so released.
        let restored = self.core.launchers.apart("warren-restore", work);
        let restored = step("start a thread", restored)?;
        let parts = step("restore", restored.await.map_err(io::Error::other))??;
        self.pool.poke();
        self.wrap(&spec, parts)
    }

    /// Ends the guard of a sandbox that runs.
    fn wrap(&self, spec: &BootSpec, parts: Guarded) -> Result<NsSandbox, RuntimeError> {
        let record = self.record(spec, &parts).doing(Step::Ready)?;
        let parts = parts.into_parts();
        let parts = parts
            .ok_or(io::ErrorKind::NotFound.into())
            .doing(Step::Ready)?;
        NsSandbox::new(Arc::clone(&self.core), record, parts).doing(Step::Ready)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let done = self.core.launchers.submit(move |()| job()).await;
        step("use a launcher thread", done.map_err(io::Error::other))?
    }

    async fn read_capture(&self, from: &Path) -> Result<Capture, RuntimeError> {
        let from = from.to_owned();
        self.blocking(move || Capture::open(&from)).await
    }

    fn release_instance(core: &Core) -> io::Result<()> {
        let left = core.slots().used() > 0;
        let disks = core.disks.release(left);
        if left {
            return disks;
        }
        let network = core.network.release();
        let cgroups = core.cgroups.remove();
        let slots = core.slots().give_back();
        let run_dir = fs::remove_dir_all(core.instance.run_dir());
        [disks, network, cgroups, slots, run_dir]
            .into_iter()
            .collect()
    }
}

fn lock(instance: &Instance) -> io::Result<fs::File> {
    let mut attempts = 0;
    loop {
        match instance.lock() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts < LOCK_ATTEMPTS => {
                attempts += 1;
                thread::sleep(LOCK_PAUSE);
            }
            other => return other,
        }
    }
}

impl Drop for NsRuntime {
    fn drop(&mut self) {
        self.pool.stop();
    }
}

impl Runtime for NsRuntime {
    type Sandbox = NsSandbox;

    async fn boot(&self, spec: BootSpec) -> Result<NsSandbox, RuntimeError> {
        self.start(spec, None).await
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            checkpoint: self.core.criu().map(|criu| criu.support()),
        }
    }

    fn captures_dir(&self) -> PathBuf {
        self.core.disks.captures()
    }

    async fn restore(
        &self,
        mut spec: BootSpec,
        from: &Path,
        memory: bool,
        mounts: Vec<Attachment>,
    ) -> Result<Restored<NsSandbox>, RuntimeError> {
        let capture = self.read_capture(from).await?;
        if spec.layers.is_empty() {
            spec.layers.clone_from(&capture.manifest.layers);
        }
        spec.resources.disk_mib = capture.manifest.disk.size_mib;
        let sandbox = if memory {
            self.carry_on(spec, capture, mounts).await?
        } else {
            let sandbox = self.start(spec, Some(capture)).await?;
            if let Err(error) = sandbox.attach(mounts).await {
                sandbox.destroy().await?;
                return Err(error);
            }
            sandbox
        };
        Ok(Restored { sandbox, memory })
    }

    async fn inspect_capture(&self, capture: &Path) -> Result<CaptureInfo, RuntimeError> {
        let capture = capture.to_owned();
        self.blocking(move || Capture::open(&capture)?.info()).await
    }

    async fn forget_capture(&self, capture: &Path) -> Result<(), RuntimeError> {
        let (captures, capture) = (self.captures_dir(), capture.to_owned());
        self.blocking(move || capture::forget(&captures, &capture))
            .await
    }

    async fn adopt(&self, record: Record) -> Result<NsSandbox, AdoptError> {
        let core = Arc::clone(&self.core);
        let adopted = self
            .core
            .launchers
            .submit(move |()| adopt::adopt(&core, record))
            .await;
        let stopped = |error| AdoptError::Failed(Step::Slot.failed(io::Error::other(error)));
        adopted.map_err(stopped)?
    }

    async fn sweep(&self, _keep: &[SandboxId]) -> Result<SweepReport, RuntimeError> {
        // What is to be kept was adopted, and its slots are in use.
        let core = Arc::clone(&self.core);
        let found = self
            .core
            .launchers
            .run(move |()| adopt::sweep_processes(&core))
            .await;
        let sandboxes = step("sweep cgroups", found)?;
        self.core.janitor.drain().await;
        let core = Arc::clone(&self.core);
        let swept = self.core.launchers.run(move |()| {
            let slots = core.slots();
            capture::sweep(&core.disks.captures())?;
            core.disks.sweep(|slot| slots.is_used(slot))
        });
        step("sweep disks", swept.await)?;
        Ok(SweepReport { sandboxes })
    }

    async fn drain(&self) {
        self.core.janitor.drain().await;
    }

    async fn shutdown(&self) {
        self.pool.stop();
        let (core, pool) = (Arc::clone(&self.core), Arc::clone(&self.pool));
        let stopped = self.core.launchers.run(move |()| {
            pool.join();
            let helper = core
                .helper
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(helper);
            Ok(())
        });
        if let Err(error) = stopped.await {
            tracing::warn!(%error, "the helper is not stopped");
        }
        // A boot that nobody waits for any more still ends with the janitor.
        self.core.launchers.idle().await;
        self.core.janitor.drain().await;
        let core = Arc::clone(&self.core);
        let released = self
            .core
            .launchers
            .run(move |()| Self::release_instance(&core))
            .await;
        if let Err(error) = released {
            tracing::warn!(%error, "the host is not left as it was found");
        }
    }
}
