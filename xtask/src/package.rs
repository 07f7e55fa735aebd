//! `cargo xtask package`: what a machine without Rust installs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::host;
use crate::run::{cargo, command, metadata, run, say, succeeds, target_dir, workspace};

/// Debian packages that the server needs on its machine.
const DEPENDS: &str = "nftables, e2fsprogs, xfsprogs, tar";
/// What it makes templates with, and clients connect with.
const RECOMMENDS: &str = "mmdebstrap, debian-archive-keyring, ca-certificates, openssh-client";

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];
const PAGES: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE", "SECURITY.md"];

/// What to package.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Directory for the results [default: package/ in the target directory].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Package this program instead of building one.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

/// Builds a static program and packs it as a tarball and as a Debian package.
pub(crate) fn package(args: &Args) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build()?,
    };
    let out = match &args.out {
        Some(out) => out.clone(),
        None => target_dir().join("package"),
    };
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let version = version()?;
    let tarball = tarball(&program, &version, &out)?;
    say(&format!("{}", tarball.display()));
    let package = debian(&program, &version, &out)?;
    say(&format!("{}", package.display()));
    Ok(())
}

/// A release build that needs nothing of the machine that it runs on: musl resolves names
/// itself, where a static GNU library would load parts of the machine's own.
fn build() -> Result<PathBuf> {
    host::install(&[host::SERVER, host::PACKAGING])?;
    host::add_musl_target();
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let build = ["build", "--release", "--locked", "--package", "warren"];
    run(cargo(build.into_iter().chain(["--target", &target])))?;
    Ok(target_dir().join(target).join("release/warren"))
}

fn version() -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        name: String,
        version: String,
    }
    let metadata: Metadata = metadata()?;
    let found = metadata.packages.into_iter().find(|p| p.name == "warren");
    Ok(found.context("no package warren")?.version)
}

/// Copies a file with this mode, making the directories above it.
fn put(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let copy = || -> std::io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::copy(from, to)?;
        fs::set_permissions(to, fs::Permissions::from_mode(mode))
    };
    copy().with_context(|| format!("copy {} to {}", from.display(), to.display()))
}

fn tarball(program: &Path, version: &str, out: &Path) -> Result<PathBuf> {
    let name = format!("warren-{version}-{}-linux", std::env::consts::ARCH);
    let scratch = tempfile::tempdir_in(out).context("make a directory")?;
    let root = scratch.path().join(&name);
    let packaging = workspace().join("packaging");
    put(program, &root.join("bin/warren"), 0o755)?;
    put(
        &packaging.join("warren.service"),
        &root.join("warren.service"),
        0o644,
    )?;
    put(
        &packaging.join("default"),
        &root.join("warren.default"),
        0o644,
    )?;
    for page in PAGES {
        put(&workspace().join(page), &root.join(page), 0o644)?;
    }
    for page in fs::read_dir(workspace().join("docs")).context("list docs")? {
        let page = page?.path();
        if let Some(file) = page.file_name().filter(|_| page.is_file()) {
            put(&page, &root.join("docs").join(file), 0o644)?;
        }
    }
    let file = out.join(format!("{name}.tar.gz"));
    let mut tar = command("tar", ["--create", "--gzip", "--owner=0", "--group=0"]);
    tar.arg("--sort=name").arg("--file").arg(&file);
    tar.arg("-C").arg(scratch.path()).arg(&name);
    run(tar)?;
    Ok(file)
}

fn debian(program: &Path, version: &str, out: &Path) -> Result<PathBuf> {
    if !succeeds(command("dpkg-deb", ["--version"])) {
        bail!("dpkg-deb is not here\nhint: make the Debian package on Debian or Ubuntu");
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => bail!("no Debian name for {other} machines"),
    };
    let scratch = tempfile::tempdir_in(out).context("make a directory")?;
    let root = scratch.path().join("warren");
    let packaging = workspace().join("packaging");
    put(program, &root.join("usr/bin/warren"), 0o755)?;
    let unit = root.join("usr/lib/systemd/system/warren.service");
    put(&packaging.join("warren.service"), &unit, 0o644)?;
    put(
        &packaging.join("default"),
        &root.join("etc/default/warren"),
        0o644,
    )?;
    let docs = root.join("usr/share/doc/warren");
    put(&workspace().join("LICENSE"), &docs.join("copyright"), 0o644)?;
    put(
        &workspace().join("CHANGELOG.md"),
        &docs.join("CHANGELOG.md"),
        0o644,
    )?;
    let control = root.join("DEBIAN");
    for script in SCRIPTS {
        let from = packaging.join("debian").join(script);
        put(&from, &control.join(script), 0o755)?;
    }
    let size = fs::metadata(program).context("look at the program")?.len();
    let text = format!(
        "Package: warren\nVersion: {version}\nArchitecture: {architecture}\n\
         Maintainer: The Warren authors <warren@localhost>\nSection: admin\nPriority: optional\n\
         Installed-Size: {}\nDepends: {DEPENDS}\nRecommends: {RECOMMENDS}\n\
         Description: self-hosted sandbox cloud for AI agents\n \
         Isolated Linux sandboxes in milliseconds, behind the API that the E2B SDKs speak.\n",
        size.div_ceil(1024)
    );
    fs::write(control.join("control"), text).context("write control")?;
    fs::write(control.join("conffiles"), "/etc/default/warren\n").context("write conffiles")?;
    let file = out.join(format!("warren_{version}_{architecture}.deb"));
    let mut build = command("dpkg-deb", ["--build", "--root-owner-group"]);
    // Quick to make and half the size: the program is most of it.
    build.args(["-Zgzip"]).arg(&root).arg(&file);
    run(build)?;
    Ok(file)
}
