//! The `base` template: a Debian with what agents use most, made from packages.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::layers::{LayerError, LayerStore, Making};

const DEFAULT_SECURITY_MIRROR: &str = "http://deb.debian.org/debian-security";
/// Where Debian's own package and Ubuntu's of the same name put the archive's keys.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where packages come from unless the operator names another mirror.
pub const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// Directories that the runtime fills in each sandbox.
const EMPTIED: &[&str] = &["dev", "proc", "run", "sys"];

/// Lines of a failed build that are shown.
const SHOWN_LINES: usize = 15;
/// Changes the digest when the way of building changes but the recipe does not.
const FORMAT: &str = "warren-base-1";
const PROVISION: &str = include_str!("provision.sh");

const PACKAGES: &[&str] = &[
    "attr",
    "build-essential",
    "bzip2",
    "ca-certificates",
    "curl",
    "file",
    "fuse3",
    "gh",
    "git",
    "gnupg",
    "iproute2",
    "iptables",
    "iputils-ping",
    "jq",
    "less",
    "lsof",
    "nano",
    "ncurses-bin",
    "netcat-openbsd",
    "nftables",
    "nodejs",
    "npm",
    "openssh-client",
    "patch",
    "pkg-config",
    "procps",
    "python-is-python3",
    "python3",
    "python3-dev",
    "python3-pip",
    "python3-venv",
    "rsync",
    "socat",
    "sudo",
    "unzip",
    "vim-tiny",
    "wget",
    "xz-utils",
    "yarnpkg",
    "zip",
];

/// Settings of the package manager, here and later in sandboxes. Documents are left out but
/// for licences; files are not flushed one by one, since a layer and a sandbox are thrown
/// away rather than repaired after a crash.
const DPKG_OPTIONS: &[&str] = &[
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
];

/// What the base template is made of. Two equal recipes make the same template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Debian release.
    pub suite: String,
    /// Where packages are fetched from. No part of the identity: mirrors are alike.
    pub mirror: String,
    /// Packages beside the essential ones.
    pub packages: Vec<String>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            suite: "bookworm".to_owned(),
            mirror: DEFAULT_MIRROR.to_owned(),
            packages: PACKAGES.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

impl Recipe {
    /// Digest of the recipe: the name of its layer.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut packages: Vec<&str> = self.packages.iter().map(String::as_str).collect();
        packages.sort_unstable();
        let fixed = [FORMAT, std::env::consts::ARCH, &self.suite, PROVISION];
        for part in fixed.iter().chain(DPKG_OPTIONS).chain(&packages) {
            // Lengths keep the parts apart.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hex::encode(hasher.finalize())
    }

    /// The lines of `sources.list`. Security updates come with the default mirror only:
    /// where another keeps them can't be told from its address.
    fn sources(&self) -> Vec<String> {
        let Self { suite, mirror, .. } = self;
        let line = |uri: &str, suite: &str| format!("deb [signed-by={KEYRING}] {uri} {suite} main");
        let mut lines = vec![
            line(mirror, suite),
            line(mirror, &format!("{suite}-updates")),
        ];
        if mirror == DEFAULT_MIRROR {
            lines.push(line(DEFAULT_SECURITY_MIRROR, &format!("{suite}-security")));
        }
        lines
    }
}

/// What happens during a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The layer is not there and is being made; this takes about a minute.
    Started,
    /// A line of the build's output.
    Line(String),
    /// The layer is ready.
    Finished,
}

