//! `warren backup`: the database, the keys, and as chosen the layers of templates and the
//! volumes, as a directory or as one archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_store::Store;

use super::{socket, tree};
use crate::cli::operator::Backup;
use crate::print::{self, warning};

/// Names the form of a backup; a change that older programs can't read raises it.
pub(super) const FORMAT: u32 = 2;
pub(super) const MANIFEST: &str = "backup.json";
pub(super) const DATABASE: &str = "warren.db";
/// Files and directories without which the database is of little use.
const KEYS: [&str; 7] = [
    "secrets.key",
    "values.key",
    "identity.key",
    "api-key",
    "admin-token",
    "tls",
    "acme",
];
const LAYERS: &str = "layers";
const VOLUMES: &str = "volumes";
/// All that a backup may hold.
pub(super) const PARTS: [&str; 10] = [
    KEYS[0], KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], LAYERS, VOLUMES, DATABASE,
];
/// How often a copy begins anew because layers went away under it.
const TRIES: usize = 3;

/// What a backup holds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    format: u32,
    version: String,
    pub(super) made_at: Timestamp,
    pub(super) templates: bool,
    volumes: bool,
    /// Digest of each part.
    pub(super) digests: BTreeMap<String, String>,
}

/// Runs `warren backup`.
pub(crate) fn backup(args: &Backup, as_json: bool) -> anyhow::Result<ExitCode> {
    let data = args.places.data_dir.path.canonicalize().with_context(|| {
        format!(
            "open {}\nhint: name the server's directory with --data-dir",
            args.places.data_dir.path.display()
        )
    })?;
    ensure!(
        data.join(DATABASE).exists(),
        "no server has kept its data in {}",
        data.display()
    );
    ensure!(
        fs::symlink_metadata(&args.to).is_err(),
        "{} is there already\nhint: name a place that is not",
        args.to.display()
    );
    let draft = draft_of(&args.to)?;
    remove(&draft)?;
    let made = make(args, &data, &draft).and_then(|()| {
        if is_archive(&args.to) {
            archive(&draft, &args.to)
        } else {
            sync(&draft)?;
            fs::rename(&draft, &args.to).context("put the backup in its place")
        }
    });
    if is_archive(&args.to) || made.is_err() {
        remove(&draft)?;
    }
    made?;
    let text = format!("Backed up {} to {}", data.display(), args.to.display());
    let value = serde_json::json!({ "dataDir": data, "to": args.to });
    print::done(as_json, &value, &text)?;
    Ok(ExitCode::SUCCESS)
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tar")
}

