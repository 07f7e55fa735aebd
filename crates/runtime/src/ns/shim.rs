//! A shim: the future first process of a sandbox. It is made by the helper inside all its
//! namespaces, sets up what does not depend on the sandbox, and waits for a root. When the
//! server goes away before, it sees the end of its socket and exits.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use std::net::Ipv4Addr;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::{Errno, FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{chdir, fchdir, pivot_root, setsid};
use rustix::system::sethostname;
use warren_sys::mount::{self, Attr, Param};
use warren_sys::netlink::{Socket, rtnl};
use warren_sys::seccomp::Filter;
use warren_sys::{caps, creds, exec, fdpass, netns};

use super::helper::{GO, STAGE};
use super::protocol::{MAX_MESSAGE, Order};

/// Name of the link inside a sandbox.
pub(crate) const GUEST_LINK: &str = "eth0";
/// Host name inside every sandbox; clients of the platform expect this one.
pub(crate) const HOST_NAME: &str = "e2b.local";
/// What a shim answers when it has carried out an order.
pub(crate) const DONE: &[u8] = b"D";
/// All that the agent finds in its environment.
const AGENT_ENV: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Descriptors handed to the agent start here, clear of what programs expect low.
const FIRST_AGENT_FD: i32 = 10;
const OPEN_FILES: u64 = 1 << 20;
const PLAIN: Attr = Attr::MOUNT_ATTR_NOSUID
    .union(Attr::MOUNT_ATTR_NODEV)
    .union(Attr::MOUNT_ATTR_NOEXEC);

/// Files and directories of proc and sysfs that tell about or steer the host.
const MASKED: [&str; 13] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kallsyms",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];
/// Parts of proc that can be read but not written.
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Carries out the server's orders; returns only when there will be no sandbox.
pub(crate) fn run(orders: &OwnedFd, filter: &Filter) -> ExitCode {
    match obey(orders, filter) {
        Ok(()) => ExitCode::SUCCESS,
        Err((step, error)) => {
            // The server may be gone; then nobody is left to tell.
            let _unheard = fdpass::send(orders, format!("{step}: {error}").as_bytes(), &[]);
            ExitCode::FAILURE
        }
    }
}

/// What was being done, and why it failed.
pub(crate) type Failure = (&'static str, io::Error);

trait During<T> {
    fn during(self, step: &'static str) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn during(self, step: &'static str) -> Result<T, Failure> {
        self.map_err(|error| (step, error.into()))
    }
}

fn obey(orders: &OwnedFd, filter: &Filter) -> Result<(), Failure> {
    let mut buffer = [0; MAX_MESSAGE];
    let (length, _) = fdpass::receive(orders, &mut buffer).during("wait for id maps")?;
    if &buffer[..length] != GO {
        return Err(("wait for id maps", io::ErrorKind::InvalidData.into()));
    }
    creds::become_namespace_root().during("become root of the namespace")?;
    creds::reset_signals().during("reset signals")?;
    setsid().during("start a session")?;
    loop {
        let (length, fds) = match fdpass::receive(orders, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other.during("receive an order")?,
        };
        match Order::decode(&buffer[..length]).during("read an order")? {
            Order::Prepare { address, gateway } => {
                // By now it is in all its groups: each becomes the root that it sees.
                netns::enter_new_cgroups().during("hide the groups above")?;
                prepare_network(address, gateway)?;
                sethostname(HOST_NAME.as_bytes()).during("set the host name")?;
                prepare_mounts()?;
                caps::bound_to(caps::SANDBOX).during("bound capabilities")?;
                creds::raise_open_files(OPEN_FILES).during("set the limit of open files")?;
                fdpass::send(orders, DONE, &[]).during("answer")?;
            }
            Order::Launch { cpus, memory_mib } => return launch(fds, (cpus, memory_mib), filter),
        }
    }
}

/// Sets up the network namespace of the calling thread, in which the link is.
pub(crate) fn prepare_network(address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), Failure> {
    let mut socket = Socket::route().during("open a netlink socket")?;
    socket.link_up(rtnl::LOOPBACK).during("set up loopback")?;
    // Only loopback speaks IPv6: nothing routes it further.
    let ipv6 = Path::new("/proc/sys/net/ipv6/conf")
        .join(GUEST_LINK)
        .join("disable_ipv6");
    if ipv6.exists() {
        fs::write(ipv6, "1").during("switch off IPv6")?;
    }
    let link = rtnl::index_of(GUEST_LINK).during("find the link")?;
    socket.link_up(link).during("set up the link")?;
    socket
        .address_add(link, address, 31)
        .during("set the address")?;
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0);
    socket
        .route_add(everywhere, gateway, link)
        .during("set the route")?;
    for (setting, value) in [
        ("ping_group_range", "0 65535"),
        ("ip_unprivileged_port_start", "0"),
    ] {
        fs::write(Path::new("/proc/sys/net/ipv4").join(setting), value)
            .during("set network parameters")?;
    }
    Ok(())
}

fn stage(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(
        CWD,
        Path::new(STAGE).join(path),
        flags,
        Mode::empty(),
    )?)
}

