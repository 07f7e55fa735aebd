//! Memory of sandboxes, captured and restored by CRIU, an external program.
//!
//! ```text
//! capture   frozen tree ── criu dump (leaves it frozen) ──► images beside the captured disk
//! restore   shim, disk, layers as for a boot; then in the slot's groups and a mount namespace
//!           of its own: criu restore ── network namespace made ──► the shim's link moves there,
//!           is set up ──► processes run on; the shim goes away
//! ```
//!
//! The images name host ids, since CRIU sees a sandbox from outside: they are rewritten for
//! the range of the slot that a restore gets.

pub(super) mod carrier;
mod dump;
mod images;
mod prepare;
pub(super) mod probes;
mod restore;
mod sockets;
mod volumes;
mod watches;

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::CheckpointSupport;

pub(crate) use dump::{Source, dump};
pub use prepare::{PrepareError, Preparing, TOOLS_ROOT, prepare_tools};
pub(crate) use restore::{Seat, restore};

/// Earlier versions fail on kernels of today as soon as a sandbox has a socket.
const OLDEST: (u32, u32) = (4, 2);
/// Tools that all servers of the host may use.
pub const SHARED_TOOLS: &str = "/var/cache/warren/tools";
/// Directory of an instance's own tools, in its data directory.
pub const TOOLS: &str = "tools";
/// What tells why it can't be had, with the remedy.
const MISSING: &str = "CRIU 4.2 or later is not installed; `warren doctor --fix` prepares it";
/// Directory of captured memory in a capture.
pub(crate) const MEMORY: &str = "memory";
/// Copy of the agent that ran, in a capture.
pub(crate) const AGENT: &str = "agent";
/// Name of the image of open files.
const FILES: &str = "files.img";
/// Name that the shared device tree goes by in images.
const DEVICES: &str = "dev";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whether the program is at hand.
#[derive(Debug, Default)]
pub(crate) enum Hold {
    /// Not found when last looked for.
    #[default]
    Missing,
    /// Being made.
    Preparing,
    /// It could not be made, for this reason.
    Failed(String),
    /// Found.
    Ready(Criu),
}

impl Hold {
    /// The program, or why it can't be had yet.
    pub(crate) fn get(&mut self, tools: &Path) -> Result<Criu, String> {
        if let Self::Ready(criu) = self {
            return Ok(criu.clone());
        }
        match (Criu::find(tools), &*self) {
            (Ok(criu), _) => {
                *self = Self::Ready(criu.clone());
                Ok(criu)
            }
            (Err(_), Self::Preparing) => {
                Err("CRIU is being prepared, which takes about a minute".to_owned())
            }
            (Err(missing), Self::Failed(why)) => Err(format!(
                "{missing}; preparing it when the server started failed: {why}"
            )),
            (Err(missing), _) => Err(missing),
        }
    }
}

/// What must be known of captured memory to restore it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CapturedMemory {
    /// First host id of the source's range.
    first_id: u32,
    /// Names in the images of what is handed over by descriptor.
    agent: String,
    log: String,
    /// Places of the volumes, which are no part of it.
    #[serde(default)]
    volumes: Vec<String>,
    /// The first process as the sandbox sees it is always 1; this many are restored with it.
    processes: usize,
}

/// The program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Criu {
    version: String,
    program: PathBuf,
    /// What comes before its own arguments: it may need the loader of its own root.
    prefix: Vec<String>,
}

impl Criu {
    /// Looks on the search path, then among the tools of an instance, then of the host.
    pub(crate) fn find(tools: &Path) -> Result<Self, String> {
        let private = [tools, Path::new(SHARED_TOOLS)];
        let private = private.into_iter().filter_map(prepare::locate);
        std::iter::once(("criu".into(), Vec::new()))
            .chain(private)
            .find_map(|(program, prefix)| Self::probe(program, prefix))
            .ok_or_else(|| MISSING.to_owned())
    }

    /// What a check of the machine tells of the memory of paused sandboxes, snapshots and
    /// forks: it is optional.
    pub(crate) fn describe(tools: &Path) -> String {
        match Self::find(tools) {
            Ok(found) => format!(
                "kept on the disk too, by CRIU {} at {}",
                found.version,
                found.support().path.display()
            ),
            Err(missing) => format!("kept in memory only, files on the disk: {missing}"),
        }
    }

    fn probe(program: PathBuf, prefix: Vec<String>) -> Option<Self> {
        let mut found = Self {
            version: String::new(),
            program,
            prefix,
        };
        let output = found.command().arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text
            .lines()
            .find_map(|line| line.strip_prefix("Version:"))?;
        found.version = version.trim().to_owned();
        is_new_enough(&found.version).then_some(found)
    }

    pub(crate) fn support(&self) -> CheckpointSupport {
        CheckpointSupport {
            version: self.version.clone(),
            path: match self.prefix.last() {
                Some(program) => program.into(),
                None => self.program.clone(),
            },
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.prefix)
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Program and arguments, for a process that becomes it.
    fn words(&self) -> Vec<String> {
        let program = self.program.to_string_lossy().into_owned();
        [vec![program], self.prefix.clone()].concat()
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        _ => false,
    }
}

/// The first failure in a log, in words for whoever owns the sandbox.
fn reason(log: &Path) -> io::Result<String> {
    let text = std::fs::read(log)?;
    let text = String::from_utf8_lossy(&text);
    // The limit of its own descriptors can't be raised everywhere, and need not be.
    let failures: Vec<_> = text
        .lines()
        .filter(|line| line.contains("Error (") && !line.contains("RLIMIT_NOFILE"))
        .collect();
    for (mark, meaning) in KNOWN {
        if failures.iter().any(|line| line.contains(mark)) {
            return Ok((*meaning).to_owned());
        }
    }
    let first = failures.first().copied().unwrap_or("criu gave no reason");
    let shown = first.split_once("): ").map_or(first, |(_, rest)| rest);
    Ok(format!("criu: {}", shown.trim()))
}

/// Marks of failures in a log and what they mean.
const KNOWN: &[(&str, &str)] = &[
    (
        "Can't dump that handle",
        "a process watches a file that has no path any more",
    ),
    (
        "Can't dump ghost file",
        "a deleted file that is still open is too large",
    ),
    ("io_uring", "a process uses io_uring"),
    (
        "External socket is used",
        "a local socket leads out of the sandbox",
    ),
    ("No space left", "the disk is full"),
    (
        "Timeout reached",
        "its processes could not be stopped in time",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_from_4_2_on_will_do() {
        for good in ["4.2", "4.2.1", "4.10", "5.0"] {
            assert!(is_new_enough(good), "{good}");
        }
        for bad in ["3.17.1", "4.1.1", "", "new"] {
            assert!(!is_new_enough(bad), "{bad}");
        }
    }

    #[test]
    fn the_reason_is_the_first_failure_that_matters() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = "(00.1) Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self\n\
                    (00.2) Warn (criu/x.c:2): nothing\n\
                    (00.3) Error (criu/a.c:3): Can't lookup mount=24\n\
                    (00.4) Error (criu/b.c:4): Dumping FAILED.\n";
        std::fs::write(&log, text).unwrap();
        assert_eq!(reason(&log).unwrap(), "criu: Can't lookup mount=24");
        let text = format!("{text}(00.5) Error (criu/f.c:5): fsnotify: Can't dump that handle\n");
        std::fs::write(&log, text).unwrap();
        assert!(reason(&log).unwrap().contains("watches a file"));
    }
}