/// Why the base template could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The layer store failed.
    #[error("use the layer store")]
    Layers(#[from] LayerError),
    /// The program that builds it is not installed.
    #[error("run mmdebstrap, which is not installed\nhint: apt-get install mmdebstrap")]
    NotInstalled,
    /// The keys that packages are verified with are not installed.
    #[error("find {KEYRING}\nhint: apt-get install debian-archive-keyring")]
    NoKeyring,
    /// It could not be started or heard.
    #[error("run mmdebstrap")]
    Run(#[source] io::Error),
    /// Packages could not be fetched.
    #[error(
        "fetch Debian packages from {mirror}: {output}\nhint: check that this machine reaches the mirror, or name another with --debian-mirror"
    )]
    Unreachable {
        /// The mirror.
        mirror: String,
        /// The last lines of its output.
        output: String,
    },
    /// There is not enough space for the layer.
    #[error(
        "make the base template: no space left on the disk of {dir}\nhint: free 2 GiB there, or name another place with --layers-dir"
    )]
    DiskFull {
        /// The layer store.
        dir: PathBuf,
    },
    /// It failed for another reason.
    #[error("make the base template: {output}")]
    Failed {
        /// The last lines of its output.
        output: String,
    },
    /// A directory that each sandbox gets anew could not be emptied.
    #[error("empty {path}")]
    Empty {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The provisioning script could not be written.
    #[error("write {path}")]
    Script {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Returns the digest of the base template's layer, making the layer if it is not there.
/// Blocks; with the layer in place it takes microseconds.
///
/// # Errors
/// [`BaseError`]; no half-made layer is left.
pub fn ensure(
    store: &LayerStore,
    recipe: &Recipe,
    mut progress: impl FnMut(Progress),
) -> Result<String, BaseError> {
    let digest = recipe.digest();
    if store.get(&digest)?.is_some() {
        return Ok(digest);
    }
    progress(Progress::Started);
    let making = store.make(&digest)?;
    if making.already_made().is_none() {
        build(recipe, &making, &mut progress)?;
        making.commit()?;
    }
    progress(Progress::Finished);
    Ok(digest)
}

fn build(
    recipe: &Recipe,
    making: &Making,
    progress: &mut impl FnMut(Progress),
) -> Result<(), BaseError> {
    if !Path::new(KEYRING).exists() {
        return Err(BaseError::NoKeyring);
    }
    let script = making.root().with_extension("provision");
    fs::write(&script, PROVISION).map_err(|source| BaseError::Script {
        path: script.clone(),
        source,
    })?;
    let result = run(recipe, making, &script, progress);
    // Written by us just now; a leftover is overwritten by the next attempt.
    fs::remove_file(&script).ok();
    result
}

fn command(recipe: &Recipe, making: &Making, script: &Path) -> Result<Command, BaseError> {
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--mode=root", "--variant=minbase"])
        .arg("--skip=output/dev,output/mknod")
        .arg(format!("--include={}", recipe.packages.join(",")))
        .args(
            DPKG_OPTIONS
                .iter()
                .map(|option| format!("--dpkgopt={option}")),
        )
        .arg("--customize-hook=sh \"$WARREN_PROVISION\" \"$1\"")
        .arg(&recipe.suite)
        .arg(making.root())
        .args(recipe.sources())
        .env("WARREN_PROVISION", script)
        // Messages are read below.
        .env("LC_ALL", "C.UTF-8")
        // While it runs, nobody else starts, even if this process is killed.
        .stdin(Stdio::from(making.hold()?))
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok(command)
}

fn run(
    recipe: &Recipe,
    making: &Making,
    script: &Path,
    progress: &mut impl FnMut(Progress),
) -> Result<(), BaseError> {
    let mut child =
        command(recipe, making, script)?
            .spawn()
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => BaseError::NotInstalled,
                _ => BaseError::Run(error),
            })?;
    let mut last = VecDeque::with_capacity(SHOWN_LINES);
    let mut fault = None;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n') {
            let line = String::from_utf8_lossy(&line.map_err(BaseError::Run)?).into_owned();
            fault = fault.or_else(|| Fault::of(&line));
            if last.len() == SHOWN_LINES {
                last.pop_front();
            }
            last.push_back(line.clone());
            progress(Progress::Line(line));
        }
    }
    if child.wait().map_err(BaseError::Run)?.success() {
        return EMPTIED
            .iter()
            .try_for_each(|name| empty(&making.root().join(name)));
    }
    let output = Vec::from(last).join(" | ");
    Err(match fault {
        Some(Fault::DiskFull) => BaseError::DiskFull {
            dir: making.root().parent().unwrap_or(making.root()).to_owned(),
        },
        Some(Fault::Unreachable) => BaseError::Unreachable {
            mirror: recipe.mirror.clone(),
            output,
        },
        None => BaseError::Failed { output },
    })
}

