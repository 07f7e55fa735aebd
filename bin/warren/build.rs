//! Builds the programs that run inside sandboxes as static ones, to be embedded in this
//! binary: one file is the whole distribution, and every sandbox gets those of its server.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the programs are built from; anything else does not rebuild them.
const SOURCES: [&str; 11] = [
    "guest/envd",
    "guest/interpreter/Cargo.toml",
    "guest/interpreter/src",
    "guest/sftp-server/Cargo.toml",
    "guest/sftp-server/src",
    "guest/mcp-gateway",
    "crates/connect",
    "crates/service",
    "spec/envd",
    "Cargo.lock",
    "Cargo.toml",
];

/// The programs; each one's package is named after it.
const PROGRAMS: [&str; 4] = ["envd", "interpreter", "mcp-gateway", "sftp-server"];

fn main() {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let workspace = manifest_dir
        .join("../..")
        .canonicalize()
        .expect("the workspace is above");
    for source in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    let mut missing = Vec::new();
    for program in PROGRAMS {
        let given = format!("WARREN_{}", variable_name(program));
        println!("cargo::rerun-if-env-changed={given}");
        match env::var(&given) {
            Ok(path) => announce(program, Path::new(&path)),
            Err(_) => missing.push(program),
        }
    }
    if !missing.is_empty() {
        let dir = build(&workspace, &missing);
        for program in missing {
            announce(program, &dir.join(program));
        }
    }
}

/// A program's name as variables have it.
fn variable_name(program: &str) -> String {
    program.to_uppercase().replace('-', "_")
}

/// Tells the source where a program is.
fn announce(program: &str, path: &Path) {
    let name = variable_name(program);
    println!("cargo::rustc-env=WARREN_{name}_PATH={}", path.display());
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// The target to build for: musl where its standard library is installed, else the GNU one
/// linked statically, which serves as well.
fn static_target() -> (String, &'static str) {
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let musl = format!("{arch}-unknown-linux-musl");
    let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let found = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", &musl])
        .output()
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .is_some_and(|dir| Path::new(dir.trim()).is_dir());
    if found {
        (musl, "")
    } else {
        (
            format!("{arch}-unknown-linux-gnu"),
            "-C target-feature=+crt-static",
        )
    }
}

/// Builds programs and returns the directory that they are in.
fn build(workspace: &Path, programs: &[&str]) -> PathBuf {
    let (target, flags) = static_target();
    // A directory of its own, since the outer cargo holds the lock of its profile's, but the
    // same one for all profiles and targets: DIR/[TARGET/]PROFILE/build/PACKAGE/out is what
    // cargo gives.
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let mut above = out_dir.ancestors().skip(4).peekable();
    above.next_if(|dir| dir.ends_with(variable("TARGET")));
    let target_dir = above.next().expect("cargo nests its output").join("guest");
    let mut command = Command::new(variable("CARGO"));
    command.current_dir(workspace).arg("build");
    for program in programs {
        command.args(["--package", &format!("warren-{program}")]);
        command.args(["--bin", program]);
    }
    let status = command
        .args(["--profile", "guest", "--target", &target])
        .args(["--locked", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // Set by the outer cargo for clippy; the programs are built as they will run.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo can be run");
    assert!(
        status.success(),
        "building the guest's programs failed: {status}"
    );
    target_dir.join(target).join("guest")
}
