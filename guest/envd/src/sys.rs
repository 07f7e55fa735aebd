//! The few kernel calls that have no safe form: `fork`, `execve`, and descriptors that were
//! inherited by number.
//!
//! Between `fork` and `execve` the child may only make async-signal-safe calls: it must not
//! allocate, lock or unwind. Everything it needs is prepared in [`Plan`] before the fork;
//! `rustix` calls used there are bare system calls on borrowed data.
#![expect(
    unsafe_code,
    reason = "fork, execve and inherited descriptors have no safe interface"
)]

use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::fs::{Access, Mode, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::pipe::PipeFlags;
use rustix::process::Pid;
use rustix::thread::{Gid, Uid};
use tokio::io::unix::AsyncFd;

/// `ioprio_set`: the calling process.
const IOPRIO_WHO_PROCESS: libc::c_int = 1;
/// Class 2, best effort, level 4.
const IOPRIO_BEST_EFFORT_4: libc::c_int = (2 << 13) | 4;
/// Highest signal number.
const LAST_SIGNAL: u8 = 64;
/// Length of the kernel's signal sets in bytes.
const SIGNAL_SET_LEN: usize = 8;
/// How attractive children are to the out-of-memory killer.
const OOM_SCORE_ADJ: &[u8] = b"100";
/// Exit code of a command that does not exist.
const EXIT_NOT_FOUND: libc::c_int = 127;
/// Exit code of a command that can't be executed.
const EXIT_NOT_EXECUTABLE: libc::c_int = 126;

/// What a child does before it becomes the command.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Executables to try, in order.
    pub candidates: Vec<CString>,
    /// Arguments, starting with the command's name.
    pub argv: Vec<CString>,
    /// Environment as `NAME=value`.
    pub envp: Vec<CString>,
    /// Directory to enter with the user's rights.
    pub cwd: CString,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
    /// Standard input, output and error; each above 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Whether standard input becomes the controlling terminal of a new session.
    pub terminal: bool,
    /// Written to standard error when no candidate exists.
    pub not_found: Vec<u8>,
    /// Written to standard error when a candidate can't be executed.
    pub not_executable: Vec<u8>,
}

/// Length of the report that a failing child writes to its pipe.
pub(crate) const REPORT_LEN: usize = 4;

/// Reads a failing child's report.
#[must_use]
pub(crate) fn parse_report(report: [u8; REPORT_LEN]) -> io::Error {
    io::Error::from_raw_os_error(i32::from_ne_bytes(report))
}

/// Forks a child that follows `plan`. The returned pipe reaches its end when the command
/// runs; before that it delivers a report if a step failed.
///
/// # Errors
/// No pipe or no process could be made.
pub(crate) fn fork_exec(plan: &Plan<'_>) -> io::Result<(Pid, OwnedFd)> {
    let (report_rx, report_tx) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    let argv = pointers(&plan.argv);
    let envp = pointers(&plan.envp);
    // For scripts without an interpreter line: sh, the script, the arguments.
    let shell = c"/bin/sh";
    let mut shell_argv = vec![shell.as_ptr(), ptr::null()];
    shell_argv.extend(argv.iter().skip(1));
    let groups: Vec<Gid> = plan.groups.iter().map(|id| Gid::from_raw(*id)).collect();

    let all = full_signal_set();
    let before = swap_signal_mask(&all);
    // SAFETY: the child only runs `child`, which makes async-signal-safe calls on data that
    // was prepared above and ends in `execve` or `_exit`, so no lock, allocator state or
    // destructor of this process is used in it.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let errno = child(plan, &groups, argv.as_ptr(), envp.as_ptr(), &mut shell_argv);
        let _ = rustix::io::write(&report_tx, &errno.raw_os_error().to_ne_bytes());
        exit_now(1);
    }
    let fork_error = io::Error::last_os_error();
    swap_signal_mask(&before);
    if pid < 0 {
        return Err(fork_error);
    }
    let pid = Pid::from_raw(pid).ok_or(fork_error)?;
    Ok((pid, report_rx))
}

/// Runs in the child. Returns only if it can't get as far as the command.
fn child(
    plan: &Plan<'_>,
    groups: &[Gid],
    argv: *const *const c_char,
    envp: *const *const c_char,
    shell_argv: &mut [*const c_char],
) -> Errno {
    reset_signals();
    if let Err(errno) = streams_and_session(plan) {
        return errno;
    }
    lower_priority();
    if let Err(errno) = credentials(plan, groups) {
        return errno;
    }
    if let Err(errno) = rustix::process::chdir(plan.cwd.as_c_str()) {
        return errno;
    }
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    swap_signal_mask(&empty_signal_set());

    let mut denied = false;
    for candidate in &plan.candidates {
        match execve(candidate, argv, envp) {
            Errno::NOENT | Errno::NOTDIR => {}
            Errno::NOEXEC => {
                shell_argv[1] = candidate.as_ptr();
                execve(c"/bin/sh", shell_argv.as_ptr(), envp);
                denied = true;
            }
            // The system has no room for it: no fault of the command.
            errno @ (Errno::TOOBIG | Errno::NOMEM | Errno::AGAIN | Errno::MFILE | Errno::NFILE) => {
                return errno;
            }
            // A directory of the search path that can't be searched hides no command.
            _ => denied |= rustix::fs::access(candidate, Access::EXISTS).is_ok(),
        }
    }
    let (text, code) = if denied {
        (&plan.not_executable, EXIT_NOT_EXECUTABLE)
    } else {
        (&plan.not_found, EXIT_NOT_FOUND)
    };
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
    exit_now(code)
}

