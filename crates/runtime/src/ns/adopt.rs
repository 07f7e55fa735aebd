//! Taking over what an earlier server process left, and sweeping the rest.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::core::Core;
use super::parts::{Parts, Process};
use super::runtime::RUNTIME_NAME;
use super::sandbox::NsSandbox;
use super::slot::Slot;
use crate::{AdoptError, Record, RuntimeError};

/// Identity of this boot of the machine.
pub(super) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Start time of a process in clock ticks since boot.
pub(super) fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    start_time_in(&stat).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Field 22 of `/proc/PID/stat`; the second is a name that may hold anything.
fn start_time_in(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}

/// How long a capture may go on, and how often it is looked at.
const DUMP_LIMIT: Duration = Duration::from_secs(60);
const DUMP_LOOK: Duration = Duration::from_millis(5);

fn failed(step: &str) -> impl Fn(io::Error) -> AdoptError {
    move |source| {
        AdoptError::Failed(RuntimeError::Step {
            step: step.to_owned(),
            source,
        })
    }
}

/// Takes over the sandbox of a record. Blocks.
pub(super) fn adopt(core: &Arc<Core>, record: Record) -> Result<NsSandbox, AdoptError> {
    let here = boot_id().map_err(failed("read the boot id"))?;
    if record.boot_id != here {
        return Err(AdoptError::HostRestarted);
    }
    if record.runtime != RUNTIME_NAME {
        return Err(AdoptError::Gone);
    }
    let slot = Slot::from_number(record.slot).ok_or(AdoptError::Gone)?;
    let pid = i32::try_from(record.pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or(AdoptError::Gone)?;
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
        return Err(AdoptError::Gone);
    };
    // The descriptor holds whoever had the number then; now see that it was the right one.
    if !start_time(record.pid).is_ok_and(|time| time == record.pid_start_time) {
        return Err(AdoptError::Gone);
    }
    let cgroup = core.cgroups.of(slot);
    if !cgroup.holds(record.pid).is_ok_and(|held| held) {
        return Err(AdoptError::Gone);
    }
    wait_for_dump(record.pid).map_err(failed("wait for the capture of a killed server"))?;
    let netns = File::open(
        Path::new("/proc")
            .join(record.pid.to_string())
            .join("ns/net"),
    )
    .map_err(|_| AdoptError::Gone)?;
    let disk = core
        .disks
        .recover(slot, record.resources.disk_mib)
        .map_err(failed("find the sandbox's disk"))?;
    if !core.slots().take_back(slot) {
        return Err(failed("take back the slot")(
            io::ErrorKind::AddrInUse.into(),
        ));
    }
    let parts = Parts {
        slot,
        cgroup,
        process: Some(Process {
            pid: record.pid,
            pidfd,
            netns: Arc::new(netns.into()),
        }),
        disk: Some(disk),
        restricted: AtomicBool::new(true),
    };
    // Until now the slot was denied, whatever its policy: a restart opens nothing.
    let policy = record.policy.clone();
    if let Err(error) = core.network.set_policy_blocking(slot, policy) {
        core.slots().release(slot);
        return Err(failed("set the network policy")(error));
    }
    NsSandbox::new(Arc::clone(core), record, parts).map_err(failed("wrap the sandbox"))
}

/// A capture that a killed server has begun goes on by itself, and freezes and thaws as it
/// needs: before it is over nobody may.
fn wait_for_dump(pid: u32) -> io::Result<()> {
    let status = Path::new("/proc").join(pid.to_string()).join("status");
    let deadline = Instant::now() + DUMP_LIMIT;
    while fs::read_to_string(&status)?.lines().any(|line| {
        line.strip_prefix("TracerPid:")
            .is_some_and(|pid| pid.trim() != "0")
    }) {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(DUMP_LOOK);
    }
    Ok(())
}

/// Hands everything that no slot in use has to the janitor. Blocks. Gives the number of
/// sandboxes found.
pub(super) fn sweep_processes(core: &Core) -> io::Result<usize> {
    let mut found = 0;
    for slot in core.cgroups.slots()? {
        if core.slots().is_used(slot) {
            continue;
        }
        // A group in a block that is not ours has no other owner either: its name is ours.
        core.slots().take_back(slot);
        let mut parts = Parts::new(slot, core.cgroups.of(slot));
        parts.restricted = AtomicBool::new(true);
        core.janitor.release(parts);
        found += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_start_time() {
        let fields: Vec<String> = (3..=30).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b) ({})) {}", "x", fields.join(" "));
        assert_eq!(start_time_in(&stat), Some(22));
        assert!(start_time(std::process::id()).unwrap() > 0);
    }
}