fn prepare_mounts() -> Result<(), Failure> {
    let put = |mount: io::Result<OwnedFd>, at: &str| mount::attach(mount?, stage(at)?);
    put(mount::clone_tree(CWD, Path::new("/dev"), false), "dev").during("mount /dev")?;
    let terminals = [
        Param::Flag("newinstance"),
        Param::Text("ptmxmode", "0666"),
        Param::Text("mode", "0620"),
        Param::Text("gid", "5"),
    ];
    let no_exec = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NOEXEC;
    put(mount::create("devpts", &terminals, no_exec), "dev/pts").during("mount /dev/pts")?;
    let shared = [Param::Text("mode", "1777")];
    let no_dev = Attr::MOUNT_ATTR_NOSUID | Attr::MOUNT_ATTR_NODEV;
    put(mount::create("tmpfs", &shared, no_dev), "dev/shm").during("mount /dev/shm")?;
    put(mount::create("mqueue", &[], PLAIN), "dev/mqueue").during("mount /dev/mqueue")?;
    put(mount::create("proc", &[], PLAIN), "proc").during("mount /proc")?;
    let read_only = PLAIN | Attr::MOUNT_ATTR_RDONLY;
    put(mount::create("sysfs", &[], read_only), "sys").during("mount /sys")?;
    mask().during("mask parts of /proc and /sys")
}

fn mask() -> io::Result<()> {
    // A mount can be cloned where it is attached; detached ones only since Linux 6.15.
    let mut empty: Option<PathBuf> = None;
    for path in MASKED {
        let at = match stage(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let directory =
            rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&at)?.st_mode).is_dir();
        let cover = if !directory {
            mount::clone_tree(CWD, &Path::new(STAGE).join("dev/null"), false)?
        } else if let Some(empty) = &empty {
            mount::clone_tree(CWD, empty, false)?
        } else {
            empty = Some(Path::new(STAGE).join(path));
            mount::create("tmpfs", &[], PLAIN | Attr::MOUNT_ATTR_RDONLY)?
        };
        mount::attach(cover, at)?;
    }
    for path in READ_ONLY {
        let full = Path::new(STAGE).join(path);
        let same = match mount::clone_tree(CWD, &full, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        mount::set_attr(&same, Attr::MOUNT_ATTR_RDONLY, true)?;
        mount::attach(same, stage(path)?)?;
    }
    Ok(())
}

fn launch(
    fds: Vec<OwnedFd>,
    (cpus, memory_mib): (u32, u32),
    filter: &Filter,
) -> Result<(), Failure> {
    let Ok([root, agent, ready, log, key]) = <[OwnedFd; 5]>::try_from(fds) else {
        return Err(("launch", io::ErrorKind::InvalidData.into()));
    };
    enter(&root)?;
    drop(root);
    use_own_null().during("open /dev/null")?;
    let mut args = vec![
        "envd".to_owned(),
        "-port".to_owned(),
        warren_types::ENVD_PORT.to_string(),
        "-cpus".to_owned(),
        cpus.to_string(),
        "-memory-mib".to_owned(),
        memory_mib.to_string(),
    ];
    // Kept open until exec: the numbers must stay taken.
    let mut inherited = Vec::new();
    for (option, fd) in [
        ("-ready-fd", ready),
        ("-log-fd", log),
        ("-init-key-fd", key),
    ] {
        let copy = fcntl_dupfd_cloexec(fd, FIRST_AGENT_FD).during("number descriptors")?;
        fcntl_setfd(&copy, FdFlags::empty()).during("number descriptors")?;
        args.extend([option.to_owned(), copy.as_raw_fd().to_string()]);
        inherited.push(copy);
    }
    let args: Vec<CString> = args
        .into_iter()
        .map(CString::new)
        .collect::<Result<_, _>>()
        .map_err(|error| ("build arguments", error.into()))?;
    let env = [CString::new(AGENT_ENV).map_err(|error| ("build environment", error.into()))?];
    filter.load().during("load the system call filter")?;
    let error = exec::from_fd(agent.as_fd(), &args, &env);
    Err(("execute the agent", error))
}

/// Replaces the standard descriptors, which lead to a file outside of the root.
fn use_own_null() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Makes `root`, completed by what was staged, the root of this process.
fn enter(root: &OwnedFd) -> Result<(), Failure> {
    mount::attach(root, stage("root").during("open the stage")?).during("attach the root")?;
    let base = stage("root").during("open the root")?;
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::DIRECTORY;
    for name in ["dev", "proc", "sys"] {
        match mkdirat(&base, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(("make a mount point in the root", error.into())),
        }
        // A template may have put a link there; it must not be followed.
        let onto = openat(&base, name, flags, Mode::empty()).during("open a mount point")?;
        mount::relocate(&Path::new(STAGE).join(name), onto).during("move a mount to the root")?;
    }
    fchdir(&base).during("enter the root")?;
    pivot_root(".", ".").during("switch to the root")?;
    unmount(".", UnmountFlags::DETACH).during("leave the old root")?;
    chdir("/").during("enter the root")
}
