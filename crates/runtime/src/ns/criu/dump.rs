//! Capturing the processes of a frozen sandbox.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::super::cgroup::Cgroup;
use super::super::core::Core;
use super::super::disk::Disk;
use super::volumes::{self, InUse};
use super::{
    AGENT, CapturedMemory, Criu, DEVICES, FILES, MEMORY, probes, reason, sockets, watches,
};
use crate::RuntimeError;

/// Processes that can't be stopped by then won't be.
const STOP_SECONDS: &str = "10";
/// Deleted files that are still open are kept up to this size each.
const DELETED_LIMIT: &str = "512M";
const LOG: &str = "dump.log";

/// What is captured.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    pub(crate) pid: u32,
    pub(crate) first_id: u32,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) disk: &'a Disk,
    pub(crate) layers: &'a [PathBuf],
}

fn step(source: io::Error) -> RuntimeError {
    RuntimeError::Step {
        step: "capture the memory".to_owned(),
        source,
    }
}

/// Writes the processes of a frozen sandbox to `into`, where the capture is made. They are
/// frozen on return, whatever happened. Durable on return. Blocks.
pub(crate) fn dump(
    core: &Core,
    criu: &Criu,
    source: &Source<'_>,
    into: &Path,
) -> Result<CapturedMemory, RuntimeError> {
    let images = into.join(MEMORY);
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&images)
        .map_err(step)?;
    let process = Path::new("/proc").join(source.pid.to_string());
    // CRIU would wait for it in vain: the child that it waits for is stopped already.
    if let Some(thread) = source.cgroup.settle().map_err(step)? {
        return Err(RuntimeError::NoCheckpoint(format!(
            "the process {} waits for a child that it has vforked and that does not go on",
            name_of(thread)
        )));
    }
    let agent = file_id(&process.join("exe")).map_err(step)?;
    let log = log_id(&process).map_err(step)?;
    let pids = source.cgroup.processes().map_err(step)?;
    let watched = watches::paths(&pids, source.disk, source.layers).map_err(step)?;
    refuse_lost_names(&pids)?;
    let volumes = volumes::find(&process).and_then(|found| {
        volumes::check(&pids, &found)?;
        Ok(found)
    });
    let volumes: Vec<_> = volumes.map_err(in_use)?.into_values().collect();

    let mut command = probes::command(core, criu).map_err(step)?;
    command
        .args(["dump", "--tree", &source.pid.to_string()])
        .arg("--images-dir")
        .arg(&images)
        .args(["--log-file", LOG, "-v2", "--timeout", STOP_SECONDS])
        .args(["--leave-running", "--empty-ns", "net", "--tcp-established"])
        .args(["--network-lock", "skip", "--skip-in-flight"])
        .arg("--manage-cgroups=ignore")
        .args(["--file-locks", "--ghost-limit", DELETED_LIMIT])
        .args(["--link-remap", "--force-irmap"])
        .args(["--external", &format!("mnt[/dev]:{DEVICES}")])
        .args(["--external", &agent, "--external", &log])
        .arg("--freeze-cgroup")
        .arg(source.cgroup.v2());
    for (at, place) in volumes.iter().enumerate() {
        command.arg("--external");
        command.arg(format!("mnt[{place}]:volume{at}"));
    }
    for path in watched {
        command.arg("--irmap-scan-path").arg(path);
    }
    let output = command.output();
    // CRIU thaws what it stops, and where it fails it may leave it so.
    source.cgroup.freeze().map_err(step)?;
    if !output.map_err(step)?.status.success() {
        return Err(refusal(&images.join(LOG)));
    }
    close_connections(&images.join(FILES)).map_err(step)?;
    let copy = into.join(AGENT);
    // With its mode, which has to be the same when the processes are restored.
    fs::copy(process.join("exe"), &copy).map_err(step)?;
    File::open(&copy)
        .and_then(|file| file.sync_all())
        .map_err(step)?;
    make_durable(&images).map_err(step)?;
    Ok(CapturedMemory {
        first_id: source.first_id,
        agent,
        log,
        volumes,
        processes: pids.len(),
    })
}

/// How a thread is called, for whoever owns the sandbox.
fn name_of(thread: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{thread}/comm")).unwrap_or_default();
    name.trim().to_owned()
}

/// A file without any name goes into the images. One that is open by a name that it lost
/// while it has others would be looked for in vain: CRIU's own name for it is gone before the
/// disk is captured.
fn refuse_lost_names(pids: &[u32]) -> Result<(), RuntimeError> {
    for pid in pids {
        let open = Path::new("/proc").join(pid.to_string()).join("fd");
        for entry in fs::read_dir(open).map_err(step)? {
            let link = entry.map_err(step)?.path();
            // Closed meanwhile.
            let Ok(target) = fs::read_link(&link) else {
                continue;
            };
            let target = target.to_string_lossy();
            if let Some(path) = target.strip_suffix(" (deleted)")
                && fs::metadata(&link).is_ok_and(|facts| facts.is_file() && facts.nlink() > 0)
            {
                let text = format!(
                    "a process has {path} open, a name that was deleted while the file has others"
                );
                return Err(RuntimeError::NoCheckpoint(text));
            }
        }
    }
    Ok(())
}

fn in_use(error: InUse) -> RuntimeError {
    match error {
        InUse::Look(error) => step(error),
        refused => RuntimeError::NoCheckpoint(refused.to_string()),
    }
}

/// A full disk is the host's failure, anything else is told of the sandbox.
fn refusal(log: &Path) -> RuntimeError {
    match reason(log) {
        Ok(text) if text.contains("the disk is full") => step(io::ErrorKind::StorageFull.into()),
        Ok(text) => RuntimeError::NoCheckpoint(text),
        Err(error) => step(error),
    }
}

/// Of what leads out of the sandbox only the socket can be kept.
fn close_connections(files: &Path) -> io::Result<()> {
    let (image, closed) = sockets::close_outward(&fs::read(files)?)?;
    if closed > 0 {
        tracing::debug!(closed, "connections that lead out are captured closed");
        fs::write(files, image)?;
    }
    Ok(())
}

fn make_durable(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            // Read from inside at the restore; the directories above are closed.
            fs::set_permissions(entry.path(), Permissions::from_mode(0o644))?;
            File::open(entry.path())?.sync_all()?;
        }
    }
    File::open(dir)?.sync_all()
}

/// The name that CRIU gives a file from outside the sandbox: its mount and inode.
fn file_id(path: &Path) -> io::Result<String> {
    let file = File::open(path)?;
    let facts = Path::new("/proc/self/fdinfo").join(file.as_raw_fd().to_string());
    id_in(&fs::read_to_string(facts)?)
}

/// The same of the agent's log, which it has open.
fn log_id(process: &Path) -> io::Result<String> {
    for entry in fs::read_dir(process.join("fd"))? {
        let entry = entry?;
        let target = fs::read_link(entry.path())?;
        if Disk::is_log(&target) {
            let facts = process.join("fdinfo").join(entry.file_name());
            return id_in(&fs::read_to_string(facts)?);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "the agent has no log",
    ))
}

fn id_in(facts: &str) -> io::Result<String> {
    let number = |name: &str| -> Option<u64> {
        facts
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let (mount, inode) = number("mnt_id:")
        .zip(number("ino:"))
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(format!("file[{mount:x}:{inode:x}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_by_mount_and_inode() {
        let facts = "pos:\t845\nflags:\t02502001\nmnt_id:\t1031\nino:\t131077\n";
        assert_eq!(id_in(facts).unwrap(), "file[407:20005]");
        assert!(id_in("pos:\t1\n").is_err());
    }
}
