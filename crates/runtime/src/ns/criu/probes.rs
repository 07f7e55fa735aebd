//! What CRIU finds out about the kernel. It takes longer than a small restore, so CRIU keeps
//! it in `/run` — if that is a tmpfs, whose content can't outlive the kernel. Where it is not,
//! the server keeps it and puts it into a `/run` that CRIU alone sees.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{CWD, Mode, OFlags, openat, statfs};
use rustix::mount::{MountPropagationFlags, mount_change};
use warren_sys::mount::{self, Attr, Param};
use warren_sys::netns;

use super::super::HELPER_COMMAND;
use super::super::adopt;
use super::super::core::Core;
use super::super::instance::RUN_DIR as SHARED;
use super::{Criu, PATH};

/// Second argument that makes the helper's program run CRIU with what is known, or find it out.
pub(crate) const RUN: &str = "criu";
pub(crate) const LEARN: &str = "criu-learn";
/// Where CRIU keeps it.
const KEPT: &str = "/run/criu.kdat";
const RUN_DIR: &str = "/run";
const TMPFS: u64 = 0x0102_1994;
const FAILED: u8 = 3;

/// The file of what is known, if CRIU does not keep it by itself. Finds it out if need be.
/// Blocks.
pub(super) fn known(core: &Core, criu: &Criu) -> io::Result<Option<PathBuf>> {
    if statfs(RUN_DIR)?.f_type as u64 == TMPFS {
        return Ok(None);
    }
    let file = core
        .instance
        .run_dir()
        .join(format!("criu-{}-{}", criu.version, adopt::boot_id()?));
    if !file.exists() {
        let status = helper(core, LEARN)
            .arg(&file)
            .args(criu.words())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        // Without it everything is slower and nothing else.
        tracing::debug!(%status, "asked CRIU what the kernel can do");
    }
    Ok(Some(file))
}

/// CRIU, to be run with what is known.
pub(super) fn command(core: &Core, criu: &Criu) -> io::Result<Command> {
    let Some(file) = known(core, criu)? else {
        return Ok(criu.command());
    };
    let mut command = helper(core, RUN);
    command
        .arg(file)
        .args(criu.words())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(command)
}

fn helper(core: &Core, mode: &str) -> Command {
    let mut command = Command::new(&core.config.helper);
    command
        .args([HELPER_COMMAND, mode])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::null());
    command
}

/// Becomes CRIU as told by the arguments after the helper's own; returns only on failure.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let Some(([file, program], rest)) = arguments.split_first_chunk() else {
        return ExitCode::from(FAILED);
    };
    match separate().and_then(|()| cover(Path::new(file))) {
        // Whatever comes back is a failure; the server finds no log.
        Ok(()) => drop(Command::new(program).args(rest).exec()),
        Err(_) => return ExitCode::from(FAILED),
    }
    ExitCode::from(FAILED)
}

/// Finds out what is to be known and writes it to the file that the arguments name.
pub(crate) fn learn(arguments: &[String]) -> ExitCode {
    let Some(([file, program], rest)) = arguments.split_first_chunk() else {
        return ExitCode::from(FAILED);
    };
    let learnt = || -> io::Result<()> {
        separate()?;
        cover(Path::new(file))?;
        // What it complains of is of no interest here: it writes what it found.
        let _verdict = Command::new(program).args(rest).arg("check").status()?;
        let draft = format!("{file}.{}", std::process::id());
        fs::copy(KEPT, &draft)?;
        fs::rename(&draft, file)
    };
    match learnt() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// Makes mounts that nobody else sees.
fn separate() -> io::Result<()> {
    netns::enter_new_mounts()?;
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", flags)?)
}

/// Covers `/run` of this process' mounts, which must be its own, with one that holds what is
/// known and the instances' directories.
pub(super) fn cover(file: &Path) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let at = |path: &str| openat(CWD, path, flags, Mode::empty());
    let shared = mount::clone_tree(CWD, Path::new(SHARED), true)?;
    let content = fs::read(file);
    let params = [Param::Text("mode", "0755"), Param::Text("size", "1m")];
    let run = mount::create("tmpfs", &params, Attr::MOUNT_ATTR_NOSUID)?;
    mount::attach(run.as_fd(), at(RUN_DIR)?)?;
    fs::create_dir(SHARED)?;
    mount::attach(shared.as_fd(), at(SHARED)?)?;
    match content {
        Ok(content) => fs::write(KEPT, content),
        // It is found out then.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
