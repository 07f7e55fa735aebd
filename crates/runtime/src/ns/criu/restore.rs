//! Restoring captured processes into a slot.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, openat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use warren_sys::mount;
use warren_sys::netlink::{Socket, rtnl};
use warren_sys::{fdpass, netns, random};

use super::super::attach::attach_to;
use super::super::capture::RESTORE_PREFIX;
use super::super::core::Core;
use super::super::disk::Disk;
use super::super::helper::{self, RESTORE};
use super::super::parts::{Guarded, Process};
use super::super::shim::{self, GUEST_LINK};
use super::super::slot::Slot;
use super::super::step::{Doing, Step};
use super::carrier::{Orders, make_fifo};
use super::{AGENT, CapturedMemory, Criu, FILES, MEMORY, images, probes, reason, sockets, volumes};
use crate::{Attachment, RuntimeError};

pub(super) const LOG: &str = "restore.log";
pub(super) const PID_FILE: &str = "pid";
/// Through these the process that restores tells of the network namespace and is answered.
pub(super) const UP: &str = "up";
pub(super) const GO: &str = "go";
/// What takes longer hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Where a restore puts the processes: a slot with disk, limits and a joined root.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) parts: Guarded,
    /// The shim's; it exits when this is dropped.
    pub(crate) orders: OwnedFd,
    pub(crate) user_namespace: OwnedFd,
    pub(crate) root: OwnedFd,
}

/// Directory of one restore: images (links to the
/// capture's, save those that are rewritten),
/// log and pipes. Removed when dropped.
#[derive(Debug)]
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "the directory of a restore stays until the next start");
        }
    }
}

impl Place {
    fn make(core: &Core, seat: &Seat, capture: &Path, facts: &CapturedMemory) -> io::Result<Self> {
        // Beside the captures, so that images are linked and not copied. CRIU opens them from
        // inside, by way of this directory alone: it must be open to the sandbox's root, and
        // the one above is open to nobody.
        let name = format!("{RESTORE_PREFIX}{}", seat.parts.slot.number());
        let path = core.disks.captures().join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        let place = Self(path);
        let first_id = seat.parts.slot.first_id();
        for entry in fs::read_dir(capture.join(MEMORY))? {
            let entry = entry?;
            let (from, to) = (entry.path(), place.0.join(entry.file_name()));
            let name = entry.file_name().to_string_lossy().into_owned();
            let changed = if name.starts_with("userns-") {
                images::remap_ids(&fs::read(&from)?, first_id)?
            } else if name.starts_with("mountpoints-") {
                let image = volumes::leave_out(&fs::read(&from)?, &facts.volumes)?;
                images::remap_mounts(&image, facts.first_id, first_id)?
            } else if name == FILES {
                let source = Slot::of_first_id(facts.first_id).ok_or(io::ErrorKind::InvalidData)?;
                let to = seat.parts.slot.address();
                sockets::move_address(&fs::read(&from)?, source.address(), to)?
            } else {
                if name.ends_with(".img") {
                    fs::hard_link(&from, &to)?;
                }
                continue;
            };
            fs::write(&to, changed)?;
            fs::set_permissions(&to, Permissions::from_mode(0o644))?;
        }
        make_fifo(&place.0.join(UP))?;
        make_fifo(&place.0.join(GO))?;
        Ok(place)
    }

    /// Opens a pipe so that neither opening nor the absence of the other end blocks.
    fn pipe(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.0.join(name), flags, Mode::empty())?.into())
    }
}

/// Restores the processes of a capture. Blocks; the calling thread must be good for nothing
/// else, since it changes its network namespace.
pub(crate) fn restore(
    core: &Core,
    criu: &Criu,
    mut seat: Seat,
    (capture, facts): (&Path, &CapturedMemory),
    fresh_log: bool,
    mounts: Vec<Attachment>,
) -> Result<Guarded, RuntimeError> {
    let place = Place::make(core, &seat, capture, facts).doing(Step::Restore)?;
    let log = open_log(&seat).doing(Step::Restore)?;
    let stage = core.instance.run_dir().join("stage");
    fs::create_dir_all(&stage).doing(Step::Restore)?;
    let agent = File::open(capture.join(AGENT)).doing(Step::Restore)?;
    let orders = Orders {
        groups: seat
            .parts
            .cgroup
            .dirs()
            .iter()
            .map(|dir| dir.to_string_lossy().into_owned())
            .collect(),
        stage: stage.to_string_lossy().into_owned(),
        words: criu.words(),
        images: place.0.to_string_lossy().into_owned(),
        names: [facts.agent.clone(), facts.log.clone()],
        known: probes::known(core, criu)
            .doing(Step::Restore)?
            .map(|file| file.to_string_lossy().into_owned()),
    };
    let up = place.pipe(UP).doing(Step::Restore)?;
    let go = place.pipe(GO).doing(Step::Restore)?;
    let fds = [seat.root.as_fd(), agent.as_fd(), log.as_fd()];
    let mut child = start(core, &orders, &fds).doing(Step::Restore)?;
    let carried = carry(&mut child, &seat, (up, go), mounts);
    // Whatever happened, the child must not stay a zombie.
    if carried.is_err() {
        let _gone = child.kill();
    }
    let ended = child.wait().doing(Step::Restore)?;
    carried.doing(Step::Restore)?;
    if !ended.success() {
        let why = reason(&place.0.join(LOG));
        return Err(RuntimeError::NoCheckpoint(why.unwrap_or_else(|error| {
            format!("criu ended with {ended} and no log: {error}")
        })));
    }
    // Upon this the shim exits.
    drop(seat.orders);
    let process = find(&place).doing(Step::Restore)?;
    helper::prefer_agent(process.pid);
    if fresh_log {
        File::from(log).set_len(0).doing(Step::Restore)?;
    }
    seat.parts.process = Some(process);
    Ok(seat.parts)
}

