//! Checks of the machine, each with its fix.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use warren_sys::mount::{self, Attr, Param};

use super::cgroup::Cgroups;
use super::criu::{Criu, TOOLS};
use super::rootfs::takes_detached_layers;

/// The result of one check.
#[derive(Debug, Clone)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do if it is not; one line.
    pub fix: &'static str,
}

fn check(name: &'static str, fix: &'static str, found: io::Result<String>) -> Check {
    let (ok, detail) = match found {
        Ok(detail) => (true, detail),
        Err(error) => (false, error.to_string()),
    };
    Check {
        name,
        ok,
        detail,
        fix,
    }
}

fn wrong<T>(text: impl Into<String>) -> io::Result<T> {
    Err(io::Error::other(text.into()))
}

/// First kernel on which overlayfs takes id-mapped layers, on which all of this rests.
const OLDEST_KERNEL: (u32, u32) = (5, 19);

fn kernel() -> io::Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_owned();
    match version(&release) {
        Some(version) if version >= OLDEST_KERNEL => Ok(release),
        _ => wrong(format!(
            "{release} is older than {}.{}",
            OLDEST_KERNEL.0, OLDEST_KERNEL.1
        )),
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release
        .split(['.', '-'])
        .map_while(|part| part.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn root() -> io::Result<String> {
    if rustix::process::geteuid().is_root() {
        Ok("running as root".to_owned())
    } else {
        wrong("not running as root")
    }
}

fn user_namespaces() -> io::Result<String> {
    let text = fs::read_to_string("/proc/sys/user/max_user_namespaces")?;
    match text.trim().parse::<u64>() {
        Ok(0) => wrong("the limit is 0"),
        Ok(limit) => Ok(format!("up to {limit}")),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn mounts() -> io::Result<String> {
    let mount = mount::create("tmpfs", &[Param::Text("size", "4k")], Attr::empty())?;
    let own = fs::File::open("/proc/self/ns/user")?;
    // The namespace of the host itself is refused as a map: the call is known, and that
    // answer tells it apart from a kernel without the call.
    match mount::idmap(mount, own_fd(&own)) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ) =>
        {
            Ok("mounts by descriptor and id maps are known".to_owned())
        }
        Err(error) => Err(error),
        Ok(()) => wrong("the host's own id map was taken"),
    }
}

fn own_fd(file: &fs::File) -> std::os::fd::BorrowedFd<'_> {
    std::os::fd::AsFd::as_fd(file)
}

fn file_system(name: &'static str) -> io::Result<String> {
    let known = fs::read_to_string("/proc/filesystems")?;
    if known.split_whitespace().any(|word| word == name) {
        Ok("known to the kernel".to_owned())
    } else {
        wrong(format!("{name} is not among the kernel's file systems"))
    }
}

fn overlay() -> io::Result<String> {
    let known = file_system("overlay")?;
    Ok(match takes_detached_layers() {
        Ok(()) => format!("{known}; layers are joined by descriptor"),
        Err(_) => format!("{known}; layers are joined by path, as before Linux 6.15"),
    })
}

fn cgroups() -> io::Result<String> {
    Cgroups::available().map_err(io::Error::other)
}

fn exists(path: &str) -> io::Result<String> {
    fs::symlink_metadata(path).map(|_| path.to_owned())
}

fn program(name: &str) -> io::Result<String> {
    let mut command = Command::new(name);
    command
        .arg("-V")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match command.status() {
        Ok(_) => Ok("installed".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => wrong("not installed"),
        Err(error) => Err(error),
    }
}

fn firewall() -> io::Result<String> {
    program("nft")?;
    let output = Command::new("nft")
        .args(["list", "tables"])
        .stdin(Stdio::null())
        .output()?;
    if output.status.success() {
        Ok("nft reads the kernel's tables".to_owned())
    } else {
        let text = String::from_utf8_lossy(&output.stderr);
        wrong(text.lines().next().unwrap_or("nft failed").to_owned())
    }
}

/// Checks one by one what the namespace runtime needs, and tells what it can keep of
/// sandboxes. `data_dir` is where a server would keep its data; it need not exist.
#[must_use]
pub fn probe(data_dir: &Path) -> Vec<Check> {
    vec![
        check("privilege", "run warren as root: sudo warren up", root()),
        check("kernel", "install a kernel of 5.19 or later", kernel()),
        check(
            "user namespaces",
            "sysctl -w user.max_user_namespaces=65536",
            user_namespaces(),
        ),
        check(
            "mounts",
            "run outside a container, or with CAP_SYS_ADMIN",
            mounts(),
        ),
        check("overlay", "modprobe overlay", overlay()),
        check("ext4", "modprobe ext4", file_system("ext4")),
        check("xfs", "modprobe xfs", file_system("xfs")),
        check(
            "cgroups",
            "mount cgroup2, and the memory, cpu and pids controllers in it or as cgroup v1",
            cgroups(),
        ),
        check("loop devices", "modprobe loop", exists("/dev/loop-control")),
        check(
            "seccomp",
            "use a kernel with CONFIG_SECCOMP_FILTER",
            exists("/proc/sys/kernel/seccomp"),
        ),
        check(
            "nftables",
            "apt-get install nftables; modprobe nf_tables",
            firewall(),
        ),
        check(
            "ip forwarding",
            "make /proc/sys/net/ipv4/ip_forward writable",
            exists("/proc/sys/net/ipv4/ip_forward"),
        ),
        check(
            "mkfs.ext4",
            "apt-get install e2fsprogs",
            program("mkfs.ext4"),
        ),
        check(
            "memory of paused",
            "warren doctor --fix",
            Ok(Criu::describe(&data_dir.join(TOOLS))),
        ),
        check("mkfs.xfs", "apt-get install xfsprogs", program("mkfs.xfs")),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version("6.18.44-fc").unwrap() > version("6.9").unwrap());
        assert_eq!(version("six"), None);
    }

    #[test]
    fn each_check_has_a_fix_of_one_line() {
        for check in probe(Path::new("/nonexistent")) {
            assert!(
                !check.fix.is_empty() && !check.fix.contains('\n'),
                "{}",
                check.name
            );
        }
    }
}
