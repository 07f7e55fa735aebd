//! What a kernel does between `fork` and `exec`.
#![expect(
    unsafe_code,
    reason = "code between fork and exec has no safe interface"
)]

use std::ffi::CString;
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal};
use rustix::thread::{Gid, Uid};
use tokio::process::Command;

/// How attractive kernels are to the out-of-memory killer: more than this server is.
const OOM_SCORE_ADJ: &[u8] = b"500";

/// Who a kernel runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All group ids.
    pub groups: Vec<u32>,
}

/// Makes `command` start in a session of its own, with default signals, in `cwd`, with
/// `credentials` if any, and die with the thread that starts it.
pub(crate) fn isolate(command: &mut Command, cwd: CString, credentials: Option<Credentials>) {
    let parent = rustix::process::getpid();
    let become_kernel = move || -> io::Result<()> {
        rustix::process::setsid()?;
        raise_oom_score();
        for signal in [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGPIPE] {
            // SAFETY: installs the default action; no handler code is involved.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        if let Some(credentials) = &credentials {
            take(credentials)?;
        }
        // After the credentials: changing them clears it.
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        rustix::process::chdir(cwd.as_c_str())?;
        Ok(())
    };
    // SAFETY: the closure makes system calls on data that was made before the fork. It takes
    // no lock and allocates nothing: this program has one thread when it forks, and the
    // credentials' list is on the stack up to its cap.
    unsafe { command.pre_exec(become_kernel) };
}

/// Best effort: a sandbox without `/proc` still runs cells.
fn raise_oom_score() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&fd, OOM_SCORE_ADJ);
    }
}

/// The child has one thread, so per-thread credentials are those of the process.
fn take(credentials: &Credentials) -> io::Result<()> {
    const MAX_GROUPS: usize = 64;
    let mut groups = [Gid::from_raw(0); MAX_GROUPS];
    let count = credentials.groups.len().min(MAX_GROUPS);
    for (slot, id) in groups.iter_mut().zip(&credentials.groups) {
        *slot = Gid::from_raw(*id);
    }
    let (uid, gid) = (
        Uid::from_raw(credentials.uid),
        Gid::from_raw(credentials.gid),
    );
    rustix::thread::set_thread_groups(&groups[..count])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Sends a signal to a whole process group. One that is gone is no error.
pub(crate) fn signal_group(leader: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(leader).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}