/// Opens the agent's log as the sandbox's root may: CRIU opens it once more from inside.
fn open_log(seat: &Seat) -> io::Result<OwnedFd> {
    let disk = seat.parts.disk.as_ref().ok_or(io::ErrorKind::NotFound)?;
    let dir = mount::clone_tree(disk.mount(), &disk.directory(), false)?;
    mount::idmap(&dir, seat.user_namespace.as_fd())?;
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
    Ok(openat(&dir, Disk::LOG, flags, Mode::empty())?)
}

fn start(core: &Core, orders: &Orders, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<Child> {
    let (socket, theirs) = fdpass::pair()?;
    let child = Command::new(&core.config.helper)
        .args([super::super::HELPER_COMMAND, RESTORE])
        .arg(serde_json::to_string(orders)?)
        .env_clear()
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    fdpass::send(&socket, b"R", fds)?;
    Ok(child)
}

/// Waits for the network namespace, sets it up, and waits for the end.
fn carry(
    child: &mut Child,
    seat: &Seat,
    (mut up, mut go): (File, File),
    mounts: Vec<Attachment>,
) -> io::Result<()> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + LIMIT;
    if !wait(&up, &ended, deadline)? {
        return Ok(());
    }
    let pid = read_pid(&mut up)?;
    move_network(pid, seat)?;
    // Numbers that copies of a process hold in advance would be the same in each.
    random::reseed()?;
    go.write_all(b"go\n")?;
    // All is there and nothing runs yet.
    if wait(&up, &ended, deadline)? {
        let pid = read_pid(&mut up)?;
        attach_to(&hold(pid)?, seat.parts.slot, mounts)?;
        go.write_all(b"go\n")?;
        wait(&ended, &ended, deadline)?;
    }
    Ok(())
}

fn read_pid(up: &mut File) -> io::Result<u32> {
    let mut text = [0; 32];
    let length = up.read(&mut text)?;
    std::str::from_utf8(&text[..length])
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Waits until `one` can be read; false when `end` came first.
fn wait(one: &impl AsFd, end: &OwnedFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut fds = [
            PollFd::new(one, PollFlags::IN),
            PollFd::new(end, PollFlags::IN),
        ];
        match poll(&mut fds, Some(&left)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Moves the link that the shim has to the namespace of the restored first process, and sets
/// it up as the shim had it. The calling thread stays there.
fn move_network(pid: u32, seat: &Seat) -> io::Result<()> {
    let target = netns_of(pid)?;
    let shim = seat.parts.process.as_ref().ok_or(io::ErrorKind::NotFound)?;
    netns::enter(shim.netns.as_fd())?;
    Socket::route()?.link_move(rtnl::index_of(GUEST_LINK)?, target.as_fd())?;
    netns::enter(target.as_fd())?;
    let slot = seat.parts.slot;
    shim::prepare_network(slot.address(), slot.gateway())
        .map_err(|(step, error)| io::Error::new(error.kind(), format!("{step}: {error}")))
}

fn netns_of(pid: u32) -> io::Result<OwnedFd> {
    let path = Path::new("/proc").join(pid.to_string()).join("ns/net");
    Ok(File::open(path)?.into())
}

/// Takes hold of the restored first process.
fn find(place: &Place) -> io::Result<Process> {
    let text = fs::read_to_string(place.0.join(PID_FILE))?;
    hold(text.trim().parse().map_err(io::Error::other)?)
}

fn hold(number: u32) -> io::Result<Process> {
    let pid = i32::try_from(number).map_err(io::Error::other)?;
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Process {
        pid: number,
        netns: Arc::new(netns_of(number)?),
        pidfd: pidfd_open(pid, PidfdFlags::empty())?,
    })
}
