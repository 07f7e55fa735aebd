//! `warren restore`: what `warren backup` has made becomes a data directory.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use warren_service::fault;
use warren_store::Store;

use super::backup::{DATABASE, FORMAT, MANIFEST, Manifest, PARTS, copy, sync, tar};
use super::tree;
use crate::cli::operator::Restore;
use crate::data::DataDir;
use crate::print::{self, warning};

/// Where everything is put first, in the data directory.
const PARTIAL: &str = "restore.partial";
/// Longest manifest.
const MAX_MANIFEST: u64 = 1 << 20;

/// Refuses a data directory into which a backup was restored by half.
pub(crate) fn ensure_whole(data: &Path) -> anyhow::Result<()> {
    ensure!(
        !is_cut_off(data),
        "restoring a backup into {} was cut off\nhint: run `warren restore` again, or remove the directory",
        data.display()
    );
    Ok(())
}

fn is_cut_off(data: &Path) -> bool {
    data.join(PARTIAL).exists() && !data.join(DATABASE).exists()
}

/// Runs `warren restore`.
pub(crate) fn restore(args: &Restore, as_json: bool) -> anyhow::Result<ExitCode> {
    let from = &args.from;
    ensure!(from.exists(), "{} is not there", from.display());
    // Locked until all is in place, so that no server starts on the half of it.
    let data = DataDir::open(&args.data_dir)?;
    let data = data.path();
    if is_cut_off(data) {
        clear(data)?;
    }
    let others = fs::read_dir(data)?.filter_map(Result::ok);
    let others = others.filter(|entry| entry.file_name() != "lock").count();
    ensure!(
        others == 0,
        "{} is not empty\nhint: restore into a directory that is, and start the server with it",
        data.display()
    );
    let restored = put_back(from, data);
    if restored.is_err() {
        clear(data)?;
    }
    let (manifest, lost) = restored?;
    let text = format!(
        "Restored the backup of {} to {}",
        manifest.made_at,
        data.display()
    );
    let value = serde_json::json!({ "dataDir": data, "madeAt": manifest.made_at });
    print::done(as_json, &value, &text)?;
    if lost > 0 {
        warning(&format!(
            "{lost} snapshots of sandboxes are not part of backups and can't be used"
        ));
    }
    if !manifest.templates {
        warning("the backup is without templates: build them again");
    }
    Ok(ExitCode::SUCCESS)
}

/// Empties a directory that was empty before, but for the lock that is held.
fn clear(data: &Path) -> anyhow::Result<()> {
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(data)? {
            let entry = entry?;
            if entry.file_name() == "lock" || entry.file_name() == PARTIAL {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        // Last: it tells that the others may be removed.
        match fs::remove_dir_all(data.join(PARTIAL)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    };
    remove().with_context(|| format!("remove what was restored by half from {}", data.display()))
}

/// Brings a backup to the data directory and looks at all of it, before anything gets its
/// place. Also returns how many snapshots can't be used.
fn put_back(from: &Path, data: &Path) -> anyhow::Result<(Manifest, u64)> {
    let scratch = data.join(PARTIAL);
    let mut builder = DirBuilder::new();
    builder.mode(0o700).create(&scratch)?;
    let is_archive = !from.is_dir();
    if is_archive {
        tar(
            &["--extract", "--same-permissions", "--same-owner"],
            from,
            &scratch,
        )
        .with_context(|| format!("{} is no backup, or is damaged", from.display()))?;
    }
    let manifest = manifest_in(if is_archive { &scratch } else { from })
        .with_context(|| format!("{} is no backup, or is damaged", from.display()))?;
    for (name, digest) in &manifest.digests {
        let part = scratch.join(name);
        if !is_archive {
            copy(&from.join(name), &part, &["--reflink=auto"])?;
        }
        let found = tree::digest(&part)
            .with_context(|| format!("{} is damaged: read {name} in it", from.display()))?;
        ensure!(
            found == *digest,
            "{} is damaged: {name} is not what was backed up\nhint: use another backup; nothing was restored",
            from.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let lost = runtime.block_on(async {
        let store = Store::open(&scratch.join(DATABASE)).await?;
        let lost = store.forget_captures("it is not part of the backup").await;
        store.close().await;
        anyhow::Ok(lost?)
    })?;
    sync(&scratch)?;
    place(&manifest.digests, &scratch, data)?;
    sync(data)?;
    fs::remove_dir_all(&scratch)?;
    Ok((manifest, lost))
}

/// Moves the parts to their places, the database last: without it a restore that was cut off
/// is no server's data.
fn place(parts: &BTreeMap<String, String>, scratch: &Path, data: &Path) -> anyhow::Result<()> {
    let others = parts.keys().filter(|name| *name != DATABASE);
    for name in others.map(String::as_str).chain([DATABASE]) {
        let moved = fs::rename(scratch.join(name), data.join(name));
        moved.with_context(|| format!("put {name} in its place"))?;
        fault::point("restore.placing");
    }
    Ok(())
}

fn manifest_in(dir: &Path) -> anyhow::Result<Manifest> {
    /// The only thing that is known of every form.
    #[derive(serde::Deserialize)]
    struct Form {
        format: u32,
        version: String,
    }
    let path = dir.join(MANIFEST);
    let about = fs::symlink_metadata(&path).context("look for its manifest")?;
    ensure!(
        about.is_file() && about.len() <= MAX_MANIFEST,
        "its manifest is no file of that kind"
    );
    let text = fs::read(&path).context("read its manifest")?;
    let Form { format, version } = serde_json::from_slice(&text).context("read its manifest")?;
    if format != FORMAT {
        bail!(
            "it was made by Warren {}, in another form\nhint: restore it with that version",
            version.escape_debug()
        );
    }
    let manifest: Manifest = serde_json::from_slice(&text).context("read its manifest")?;
    for name in manifest.digests.keys() {
        ensure!(
            PARTS.contains(&name.as_str()),
            "it holds {name:?}, which is not known"
        );
    }
    ensure!(
        manifest.digests.contains_key(DATABASE),
        "it holds no database"
    );
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Manifest, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), text).unwrap();
        manifest_in(dir.path()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn manifests_of_other_forms_and_with_strange_parts_are_refused() {
        let of = |format: u32, part: &str| {
            format!(
                r#"{{"format": {format}, "version": "0.9", "made_at": "2026-01-01T00:00:00Z",
                     "templates": true, "volumes": false,
                     "digests": {{"warren.db": "0", "{part}": "0"}}}}"#
            )
        };
        assert!(read(&of(FORMAT, "layers")).is_ok());
        assert!(read(&of(FORMAT, "../x")).unwrap_err().contains("not known"));
        assert!(
            read(&of(FORMAT + 1, "layers"))
                .unwrap_err()
                .contains("made by Warren 0.9")
        );
        assert!(read("{}").is_err() && read("").is_err());
        let none = r#"{"format": 2, "version": "1", "made_at": "2026-01-01T00:00:00Z",
                       "templates": true, "volumes": false, "digests": {}}"#;
        assert!(read(none).unwrap_err().contains("no database"));
    }

    #[test]
    fn what_was_restored_by_half_is_known_and_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        ensure_whole(dir.path()).unwrap();
        fs::create_dir_all(at(PARTIAL).join("layers")).unwrap();
        fs::create_dir(at("volumes")).unwrap();
        fs::write(at("lock"), "").unwrap();
        fs::write(at("api-key"), "").unwrap();
        assert!(ensure_whole(dir.path()).is_err());
        clear(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        ensure_whole(dir.path()).unwrap();
    }
}
