//! The process that becomes `criu restore`. It is the helper's program, started once for each
//! restore: it moves itself to where the sandbox is to be, since what CRIU restores stays in
//! the groups and the cgroup namespace of CRIU.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::mount::{MountPropagationFlags, mount_change};
use serde::{Deserialize, Serialize};
use warren_sys::mount::{self, Attr, Param};
use warren_sys::{fdpass, netns};

use super::super::helper::make_devices;
use super::{DEVICES, PATH, probes};

/// Descriptors handed to CRIU start here, clear of its own.
const FIRST_FD: i32 = 100;
/// Reports why it failed through this status; CRIU's own is 1.
const FAILED: u8 = 3;

/// What the process is told, as its last argument. Its standard input is a socket with three
/// descriptors: root, agent and log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Orders {
    /// Directories of the groups to move to.
    pub(super) groups: Vec<String>,
    /// Directory to assemble the root in.
    pub(super) stage: String,
    /// Program and its first arguments.
    pub(super) words: Vec<String>,
    /// Directory of the images, and of what is written.
    pub(super) images: String,
    /// Names of agent and log in the images.
    pub(super) names: [String; 2],
    /// File of what is known of the kernel, where CRIU does not keep it.
    pub(super) known: Option<String>,
}

/// Runs CRIU as told by the arguments after the helper's own; returns only on failure.
pub(crate) fn main(arguments: &[String]) -> ExitCode {
    let error = match become_criu(arguments) {
        Ok(error) | Err(error) => error,
    };
    // Kept where the log would be; the server looks there.
    if let Some(orders) = arguments.first().and_then(|text| parse(text).ok()) {
        let log = Path::new(&orders.images).join(super::restore::LOG);
        let _unwritten = fs::write(log, format!("Error (start): {error}\n"));
    }
    ExitCode::from(FAILED)
}

fn parse(text: &str) -> io::Result<Orders> {
    serde_json::from_str(text).map_err(io::Error::from)
}

fn become_criu(arguments: &[String]) -> io::Result<io::Error> {
    let orders = parse(arguments.first().ok_or(io::ErrorKind::InvalidInput)?)?;
    let mut byte = [0; 1];
    let (_, fds) = fdpass::receive(io::stdin(), &mut byte)?;
    let [root, agent, log] =
        <[OwnedFd; 3]>::try_from(fds).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    for group in &orders.groups {
        let procs = Path::new(group).join("cgroup.procs");
        fs::write(procs, std::process::id().to_string())?;
    }
    netns::enter_new_cgroups()?;
    let stage = Path::new(&orders.stage);
    assemble(stage, root)?;
    if let Some(file) = &orders.known {
        probes::cover(Path::new(file))?;
    }
    // Here, since elsewhere programs may be forbidden.
    let script = stage.join("script");
    fs::write(&script, script_text(&orders.images))?;
    fs::set_permissions(&script, Permissions::from_mode(0o700))?;
    let mut command = Command::new(orders.words.first().ok_or(io::ErrorKind::InvalidInput)?);
    command.args(&orders.words[1..]);
    command
        .args(["restore", "--images-dir", &orders.images])
        .args(["--work-dir", &orders.images])
        .args(["--log-file", super::restore::LOG, "-v2"])
        .arg("--root")
        .arg(stage.join("root"))
        .args([
            "--restore-detached",
            "--empty-ns",
            "net",
            "--tcp-established",
        ])
        .args(["--manage-cgroups=ignore", "--file-locks"])
        .args(["--pidfile", super::restore::PID_FILE])
        .arg("--external")
        .arg(format!("mnt[{DEVICES}]:{}", stage.join("dev").display()))
        .arg("--action-script")
        .arg(&script);
    let mut open = Vec::new();
    for (fd, name) in [agent, log].into_iter().zip(&orders.names) {
        let copy = fcntl_dupfd_cloexec(fd, FIRST_FD)?;
        fcntl_setfd(&copy, FdFlags::empty())?;
        command
            .arg("--inherit-fd")
            .arg(format!("fd[{}]:{name}", copy.as_raw_fd()));
        // Kept until exec: the number must stay taken.
        open.push(copy);
    }
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(command.env_clear().env("PATH", PATH).exec())
}

/// Once the network namespace is there, and again when all is but nothing runs, the server is
/// told whose it is and waited for.
fn script_text(dir: &str) -> String {
    format!(
        "#!/bin/sh\n\
         case \"$CRTOOLS_SCRIPT_ACTION\" in setup-namespaces|pre-resume) \
         echo \"$CRTOOLS_INIT_PID\" > {dir}/{up} && read answer < {dir}/{go} && \
         test \"$answer\" = go;; esac\n",
        up = super::restore::UP,
        go = super::restore::GO,
    )
}

/// Puts root and devices where CRIU can take them from, in a mount namespace of its own.
fn assemble(stage: &Path, root: OwnedFd) -> io::Result<()> {
    netns::enter_new_mounts()?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let params = [Param::Text("mode", "0755"), Param::Text("size", "64k")];
    let base = mount::create("tmpfs", &params, Attr::MOUNT_ATTR_NOSUID)?;
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let at = |path: &Path| openat(CWD, path, flags, Mode::empty());
    mount::attach(base, at(stage)?)?;
    for name in ["root", "dev"] {
        fs::create_dir(stage.join(name))?;
    }
    mount::attach(root, at(&stage.join("root"))?)?;
    make_devices(at(&stage.join("dev"))?)
}

/// Makes a place for words between two processes.
pub(super) fn make_fifo(path: &Path) -> io::Result<()> {
    let mode = Mode::from_raw_mode(0o600);
    Ok(rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0)?)
}