fn streams_and_session(plan: &Plan<'_>) -> Result<(), Errno> {
    if plan.terminal {
        rustix::process::setsid()?;
    } else {
        rustix::process::setpgid(None, None)?;
    }
    let [stdin, stdout, stderr] = plan.stdio;
    rustix::stdio::dup2_stdin(stdin)?;
    rustix::stdio::dup2_stdout(stdout)?;
    rustix::stdio::dup2_stderr(stderr)?;
    if plan.terminal {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    Ok(())
}

/// Best effort: a guest without `/proc` or I/O scheduling still runs commands.
fn lower_priority() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(fd) = rustix::fs::open(c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&fd, OOM_SCORE_ADJ);
    }
    let _ = rustix::process::setpriority_process(None, 0);
    // SAFETY: takes three integers and touches no memory of ours.
    unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            0,
            IOPRIO_BEST_EFFORT_4,
        )
    };
}

/// The child has one thread, so per-thread credentials are those of the process. Leaving
/// user 0 makes the kernel clear all permitted, effective and ambient capabilities.
fn credentials(plan: &Plan<'_>, groups: &[Gid]) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(plan.uid), Gid::from_raw(plan.gid));
    rustix::thread::set_thread_groups(groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Restores all default actions by system call: C libraries refuse to touch the signals that
/// they reserve, and those may have been ignored by whoever started us.
fn reset_signals() {
    // The kernel's `sigaction`: handler, flags, restorer and mask, all zero for the default.
    let default = [0_u64; 4];
    for signal in 1..=libc::c_int::from(LAST_SIGNAL) {
        // SAFETY: reads a structure of the kernel's size and layout and writes nothing;
        // numbers that can't be changed are refused without effect.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                SIGNAL_SET_LEN,
            )
        };
    }
}

fn execve(path: &CStr, argv: *const *const c_char, envp: *const *const c_char) -> Errno {
    // SAFETY: `path` is a C string, both arrays are null-terminated arrays of C strings that
    // `fork_exec` keeps alive in the parent's frame, which the child has a copy of.
    unsafe { libc::execve(path.as_ptr(), argv, envp) };
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}

fn exit_now(code: libc::c_int) -> ! {
    // SAFETY: ends the child without destructors or exit handlers of the parent's state.
    unsafe { libc::_exit(code) }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    let mut list: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
    list.push(ptr::null());
    list
}

fn empty_signal_set() -> libc::sigset_t {
    // SAFETY: a signal set is plain bits, for which all zeros is a value.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: writes to the set that we own.
    unsafe { libc::sigemptyset(&raw mut set) };
    set
}

fn full_signal_set() -> libc::sigset_t {
    let mut set = empty_signal_set();
    // SAFETY: writes to the set that we own.
    unsafe { libc::sigfillset(&raw mut set) };
    set
}

fn swap_signal_mask(mask: &libc::sigset_t) -> libc::sigset_t {
    let mut before = empty_signal_set();
    // SAFETY: reads one set and writes the other, both valid for the call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, &raw mut before) };
    before
}

/// Makes this process survive hang-ups; broken pipes are ignored by the runtime already.
pub(crate) fn ignore_hangup() {
    // SAFETY: installs the ignore action; no handler code is involved.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}

/// Registers a descriptor with the runtime.
///
/// # Errors
/// It can't be polled.
pub(crate) fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` returns the same open descriptor for as long as it lives, and it
    // lives inside the registration.
    unsafe { AsyncFd::register(fd) }.map_err(io::Error::from)
}

/// Kills every process that this one may signal, except itself and process 1. Only for
/// process 1 of its pid namespace, where that is the namespace.
pub(crate) fn kill_everyone() {
    // SAFETY: sends a signal; no memory is involved.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Hides every descriptor above the standard streams from children, whoever opened it.
pub(crate) fn hide_descriptors() {
    // SAFETY: changes flags only, no descriptor is closed; a kernel without the call refuses.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Takes over a descriptor that the parent process left open for us, by its number, and
/// hides it from children.
///
/// # Errors
/// The number is 0, 1 or 2, or not open.
pub(crate) fn inherited_fd(number: RawFd) -> io::Result<OwnedFd> {
    if number <= 2 {
        return Err(io::Error::from(Errno::BADF));
    }
    // SAFETY: the borrow lasts for the next call only, which fails if it is not open.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC)?;
    // SAFETY: the call above proved that it is open; it was named on the command line to be
    // ours, and `main` takes each number once before anything else opens descriptors.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