/// Where a backup is put together, beside its place.
fn draft_of(place: &Path) -> anyhow::Result<PathBuf> {
    let mut name = place
        .file_name()
        .context("the backup needs a name")?
        .to_owned();
    name.push(".partial");
    Ok(place.with_file_name(name))
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn make(args: &Backup, data: &Path, draft: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .mode(0o700)
        .create(draft)
        .with_context(|| format!("create {}", draft.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut tries = 0;
    let missing = loop {
        tries += 1;
        let target = draft.join(DATABASE);
        fs::remove_file(&target).or_else(ignore_missing)?;
        let layers = runtime.block_on(copy_database(data, &target))?;
        if args.no_templates {
            break BTreeSet::new();
        }
        let missing = copy_layers(args, data, &layers, &draft.join(LAYERS))?;
        // A layer that went away meanwhile belongs to a template that was deleted: a newer
        // copy of the database does not name it any more.
        if missing.is_empty() || tries == TRIES {
            break missing;
        }
    };
    for layer in missing {
        warning(&format!(
            "layer {layer} is missing; templates that need it are not whole"
        ));
    }
    for name in KEYS {
        let from = data.join(name);
        if from.exists() {
            copy(&from, &draft.join(name), &[])?;
        }
    }
    if args.volumes {
        let is_up = runtime.block_on(socket::connect(data))?.is_some();
        copy_volumes(data, &draft.join(VOLUMES), is_up)?;
    }
    let mut digests = BTreeMap::new();
    for name in PARTS {
        let part = draft.join(name);
        if part.exists() {
            let digest = tree::digest(&part).with_context(|| format!("read {name} again"))?;
            digests.insert(name.to_owned(), digest);
        }
    }
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: Timestamp::now(),
        templates: !args.no_templates,
        volumes: args.volumes,
        digests,
    };
    fs::write(draft.join(MANIFEST), serde_json::to_vec_pretty(&manifest)?)?;
    Ok(())
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound {
        Ok(())
    } else {
        Err(error)
    }
}

/// Copies the database as it is at one moment and returns the layers that it names.
async fn copy_database(data: &Path, target: &Path) -> anyhow::Result<BTreeSet<String>> {
    let store = Store::open_as_is(&data.join(DATABASE)).await?;
    let copied = store.copy_to(target).await;
    store.close().await;
    copied?;
    let copy = Store::open_as_is(target).await?;
    let layers = copy.layers_of_builds().await;
    copy.close().await;
    Ok(layers?)
}

/// Copies the layers that are there; returns those that are not.
fn copy_layers(
    args: &Backup,
    data: &Path,
    layers: &BTreeSet<String>,
    target: &Path,
) -> anyhow::Result<BTreeSet<String>> {
    fs::create_dir_all(target)?;
    let mut missing = BTreeSet::new();
    let own = data.join(LAYERS);
    let sources: Vec<&Path> = [Some(own.as_path()), args.places.layers_dir.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    for layer in layers {
        let to = target.join(layer);
        if to.exists() {
            continue;
        }
        let from = sources
            .iter()
            .map(|dir| dir.join(layer))
            .find(|path| path.is_dir());
        let copied = match from {
            Some(from) => copy(&from, &to, &[]).is_ok(),
            None => false,
        };
        if !copied {
            remove(&to)?;
            missing.insert(layer.clone());
        }
    }
    Ok(missing)
}

/// Whether an image is mounted: sandboxes run on without the server, and write to it.
fn is_mounted(image: &Path) -> io::Result<bool> {
    for device in fs::read_dir("/sys/block")? {
        // There is no such file unless it is a loop device that is in use.
        let backing = device?.path().join("loop/backing_file");
        if fs::read_to_string(backing).is_ok_and(|path| Path::new(path.trim_end()) == image) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn copy_volumes(data: &Path, target: &Path, is_up: bool) -> anyhow::Result<()> {
    fs::create_dir_all(target)?;
    let from = data.join(VOLUMES);
    let entries = match fs::read_dir(&from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let image = entry?.path();
        if image.extension().is_none_or(|extension| extension != "img") {
            continue;
        }
        let to = target.join(image.file_name().context("a volume without a name")?);
        if !is_up && !is_mounted(&image)? {
            copy(&image, &to, &[])?;
            continue;
        }
        // In use, an image is only whole if it is copied in one instant.
        rustix::fs::syncfs(File::open(&from)?)?;
        copy(&image, &to, &["--reflink=always"]).with_context(|| {
            format!(
                "copy volume {} in one instant\nhint: stop the server with its sandboxes (`--end-sandboxes`), or put the backup on the file system of {}, which must be XFS or Btrfs",
                image.display(),
                data.display()
            )
        })?;
    }
    Ok(())
}

/// Copies a file or a tree with everything that belongs to it: owners, modes, times, links,
/// devices, extended attributes, holes.
pub(super) fn copy(from: &Path, to: &Path, more: &[&str]) -> anyhow::Result<()> {
    let done = Command::new("cp")
        .args(["--archive", "--sparse=auto", "--no-target-directory"])
        .args(more)
        .arg("--")
        .args([from, to])
        .output()
        .context("run cp")?;
    ensure!(
        done.status.success(),
        "copy {}: {}",
        from.display(),
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

pub(super) fn tar(arguments: &[&str], file: &Path, dir: &Path) -> anyhow::Result<()> {
    let done = Command::new("tar")
        .args(["--xattrs", "--xattrs-include=*", "--numeric-owner"])
        .args(arguments)
        .arg("--file")
        .arg(file)
        .arg("--directory")
        .arg(dir)
        .args(if arguments.contains(&"--create") {
            &["."][..]
        } else {
            &[]
        })
        .output()
        .context("run tar")?;
    ensure!(
        done.status.success(),
        "tar: {}",
        String::from_utf8_lossy(&done.stderr).trim()
    );
    Ok(())
}

fn archive(draft: &Path, place: &Path) -> anyhow::Result<()> {
    let partial = place.with_extension("tar.partial-file");
    fs::remove_file(&partial).or_else(ignore_missing)?;
    // Never readable to others, not while it is written either.
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    drop(options.open(&partial)?);
    let written = tar(&["--create", "--sparse"], &partial, draft);
    if written.is_err() {
        fs::remove_file(&partial)?;
    }
    written?;
    File::open(&partial)?.sync_all()?;
    fs::rename(&partial, place).context("put the backup in its place")
}

pub(super) fn sync(dir: &Path) -> anyhow::Result<()> {
    Ok(rustix::fs::syncfs(File::open(dir)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_lies_beside_its_place() {
        assert_eq!(
            draft_of(Path::new("/b/x")).unwrap(),
            Path::new("/b/x.partial")
        );
        assert_eq!(
            draft_of(Path::new("x.tar")).unwrap(),
            Path::new("x.tar.partial")
        );
        assert!(draft_of(Path::new("/")).is_err());
        assert!(is_archive(Path::new("a.tar")) && !is_archive(Path::new("tar")));
    }
}
