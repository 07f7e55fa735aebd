//! What this machine must have, and how it gets it.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::{command, run, say, succeeds};

/// A Debian package that something needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needed {
    package: &'static str,
    found_by: FoundBy,
}

#[derive(Debug, Clone, Copy)]
enum FoundBy {
    /// A program on the search path or among the system programs.
    Program(&'static str),
    /// A file.
    File(&'static str),
    /// A module of the Python on the search path.
    PythonModule(&'static str),
}

const fn program(package: &'static str, name: &'static str) -> Needed {
    Needed {
        package,
        found_by: FoundBy::Program(name),
    }
}

/// What building and running the server needs beside Rust.
pub(crate) const SERVER: &[Needed] = &[
    program("gcc", "cc"),
    Needed {
        package: "libc6-dev",
        found_by: FoundBy::File("/usr/include/stdio.h"),
    },
    program("mmdebstrap", "mmdebstrap"),
    Needed {
        package: "debian-archive-keyring",
        found_by: FoundBy::File("/usr/share/keyrings/debian-archive-keyring.gpg"),
    },
    program("nftables", "nft"),
    program("e2fsprogs", "mkfs.ext4"),
    program("xfsprogs", "mkfs.xfs"),
];

/// What a static release build needs: SQLite and zstd are compiled for musl.
pub(crate) const PACKAGING: &[Needed] = &[program("musl-tools", "musl-gcc")];

/// What the end-to-end suites need besides.
pub(crate) const SUITES: &[Needed] = &[
    program("python3", "python3"),
    Needed {
        package: "python3-venv",
        found_by: FoundBy::PythonModule("ensurepip"),
    },
    program("nodejs", "node"),
    program("npm", "npm"),
    program("curl", "curl"),
    program("openssl", "openssl"),
    program("pebble", "pebble"),
    program("openssh-client", "ssh"),
    program("rsync", "rsync"),
    program("chromium", "chromium"),
];

const DIRECTORIES: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Whether a program is on the search path, or where administrators' programs are.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(DIRECTORIES.iter().map(Into::into))
        .any(|dir| dir.join(name).is_file())
}

fn is_missing(needed: &Needed) -> bool {
    match needed.found_by {
        FoundBy::Program(name) => {
            // Such as WARREN_CHROMIUM, which names another one.
            let given = format!("WARREN_{}", name.to_uppercase());
            std::env::var_os(given).is_none() && !has_program(name)
        }
        FoundBy::File(path) => !Path::new(path).exists(),
        FoundBy::PythonModule(name) => {
            !succeeds(command("python3", ["-c", &format!("import {name}")]))
        }
    }
}

/// Installs what is missing, and touches nothing if nothing is.
pub(crate) fn install(needed: &[&[Needed]]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .flat_map(|list| list.iter())
        .filter(|needed| is_missing(needed))
        .map(|needed| needed.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !has_program("apt-get") {
        bail!(
            "this machine lacks what these Debian packages hold: {}\nhint: apt-get is not here; install them in this system's own way and run again",
            missing.join(" ")
        );
    }
    say(&format!("installing {}", missing.join(" ")));
    run(command("apt-get", ["update", "--quiet"]))?;
    let mut install = command(
        "apt-get",
        ["install", "--yes", "--quiet", "--no-install-recommends"],
    );
    install
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive");
    run(install).context(
        "a package that this system doesn't have has to be installed in its own way; for Chromium, which is a snap on Ubuntu, name a browser in WARREN_CHROMIUM",
    )
}

/// Tries to get the target that the agent is best built for. Without it the agent is linked
/// with the GNU library, which serves too.
pub(crate) fn add_musl_target() {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let installed = crate::run::output(command(
        "rustc",
        ["--print", "target-libdir", "--target", &target],
    ))
    .ok()
    .and_then(|path| String::from_utf8(path).ok())
    .is_some_and(|path| Path::new(path.trim()).is_dir());
    if !installed && !succeeds(command("rustup", ["target", "add", &target])) {
        say(&format!(
            "{target} can't be installed; the agent will be linked with the GNU library"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_apart() {
        assert!(has_program("sh"));
        assert!(!has_program("no-such-program-anywhere"));
        assert!(is_missing(&program("x", "no-such-program-anywhere")));
        assert!(!is_missing(&Needed {
            package: "base-files",
            found_by: FoundBy::File("/etc/os-release"),
        }));
    }
}