/// Removes what a directory holds: the builder's mounts kept it busy until now.
fn empty(dir: &Path) -> Result<(), BaseError> {
    let work = || -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    work().map_err(|source| BaseError::Empty {
        path: dir.to_owned(),
        source,
    })
}

/// What an operator can mend, told by a line of the build's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    DiskFull,
    Unreachable,
}

impl Fault {
    fn of(line: &str) -> Option<Self> {
        const UNREACHABLE: [&str; 6] = [
            "Could not connect",
            "Could not resolve",
            "Cannot initiate the connection",
            "Unable to connect",
            "Temporary failure resolving",
            "Failed to fetch",
        ];
        if line.contains("No space left on device") {
            Some(Self::DiskFull)
        } else if UNREACHABLE.iter().any(|text| line.contains(text)) {
            Some(Self::Unreachable)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_content_and_not_order_or_mirror() {
        let recipe = Recipe::default();
        let mut same = recipe.clone();
        same.packages.reverse();
        same.mirror = "http://localhost/debian".to_owned();
        assert_eq!(recipe.digest(), same.digest());
        let mut other = recipe.clone();
        other.packages.push("cowsay".to_owned());
        assert_ne!(recipe.digest(), other.digest());
        let other = Recipe {
            suite: "trixie".to_owned(),
            ..recipe.clone()
        };
        assert_ne!(recipe.digest(), other.digest());
    }

    #[test]
    fn faults_are_told_by_the_output() {
        let full = "dpkg: error processing archive x.deb: No space left on device";
        assert_eq!(Fault::of(full), Some(Fault::DiskFull));
        let down = "  Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111: refused)";
        assert_eq!(Fault::of(down), Some(Fault::Unreachable));
        assert_eq!(Fault::of("I: extracting archives..."), None);
    }

    #[test]
    fn security_updates_come_with_the_default_mirror() {
        let mut recipe = Recipe::default();
        let security = |recipe: &Recipe| {
            let lines = recipe.sources();
            lines.iter().any(|line| line.contains("bookworm-security"))
        };
        assert!(security(&recipe));
        recipe.mirror = "http://localhost/debian".to_owned();
        assert!(!security(&recipe));
    }

    #[test]
    fn a_layer_that_is_there_is_not_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let recipe = Recipe::default();
        let making = store.make(&recipe.digest()).unwrap();
        fs::create_dir(making.root()).unwrap();
        making.commit().unwrap();
        let mut said = Vec::new();
        let digest = ensure(&store, &recipe, |progress| said.push(progress)).unwrap();
        assert_eq!(digest, recipe.digest());
        assert_eq!(said, []);
    }

    #[test]
    fn an_unreachable_mirror_fails_with_a_hint_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let recipe = Recipe {
            mirror: "http://127.0.0.1:1/debian".to_owned(),
            packages: vec!["bash".to_owned()],
            ..Recipe::default()
        };
        match ensure(&store, &recipe, |_| {}) {
            Err(error @ BaseError::Unreachable { .. }) => {
                assert!(error.to_string().contains("--debian-mirror"), "{error}");
            }
            // Not every developer's machine has the builder.
            Err(BaseError::NotInstalled | BaseError::NoKeyring) => return,
            other => panic!("{other:?}"),
        }
        assert_eq!(store.get(&recipe.digest()).unwrap(), None);
        let left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            left.iter()
                .all(|name| name.to_string_lossy().ends_with(".lock")),
            "{left:?}"
        );
    }
}
