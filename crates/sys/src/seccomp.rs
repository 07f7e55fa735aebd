//! A system call filter: a short list of what a sandbox may not ask of the kernel. Everything
//! else is left to namespaces, ids and capabilities.

#![expect(unsafe_code, reason = "loading a filter has no safe wrapper")]

use std::io;

/// The architecture whose numbers the list holds (`AUDIT_ARCH_X86_64`).
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
/// Numbers from here on are the x32 ABI's names of the same calls.
const X32: u32 = 0x4000_0000;

const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_FIRST_ARGUMENT: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER_EQUAL: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

/// Calls that answer "operation not permitted".
const DENIED: &[libc::c_long] = &[
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    // Kernel programs, modules and images.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    // The machine as a whole.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    // Interfaces with a history of holes that sandboxes do without.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_kcmp,
    libc::SYS_lookup_dcookie,
    // mount_setattr's relatives that this libc crate may not name yet.
    OPEN_TREE_ATTR,
];
const OPEN_TREE_ATTR: libc::c_long = 467;

/// Calls of the 32-bit personality do not exist inside; neither do these. libc falls back to
/// an older call that a filter can read the flags of.
const ABSENT: &[libc::c_long] = &[libc::SYS_clone3];

/// Flags of clone(2) that make namespaces.
const CLONE_NAMESPACES: u32 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP)
    .cast_unsigned();

/// A program for the kernel's filter machine.
#[derive(Debug, Clone)]
pub struct Filter(Vec<libc::sock_filter>);

fn op(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn errno(number: i32) -> u32 {
    ERRNO | number.cast_unsigned()
}

impl Filter {
    /// The filter of every sandbox.
    #[must_use]
    pub fn sandbox() -> Self {
        let mut program = vec![
            op(LOAD, DATA_ARCH, 0, 0),
            op(JUMP_EQUAL, ARCH, 1, 0),
            op(RETURN, KILL_PROCESS, 0, 0),
            op(LOAD, DATA_NUMBER, 0, 0),
            op(JUMP_GREATER_EQUAL, X32, 0, 1),
            op(RETURN, errno(libc::ENOSYS), 0, 0),
        ];
        let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
        for (calls, answer) in [(DENIED, libc::EPERM), (ABSENT, libc::ENOSYS)] {
            for call in calls {
                program.push(op(JUMP_EQUAL, number(*call), 0, 1));
                program.push(op(RETURN, errno(answer), 0, 0));
            }
        }
        program.extend([
            op(JUMP_EQUAL, number(libc::SYS_clone), 0, 3),
            // The flags of clone are its first argument; these bits are in its low half.
            op(LOAD, DATA_FIRST_ARGUMENT, 0, 0),
            op(JUMP_ANY_BIT, CLONE_NAMESPACES, 0, 1),
            op(RETURN, errno(libc::EPERM), 0, 0),
            op(RETURN, ALLOW, 0, 0),
        ]);
        Self(program)
    }

    /// Puts the filter on the calling thread and all that it starts. Needs `CAP_SYS_ADMIN`
    /// in its user namespace: `no_new_privs` is not set, because sudo must work.
    ///
    /// # Errors
    /// As seccomp(2).
    pub fn load(&self) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(self.0.len()).map_err(io::Error::other)?,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points to as many instructions as it says, which outlive the
        // call; the kernel copies and checks them and writes nothing.
        let result = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
