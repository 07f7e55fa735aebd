//! A private root of tools, where the distribution's CRIU is too old: the packages of a newer
//! Debian, unpacked and run by their own loader.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::Criu;
use crate::CheckpointSupport;

/// Name of the root among the tools. Names that begin with a dot and this are roots in the
/// making.
pub const TOOLS_ROOT: &str = "criu";
/// Begins the names of roots in the making.
const DRAFT: &str = ".criu-";
const LOCK: &str = ".criu.lock";
/// The first Debian with a version that will do.
const SUITE: &str = "sid";
/// Where packages come from unless another mirror is named.
const MIRROR: &str = "http://deb.debian.org/debian";
/// How often whoever asked for the tools can give up.
const LOOK: Duration = Duration::from_millis(250);
/// Most of the program's output that is kept to tell why it failed.
const SHOWN: usize = 16 << 10;

/// Why the tools can't be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The program that makes the root is missing.
    #[error("run mmdebstrap, which is not installed\nhint: apt-get install mmdebstrap")]
    NotInstalled,
    /// A file could not be made or read.
    #[error("make CRIU in {dir}")]
    Files {
        /// Directory of the tools.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The packages could not be fetched or unpacked.
    #[error(
        "fetch CRIU from {mirror}: {output}\nhint: check that this machine reaches the mirror, or name another with --debian-mirror"
    )]
    Failed {
        /// The mirror.
        mirror: String,
        /// What the program said last.
        output: String,
    },
    /// What was made does not run here.
    #[error("the CRIU of the newer packages does not run on this machine, or is older than 4.2")]
    Useless,
    /// Whoever asked for it gave up.
    #[error("preparing CRIU was given up")]
    GivenUp,
}

/// What happens while tools are prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preparing<'a> {
    /// They are not there and are being made.
    Started,
    /// A line of output.
    Line(&'a str),
    /// Nothing new.
    Waiting,
}

/// Loader and arguments of the CRIU in a root of tools, if there is one.
pub(super) fn locate(tools: &Path) -> Option<(PathBuf, Vec<String>)> {
    let usr = tools.join(TOOLS_ROOT).join("usr");
    let program = usr.join("sbin/criu");
    if !program.exists() {
        return None;
    }
    let libraries = fs::read_dir(usr.join("lib"))
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))?;
    let loader = fs::read_dir(&libraries)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ld-linux") && name.contains(".so.")
        })?;
    let words = ["--library-path".into(), libraries, program];
    let words = words.map(|path: PathBuf| path.to_string_lossy().into_owned());
    Some((loader, words.to_vec()))
}

