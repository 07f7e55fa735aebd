//! The helper process: small and single-threaded, so that cloning it is cheap and safe. It
//! makes shims on request and does nothing else. It lives in a mount namespace of its own
//! that holds just what shims need: they start with a handful of mounts to copy, and none of
//! the host's.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{Pid, chdir, pivot_root, setpriority_process, setsid};
use warren_sys::clone::{self, Cloned};
use warren_sys::mount::{self, Attr, Param};
use warren_sys::seccomp::Filter;
use warren_sys::{creds, fdpass, netns};

use super::criu::{carrier, probes};
use super::protocol::{Answer, MAX_MESSAGE, MakeShim};
use super::shim;
use super::slot::RANGE;

/// Niceness of a sandbox's first process, so that the agent answers while commands use all
/// the CPU that the sandbox has.
const AGENT_NICE: i32 = -10;

/// Second argument that makes the helper's program restore one sandbox.
pub(crate) const RESTORE: &str = "restore";

/// Runs the helper until the server closes the other end of the socket that is its
/// standard input. The process must have one thread: call it first thing in `main`.
#[must_use]
pub fn helper_main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(2).collect();
    if let Some((mode, rest)) = arguments.split_first() {
        match mode.as_str() {
            RESTORE => return carrier::main(rest),
            probes::RUN => return probes::run(rest),
            probes::LEARN => return probes::learn(rest),
            _ => {}
        }
    }
    match set_up() {
        Ok(socket) => serve(socket),
        Err(error) => {
            let answer = Answer::Failed(format!("set up the helper: {error}")).encode();
            // The server may be gone; then nobody is left to tell.
            let _unheard = fdpass::send(std::io::stdin(), &answer, &[]);
            ExitCode::FAILURE
        }
    }
}

fn set_up() -> io::Result<OwnedFd> {
    // A terminal's signals are for the server; sandboxes outlive it.
    let _already_leader = setsid();
    creds::ignore_children()?;
    // What the server was started with is not for sandboxes.
    creds::close_on_exec_from(3)?;
    // A server that the host protects from the out-of-memory killer must not hand that on.
    let _kept = fs::write("/proc/self/oom_score_adj", "0");
    enter_bare_mounts()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 10)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(socket)
}

/// Answers requests; in a clone, becomes the shim.
fn serve(socket: OwnedFd) -> ExitCode {
    let filter = Filter::sandbox();
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        // End of file is the server's end; any other failure can't be told to anyone either.
        let Ok((length, fds)) = fdpass::receive(&socket, &mut buffer) else {
            return ExitCode::SUCCESS;
        };
        let made = match (MakeShim::decode(&buffer[..length]), fds.first()) {
            (Ok(request), Some(cgroup)) => make(request, cgroup.as_fd()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
        drop(fds);
        let sent = match made {
            Ok(Made::Shim { pid, fds }) => {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                fdpass::send(&socket, &Answer::Made { pid }.encode(), &fds)
            }
            Ok(Made::ThisProcess(orders)) => {
                drop(socket);
                return shim::run(&orders, &filter);
            }
            Err(error) => fdpass::send(&socket, &Answer::Failed(error.to_string()).encode(), &[]),
        };
        if sent.is_err() {
            return ExitCode::FAILURE;
        }
    }
}

enum Made {
    /// In the helper: the shim's pid; its pidfd, socket, network and user namespace.
    Shim { pid: u32, fds: [OwnedFd; 4] },
    /// In the clone: its socket.
    ThisProcess(OwnedFd),
}

fn make(request: MakeShim, cgroup: BorrowedFd<'_>) -> io::Result<Made> {
    let (ours, theirs) = fdpass::pair()?;
    match clone::into_namespaces(cgroup)? {
        Cloned::Child => {
            drop(ours);
            Ok(Made::ThisProcess(theirs))
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            let process = Path::new("/proc").join(pid.to_string());
            let map = format!("0 {} {RANGE}", request.first_id);
            // A failure drops our end of the pair, upon which the shim exits.
            fs::write(process.join("uid_map"), &map)?;
            fs::write(process.join("gid_map"), &map)?;
            prefer_agent(pid);
            let network = File::open(process.join("ns/net"))?.into();
            let user = File::open(process.join("ns/user"))?.into();
            fdpass::send(&ours, GO, &[])?;
            Ok(Made::Shim {
                pid,
                fds: [pidfd, ours, network, user],
            })
        }
    }
}

/// Lets a sandbox's first process go before the others.
pub(crate) fn prefer_agent(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // Refused where the operator took the right away; the agent then competes.
    let _best_effort = setpriority_process(pid, AGENT_NICE);
}

/// Tells a shim that its id maps are written.
pub(crate) const GO: &[u8] = b"G";

/// Where the parts of a sandbox's tree wait until its root is there.
pub(crate) const STAGE: &str = "/stage";

/// Leaves the host's mounts for a small tree: fresh proc and sysfs (the kernel lets a user
/// namespace mount its own only where full ones are visible), the device nodes, and places
/// to assemble a sandbox.
fn enter_bare_mounts() -> io::Result<()> {
    netns::enter_new_mounts()?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let text = |key, value| Param::Text(key, value);
    let params = [text("mode", "0755"), text("size", "1m")];
    let base = mount::create("tmpfs", &params, Attr::MOUNT_ATTR_NOSUID)?;
    // Any directory will do: the whole old tree is detached below.
    mount::attach(
        &base,
        rustix::fs::openat(CWD, "/tmp", dir_flags(), Mode::empty())?,
    )?;
    chdir("/tmp")?;
    for dir in ["proc", "sys", "dev", "stage", "old"] {
        fs::create_dir(dir)?;
    }
    for dir in ["root", "proc", "sys", "dev"] {
        fs::create_dir(Path::new("stage").join(dir))?;
    }
    let plain = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV | Attr::MOUNT_ATTR_NOEXEC;
    let at = |path: &str| rustix::fs::openat(CWD, path, dir_flags(), Mode::empty());
    mount::attach(mount::create("proc", &[], plain)?, at("proc")?)?;
    mount::attach(mount::create("sysfs", &[], plain)?, at("sys")?)?;
    make_devices(at("dev")?)?;
    pivot_root(".", "old")?;
    chdir("/")?;
    unmount("/old", UnmountFlags::DETACH)?;
    Ok(())
}

fn dir_flags() -> OFlags {
    OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::PATH
}

/// Device nodes that a sandbox gets: number and name.
const DEVICES: [(u32, u32, &str); 6] = [
    (1, 3, "null"),
    (1, 5, "zero"),
    (1, 7, "full"),
    (1, 8, "random"),
    (1, 9, "urandom"),
    (5, 0, "tty"),
];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes the tree that all sandboxes share read-only as `/dev`.
pub(crate) fn make_devices(onto: OwnedFd) -> io::Result<()> {
    let params = [Param::Text("mode", "0755"), Param::Text("size", "64k")];
    let devices = mount::create("tmpfs", &params, Attr::MOUNT_ATTR_NOSUID)?;
    rustix::process::umask(Mode::empty());
    for (major, minor, name) in DEVICES {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(&devices, name, FileType::CharacterDevice, mode, device)?;
    }
    for (target, name) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, &devices, name)?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777), ("mqueue", 0o755)] {
        rustix::fs::mkdirat(&devices, name, Mode::from_raw_mode(mode))?;
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    mount::set_attr(&devices, Attr::MOUNT_ATTR_RDONLY, false)?;
    mount::attach(devices, onto)
}
