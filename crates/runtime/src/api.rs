//! What every runtime offers.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use warren_types::{NetworkPolicy, Resources, SandboxId};

use crate::{AdoptError, RuntimeError};

/// What to boot.
#[derive(Debug, Clone)]
pub struct BootSpec {
    /// Identity; also the name of everything the sandbox has on the host.
    pub id: SandboxId,
    /// Directories of the immutable layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// Limits.
    pub resources: Resources,
    /// What may leave it.
    pub policy: NetworkPolicy,
    /// The agent that becomes its first process.
    pub agent: AgentSpec,
}

/// The program that becomes the sandbox's first process.
#[derive(Debug, Clone)]
pub struct AgentSpec {
    /// Static executable on the host; never visible by path inside.
    pub executable: PathBuf,
    /// Secret that authorises `/init`, handed over through a descriptor.
    pub init_key: String,
}

/// How to find a booted sandbox again after a restart of the server. Written to the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Identity.
    pub id: SandboxId,
    /// Runtime that made it: `namespace`.
    pub runtime: String,
    /// Its first process, as the host sees it.
    pub pid: u32,
    /// Start time of that process in clock ticks since boot, so that a reused pid is told apart.
    pub pid_start_time: u64,
    /// Boot id of the machine it was started on.
    pub boot_id: String,
    /// Number of its slot: uid range, address and device names follow from it.
    pub slot: u32,
    /// Limits.
    pub resources: Resources,
    /// Layers, lowest first.
    pub layers: Vec<PathBuf>,
    /// What may leave it.
    pub policy: NetworkPolicy,
}

/// A directory of the host for a sandbox.
#[derive(Debug)]
pub struct Attachment {
    /// Detached mount of it, with owners as the sandbox is to see them. Consumed, whatever
    /// comes of it.
    pub tree: OwnedFd,
    /// Absolute path in the sandbox; what is missing of it is made.
    pub path: String,
    /// Refuse writes.
    pub read_only: bool,
}

/// Use of the host by one sandbox, cumulative where marked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time since boot in microseconds (cumulative).
    pub cpu_micros: u64,
    /// Memory without page cache, in bytes.
    pub memory_used: u64,
    /// Page cache in bytes.
    pub memory_cache: u64,
    /// Bytes of the writable file system in use.
    pub disk_used: u64,
    /// Times that the kernel killed a process for lack of memory (cumulative).
    pub oom_kills: u64,
    /// The most memory that it ever used, page cache included, in bytes; 0 where the kernel
    /// does not tell.
    pub memory_peak: u64,
}

/// How a sandbox's first process came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCause {
    /// By itself or by a signal.
    Died,
    /// The kernel killed it for lack of memory.
    OutOfMemory,
}

/// What a commit copied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Committed {
    /// Files, directories and marks of deleted ones.
    pub entries: u64,
    /// Bytes of files.
    pub bytes: u64,
}

/// What a runtime can do on this machine beyond booting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Captures with memory; or why they can't be made and what to do about it.
    pub checkpoint: Result<CheckpointSupport, String>,
}

/// The program that captures memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointSupport {
    /// Version it reports.
    pub version: String,
    /// Where it is.
    pub path: PathBuf,
}

/// What a capture holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaptureInfo {
    /// Sandbox it was made of.
    pub source: SandboxId,
    /// Bytes it would take alone; blocks shared with other captures are counted in each.
    pub bytes: u64,
    /// Whether processes can be restored from it, on a machine that can.
    pub has_memory: bool,
    /// Limits of the source.
    pub resources: Resources,
    /// Layers below the captured disk, lowest first. A capture is of no use without them.
    pub layers: Vec<PathBuf>,
}

/// A sandbox made from a capture.
#[derive(Debug)]
pub struct Restored<S> {
    /// The sandbox.
    pub sandbox: S,
    /// Whether the captured processes run on; else the agent was started anew.
    pub memory: bool,
}

/// What a sweep released.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Sandboxes that were killed or whose remains were released.
    pub sandboxes: usize,
}

/// Opens connections into a sandbox, to any port on its loopback.
pub trait Dial: Debug + Send + Sync {
    /// Tries once: IPv4 loopback, then IPv6 loopback. `ConnectionRefused` means that nothing
    /// listens; `NotFound` that the sandbox is gone.
    fn dial(
        &self,
        port: u16,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + '_>>;

    /// Listens on a port inside, on loopback or on all addresses of IPv4; port 0 has one
    /// chosen. Whoever holds the listener must let go of it when the run ends: it keeps the
    /// network in being. `AddrInUse` and `NotFound` as usual.
    fn listen(
        &self,
        port: u16,
        is_loopback: bool,
    ) -> std::pin::Pin<Box<dyn Future<Output = io::Result<TcpListener>> + Send + '_>>;
}

/// Makes sandboxes.
pub trait Runtime: Debug + Send + Sync + 'static {
    /// What it makes.
    type Sandbox: Sandbox;

    /// Boots a sandbox and returns when its agent listens. A failure leaves nothing behind;
    /// dropping the future must not either.
    fn boot(
        &self,
        spec: BootSpec,
    ) -> impl Future<Output = Result<Self::Sandbox, RuntimeError>> + Send;

