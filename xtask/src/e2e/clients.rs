//! The official clients, installed from pinned requirements into the cache.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use crate::run::{cache_dir, command, output, run, succeeds, workspace};

/// The oldest Node.js that the JavaScript client runs on.
const NODE_MAJOR: u32 = 20;

/// Installed clients of every language.
#[derive(Debug)]
pub(crate) struct Clients {
    python: PathBuf,
    old_python: PathBuf,
    node_modules: PathBuf,
    node: PathBuf,
}

impl Clients {
    /// Installs what the cache lacks. A changed requirement file gives a new place, so
    /// working copies of different age do not disturb each other.
    pub(crate) fn install() -> Result<Self> {
        let tests = workspace().join("tests/e2e");
        Ok(Self {
            python: python(&tests.join("python/requirements.txt"))?,
            old_python: python(&tests.join("python/requirements-old.txt"))?,
            node_modules: node_modules(&tests.join("js"))?,
            node: node()?,
        })
    }

    /// The interpreter with the current client.
    pub(crate) fn python(&self) -> &Path {
        &self.python
    }

    /// A Node.js that is new enough.
    pub(crate) fn node(&self) -> &Path {
        &self.node
    }

    /// Makes the JavaScript client visible to tests in `dir`: modules are looked up beside
    /// the file that imports them.
    pub(crate) fn link_node_modules(&self, dir: &Path) -> Result<PathBuf> {
        let link = dir.join("node_modules");
        if fs::read_link(&link).is_ok_and(|target| target == self.node_modules) {
            return Ok(dir.to_owned());
        }
        match fs::remove_file(&link) {
            // A directory is what `npm ci` made there by hand: as good.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(dir.to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", link.display()));
            }
            _ => {}
        }
        symlink(&self.node_modules, &link).with_context(|| format!("link {}", link.display()))?;
        Ok(dir.to_owned())
    }

    /// Variables of the suites: the installed programs come first on the search path.
    pub(crate) fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let mut path: Vec<PathBuf> = [&self.python, &self.node]
            .iter()
            .filter_map(|program| program.parent().map(Path::to_owned))
            .collect();
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        Ok(vec![
            ("PATH", std::env::join_paths(path).context("join PATH")?),
            ("WARREN_OLD_PYTHON", self.old_python.clone().into()),
        ])
    }
}

/// Runs `make` on a directory named after `inputs`, once for all runs and working copies.
fn once(kind: &str, inputs: &[&[u8]], make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    for input in inputs {
        hasher.update((input.len() as u64).to_le_bytes());
        hasher.update(input);
    }
    let mut digest = hex::encode(hasher.finalize());
    digest.truncate(16);
    let parent = cache_dir().join("clients");
    fs::create_dir_all(&parent).with_context(|| format!("make {}", parent.display()))?;
    let dir = parent.join(format!("{kind}-{digest}"));
    let lock_path = parent.join(format!("{kind}-{digest}.lock"));
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .with_context(|| format!("open {}", lock_path.display()))?;
    flock(&lock, FlockOperation::LockExclusive).context("lock the clients' cache")?;
    let complete = dir.join(".complete");
    if complete.exists() {
        return Ok(dir);
    }
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", dir.display()));
        }
        _ => {}
    }
    fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    make(&dir)?;
    fs::write(&complete, []).with_context(|| format!("write {}", complete.display()))?;
    Ok(dir)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// An interpreter with what a requirement file names.
fn python(requirements: &Path) -> Result<PathBuf> {
    let version = output(command("python3", ["-VV"]))?;
    let dir = once("python", &[&version, &read(requirements)?], |dir| {
        let mut venv = command("python3", ["-m", "venv"]);
        venv.arg(dir);
        run(venv)?;
        let mut install = command(
            dir.join("bin/python"),
            [
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ],
        );
        install.arg("--requirement").arg(requirements);
        run(install)
    })?;
    Ok(dir.join("bin/python"))
}

/// The directory of modules that a lock file names.
fn node_modules(project: &Path) -> Result<PathBuf> {
    let files = ["package.json", "package-lock.json"];
    let contents = files
        .iter()
        .map(|name| read(&project.join(name)))
        .collect::<Result<Vec<_>>>()?;
    let inputs: Vec<&[u8]> = contents.iter().map(Vec::as_slice).collect();
    let dir = once("node", &inputs, |dir| {
        for (name, content) in files.iter().zip(&contents) {
            fs::write(dir.join(name), content).with_context(|| format!("write {name}"))?;
        }
        let mut install = command("npm", ["ci", "--no-audit", "--no-fund"]);
        install.current_dir(dir);
        run(install)
    })?;
    Ok(dir.join("node_modules"))
}

/// The machine's Node.js if it is new enough, else one from its package of the registry.
fn node() -> Result<PathBuf> {
    let is_new = format!("process.exit(Number(parseInt(process.versions.node) < {NODE_MAJOR}))");
    if succeeds(command("node", ["-e", &is_new])) {
        let path = output(command("node", ["-p", "process.execPath"]))?;
        let path = String::from_utf8(path).context("read the path of node")?;
        return Ok(PathBuf::from(path.trim_end()));
    }
    let arch = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    let package = format!("node-linux-{arch}@{NODE_MAJOR}");
    let dir = once("nodejs", &[package.as_bytes()], |dir| {
        let mut install = command("npm", ["install", "--no-audit", "--no-fund", "--prefix"]);
        install.arg(dir).arg(&package);
        run(install)
    })?;
    let program = dir.join(format!("node_modules/node-linux-{arch}/bin/node"));
    ensure!(program.exists(), "{package} holds no bin/node");
    Ok(program)
}
