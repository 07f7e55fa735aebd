//! Builds the in-sandbox agent as a static program, to be embedded in this binary: one file
//! is the whole distribution, and every template gets the agent of its server.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the agent is built from; anything else does not rebuild it.
const SOURCES: [&str; 6] = [
    "guest/envd",
    "crates/connect",
    "crates/service",
    "spec/envd",
    "Cargo.lock",
    "Cargo.toml",
];

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
    println!("cargo::rerun-if-env-changed=WARREN_ENVD");
    let agent = match env::var("WARREN_ENVD") {
        Ok(path) => PathBuf::from(path),
        Err(_) => build_agent(&workspace),
    };
    println!("cargo::rustc-env=WARREN_ENVD_PATH={}", agent.display());
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

fn build_agent(workspace: &Path) -> PathBuf {
    let (target, flags) = static_target();
    // A directory of its own, since the outer cargo holds the lock of its profile's, but the
    // same one for all profiles: TARGET/PROFILE/build/PACKAGE/out is what cargo gives.
    let out_dir = PathBuf::from(variable("OUT_DIR"));
    let target_dir = out_dir
        .ancestors()
        .nth(4)
        .expect("cargo nests its output")
        .join("guest");
    let status = Command::new(variable("CARGO"))
        .current_dir(workspace)
        .args([
            "build",
            "--package",
            "warren-envd",
            "--bin",
            "envd",
            "--profile",
            "guest",
        ])
        .args(["--target", &target, "--locked", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", flags)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        // Set by the outer cargo for clippy; the agent is built as it will run.
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo can be run");
    assert!(status.success(), "building the agent failed: {status}");
    target_dir.join(target).join("guest/envd")
}