    /// Takes over a sandbox that an earlier server process booted and that still runs.
    fn adopt(
        &self,
        record: Record,
    ) -> impl Future<Output = Result<Self::Sandbox, AdoptError>> + Send;

    /// What this machine can do. May change while the server runs, as tools become ready.
    fn capabilities(&self) -> Capabilities;

    /// Directory whose direct children captures must be: it lies where they can share blocks
    /// with disks, and outlives restarts of server and machine. Names beginning with a dot
    /// are the runtime's own.
    fn captures_dir(&self) -> PathBuf;

    /// Makes a sandbox from a capture, which stays as it is and may serve many at once. With
    /// `memory` its processes run on, else the agent is started on its disk. Layers are the
    /// spec's, or those of the capture when the spec names none; the size of the disk is
    /// always the capture's. Directories of the host that were mounted in the source are no
    /// part of a capture: `mounts` are mounted, as by [`Sandbox::attach`], before a captured
    /// process runs. A failure leaves nothing behind; dropping the future must not either.
    /// [`RuntimeError::NoCheckpoint`] when memory is asked for and can't be had.
    fn restore(
        &self,
        spec: BootSpec,
        from: &Path,
        memory: bool,
        mounts: Vec<Attachment>,
    ) -> impl Future<Output = Result<Restored<Self::Sandbox>, RuntimeError>> + Send;

    /// Tells what a capture holds. [`RuntimeError::NoCapture`] when there is none.
    fn inspect_capture(
        &self,
        capture: &Path,
    ) -> impl Future<Output = Result<CaptureInfo, RuntimeError>> + Send;

    /// Removes a capture; sandboxes made from it don't mind. Idempotent.
    fn forget_capture(
        &self,
        capture: &Path,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Kills and releases everything of this instance that is not in `keep`, and captures
    /// that were not finished: called once at start, after the adoptions. Idempotent.
    fn sweep(
        &self,
        keep: &[SandboxId],
    ) -> impl Future<Output = Result<SweepReport, RuntimeError>> + Send;

    /// Waits until all releases in the background are done.
    fn drain(&self) -> impl Future<Output = ()> + Send;

    /// Releases what the instance itself holds on the host (router namespace, prepared
    /// shims, pool file mount); with no sandbox left, the host is as it was found.
    fn shutdown(&self) -> impl Future<Output = ()> + Send;
}

/// A booted sandbox.
pub trait Sandbox: Debug + Send + Sync + 'static {
    /// How to find it again.
    fn record(&self) -> Record;

    /// Opens connections into it. Valid after the sandbox's end too: dials fail then.
    fn dialer(&self) -> Arc<dyn Dial>;

    /// Current use of the host.
    fn usage(&self) -> impl Future<Output = Result<Usage, RuntimeError>> + Send;

    /// Replaces what may leave it; in force for new connections on return.
    fn set_policy(
        &self,
        policy: NetworkPolicy,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Mounts directories of the host in it, in this order. After a failure some may be
    /// mounted: the sandbox is of no use then.
    fn attach(
        &self,
        mounts: Vec<Attachment>,
    ) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// The agent's log on the host: JSON lines written by the guest, bounded by the disk limit.
    fn log_path(&self) -> PathBuf;

    /// Resolves when the first process has died.
    fn exited(&self) -> impl Future<Output = ExitCause> + Send;

    /// Kills every process in it and copies what it has written into the directory `into`,
    /// which must not exist, in the form that [`BootSpec::layers`] have. Left out is what each
    /// sandbox has of its own: identity files, sockets, the content of `/tmp` and of `/run`.
    /// [`Self::destroy`] must follow; `into` is the caller's to remove after a failure.
    fn commit(&self, into: PathBuf)
    -> impl Future<Output = Result<Committed, RuntimeError>> + Send;

    /// Stops every process in it where it stands. On return none runs, and connections into
    /// it get no answer. Idempotent.
    fn freeze(&self) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Lets the processes run on. Idempotent.
    fn thaw(&self) -> impl Future<Output = Result<(), RuntimeError>> + Send;

    /// Whether it is frozen, also when an earlier server process did it.
    fn is_frozen(&self) -> impl Future<Output = Result<bool, RuntimeError>> + Send;

    /// Writes a capture to `into`, a child of [`Runtime::captures_dir`] that does not exist:
    /// the disk, and with `memory` the processes. The sandbox must be frozen, and is on
    /// return, whatever happened; it can go on. On success the capture is whole and durable;
    /// on failure there is none. [`RuntimeError::NoCheckpoint`] tells why the memory of this
    /// sandbox can't be captured.
    fn capture(
        &self,
        into: &Path,
        memory: bool,
    ) -> impl Future<Output = Result<CaptureInfo, RuntimeError>> + Send;

    /// Kills every process in it, also when it is frozen. On return none runs; the rest (mounts, cgroup, devices,
    /// files) is released in the background, batched with others. Idempotent.
    fn destroy(&self) -> impl Future<Output = Result<(), RuntimeError>> + Send;
}