/// Finds CRIU where servers of the data directory above `tools` find it, or makes it there
/// from the packages of `mirror` (Debian's own without one). Blocks for the download, some
/// 15 MB; other processes that want the same wait for this one. `progress` is told what
/// happens, several times a second, and may break it off. Killed, it leaves only a draft that
/// the next attempt removes.
///
/// # Errors
/// [`PrepareError`], with a remedy where there is one.
pub fn prepare_tools(
    tools: &Path,
    mirror: Option<&str>,
    mut progress: impl FnMut(Preparing<'_>) -> ControlFlow<()>,
) -> Result<CheckpointSupport, PrepareError> {
    if let Ok(found) = Criu::find(tools) {
        return Ok(found.support());
    }
    let mirror = mirror.unwrap_or(MIRROR);
    let failed = |source| PrepareError::Files {
        dir: tools.to_owned(),
        source,
    };
    let mut directory = DirBuilder::new();
    directory.recursive(true).mode(0o755);
    directory.create(tools).map_err(failed)?;
    let lock = acquire(tools, &mut progress)?;
    // Somebody else may have made it meanwhile.
    if let Ok(found) = Criu::find(tools) {
        return Ok(found.support());
    }
    sweep(tools).map_err(failed)?;
    if progress(Preparing::Started).is_break() {
        return Err(PrepareError::GivenUp);
    }
    let draft = tools.join(format!("{DRAFT}{}", std::process::id()));
    let made = make(&draft, mirror, lock, &mut progress).and_then(|()| {
        let root = tools.join(TOOLS_ROOT);
        // One that is there is too old, or torn.
        match fs::remove_dir_all(&root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::rename(&draft, root).map_err(failed)
    });
    if made.is_err() {
        // The first failure is the one to tell.
        let _removed = fs::remove_dir_all(&draft);
    }
    made?;
    let found = Criu::find(tools).map_err(|_| PrepareError::Useless)?;
    Ok(found.support())
}

/// Waits until no other process makes the tools. The lock is held by the returned file.
fn acquire(
    tools: &Path,
    progress: &mut impl FnMut(Preparing<'_>) -> ControlFlow<()>,
) -> Result<File, PrepareError> {
    let failed = |source| PrepareError::Files {
        dir: tools.to_owned(),
        source,
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let lock = options.open(tools.join(LOCK)).map_err(failed)?;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
        if progress(Preparing::Waiting).is_break() {
            return Err(PrepareError::GivenUp);
        }
        thread::sleep(LOOK);
    }
}

/// Removes what makers that were killed left.
fn sweep(tools: &Path) -> io::Result<()> {
    for entry in fs::read_dir(tools)? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(DRAFT.as_bytes())
        {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Unpacks the packages into `draft`.
fn make(
    draft: &Path,
    mirror: &str,
    lock: File,
    progress: &mut impl FnMut(Preparing<'_>) -> ControlFlow<()>,
) -> Result<(), PrepareError> {
    let failed = |source| PrepareError::Files {
        dir: draft.parent().unwrap_or(draft).to_owned(),
        source,
    };
    let spawned = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=extract", "--include=criu,libc6"])
        // A mirror that stands still is as good.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(SUITE)
        .args([draft.as_os_str(), mirror.as_ref()])
        .env("LC_ALL", "C.UTF-8")
        // While it runs nobody else starts, even if this process is killed.
        .stdin(Stdio::from(lock))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => PrepareError::NotInstalled,
        _ => failed(error),
    })?;
    let output = match child.stderr.take() {
        Some(stderr) => follow(stderr, progress),
        None => Ok((String::new(), ControlFlow::Continue(()))),
    };
    if !matches!(output, Ok((_, ControlFlow::Continue(())))) {
        end(&mut child);
    }
    let status = child.wait().map_err(failed)?;
    match output.map_err(failed)? {
        (_, ControlFlow::Break(())) => Err(PrepareError::GivenUp),
        _ if status.success() => Ok(()),
        (text, ControlFlow::Continue(())) => {
            let errors = text.lines().filter(|line| line.starts_with("E:"));
            let errors: Vec<_> = errors.map(|line| line[2..].trim()).collect();
            let output = if errors.is_empty() {
                format!("mmdebstrap ended with {status}")
            } else {
                errors.join(" | ")
            };
            let mirror = mirror.to_owned();
            Err(PrepareError::Failed { mirror, output })
        }
    }
}

/// Reads what the program says to its end, and gives the last of it.
fn follow(
    mut stderr: ChildStderr,
    progress: &mut impl FnMut(Preparing<'_>) -> ControlFlow<()>,
) -> io::Result<(String, ControlFlow<()>)> {
    let mut text = String::new();
    let mut told = 0;
    let mut buffer = [0; 4096];
    let pause = Timespec::try_from(LOOK).map_err(io::Error::other)?;
    loop {
        let mut fds = [PollFd::from_borrowed_fd(stderr.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&pause)) {
            Ok(0) | Err(Errno::INTR) => {
                if progress(Preparing::Waiting).is_break() {
                    return Ok((text, ControlFlow::Break(())));
                }
                continue;
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let length = stderr.read(&mut buffer)?;
        if length == 0 {
            return Ok((text, ControlFlow::Continue(())));
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        while let Some(end) = text[told..].find('\n') {
            if progress(Preparing::Line(&text[told..told + end])).is_break() {
                return Ok((text, ControlFlow::Break(())));
            }
            told += end + 1;
        }
        let surplus = text.len().saturating_sub(SHOWN);
        if let Some(start) = (surplus..=told).find(|at| *at > 0 && text.is_char_boundary(*at)) {
            text.drain(..start);
            told -= start;
        }
    }
}

/// Ends the program and what it has started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(group) = group else {
        return;
    };
    // It cleans up upon the first; what is gone already needs no signal.
    let _gone = kill_process_group(group, Signal::TERM);
    for _ in 0..20 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            break;
        }
        thread::sleep(LOOK);
    }
    let _gone = kill_process_group(group, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As where no CRIU is installed; skipped where the machine has one already.
    fn is_missing() -> bool {
        Criu::find(Path::new("/nonexistent")).is_err()
    }

    #[test]
    fn an_unreachable_mirror_is_named_and_leaves_nothing() {
        let tools = tempfile::tempdir().unwrap();
        let draft = tools.path().join(format!("{DRAFT}1"));
        let lock = File::create(tools.path().join(LOCK)).unwrap();
        let go_on = &mut |_: Preparing<'_>| ControlFlow::Continue(());
        let error = make(&draft, "http://127.0.0.1:1/debian", lock, go_on).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("127.0.0.1:1") && text.contains("--debian-mirror"),
            "{text}"
        );
        let _removed = fs::remove_dir_all(&draft);
        sweep(tools.path()).unwrap();
        assert_eq!(fs::read_dir(tools.path()).unwrap().count(), 1);
    }

    #[test]
    fn whoever_gives_up_is_obeyed_and_the_program_ended() {
        let tools = tempfile::tempdir().unwrap();
        let draft = tools.path().join(format!("{DRAFT}1"));
        let lock = File::create(tools.path().join(LOCK)).unwrap();
        let held = lock.try_clone().unwrap();
        flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        drop(held);
        let give_up = &mut |_: Preparing<'_>| ControlFlow::Break(());
        let error = make(&draft, "http://127.0.0.1:1/debian", lock, give_up).unwrap_err();
        assert!(matches!(
            error,
            PrepareError::GivenUp | PrepareError::Failed { .. }
        ));
        // Nobody holds the lock any more.
        let again = File::open(tools.path().join(LOCK)).unwrap();
        flock(&again, FlockOperation::NonBlockingLockExclusive).unwrap();
    }

    #[test]
    fn makers_take_turns() {
        let tools = tempfile::tempdir().unwrap();
        let go_on = &mut |_: Preparing<'_>| ControlFlow::Continue(());
        let first = acquire(tools.path(), go_on).unwrap();
        let mut looks = 0;
        let count = &mut |_: Preparing<'_>| {
            looks += 1;
            ControlFlow::Break(())
        };
        let second = acquire(tools.path(), count);
        assert!(matches!(second, Err(PrepareError::GivenUp)));
        assert_eq!(looks, 1);
        drop(first);
        acquire(tools.path(), go_on).unwrap();
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        if is_missing() {
            return;
        }
        let tools = tempfile::tempdir().unwrap();
        let never = |_: Preparing<'_>| unreachable!("nothing is to be made");
        prepare_tools(tools.path(), None, never).unwrap();
        assert_eq!(fs::read_dir(tools.path()).unwrap().count(), 0);
    }
}
