//! One small file per sandbox: what is needed to find it again after the server died.
//!
//! Records are replaced by rename. Those of sandboxes that run are not synced to the disk:
//! they serve a server that starts again on a running machine, where the page cache holds
//! them. Those of paused sandboxes outlive the machine's restart, so they are synced.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_cluster::{BuildImage, VolumeMount};
use warren_egress::AuthorityKeys;
use warren_runtime::Record;
use warren_service::Secret;
use warren_types::{NetworkConfig, OnTimeout, SandboxId};

/// What the ledger keeps of an acknowledged sandbox. The file is readable by root only:
/// it holds the tokens, which a restarted node must serve again, and the key of the sandbox's
/// certificate authority. It holds no secret of a team.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Format of this record.
    pub(crate) version: u32,
    pub(crate) id: SandboxId,
    /// The processes of its current or last run. They have an id of their own, so that
    /// remains of one run are never taken for those of the next.
    pub(crate) runtime: Record,
    pub(crate) image: BuildImage,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) started_at: Timestamp,
    pub(crate) end_at: Timestamp,
    pub(crate) on_timeout: OnTimeout,
    pub(crate) access_token: Option<Secret>,
    pub(crate) network: NetworkConfig,
    pub(crate) init_key: Secret,
    /// Raised by every pause and resume.
    pub(crate) revision: u64,
    /// What is kept of it, while it is paused.
    pub(crate) pause: Option<Pause>,
    /// Volumes that are mounted in it.
    #[serde(default)]
    pub(crate) mounts: Vec<VolumeMount>,
    /// The authority that its agent installed, once its rules needed one.
    #[serde(default)]
    pub(crate) authority: Option<AuthorityKeys>,
}

/// A paused sandbox. Its processes stand still, or it is on disk, or both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pause {
    pub(crate) at: Timestamp,
    /// Whether the processes of the last run stand still.
    pub(crate) frozen: bool,
    pub(crate) stored: Option<Stored>,
    /// Why less was kept than was asked for.
    pub(crate) note: Option<String>,
    /// Its agent did not answer when its memory was kept.
    #[serde(default)]
    pub(crate) agent_silent: bool,
}

/// A capture in the directory of paused sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) memory: bool,
}

impl Pause {
    /// Whether processes and memory are kept.
    pub(crate) fn memory(&self) -> bool {
        self.frozen || self.stored.as_ref().is_some_and(|stored| stored.memory)
    }
}

/// The current format.
pub(crate) const VERSION: u32 = 2;

/// A record that could not be read back.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    pub(crate) reason: String,
}

/// The directory of records.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    dir: PathBuf,
}

impl Ledger {
    /// Opens the ledger in `dir`, making it if needed.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self, id: &SandboxId) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    /// Writes a record, replacing an older one at once.
    pub(crate) fn write(&self, entry: &Entry) -> io::Result<()> {
        let id = &entry.id;
        let temporary = self.dir.join(format!("{id}.tmp"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        if entry.pause.is_some() {
            file.sync_all()?;
        }
        fs::rename(&temporary, self.path(id))?;
        if entry.pause.is_some() {
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(())
    }

    /// Forgets a sandbox. Forgetting one that is not there is fine.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The layers of all sandboxes on record. Records may come and go meanwhile.
    pub(crate) fn layers(&self) -> io::Result<BTreeSet<String>> {
        let mut layers = BTreeSet::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            match read(&path) {
                Ok(entry) => layers.extend(entry.image.layers),
                Err(_) if !path.exists() => {}
                Err(reason) => return Err(io::Error::other(reason)),
            }
        }
        Ok(layers)
    }

    /// Reads every record back; half-written temporaries are removed.
    pub(crate) fn load(&self) -> io::Result<(Vec<Entry>, Vec<Unreadable>)> {
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("tmp") => fs::remove_file(&path)?,
                Some("json") => match read(&path) {
                    Ok(entry) => entries.push(entry),
                    Err(reason) => unreadable.push(Unreadable { path, reason }),
                },
                _ => {}
            }
        }
        Ok((entries, unreadable))
    }
}

fn read(path: &Path) -> Result<Entry, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let entry: Entry = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if entry.version != VERSION {
        return Err(format!("format {} is not {VERSION}", entry.version));
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use warren_types::{BuildId, Resources, TemplateId};

    use super::*;

    fn entry() -> Entry {
        let resources = Resources::default();
        let id = SandboxId::random();
        Entry {
            version: VERSION,
            id: id.clone(),
            runtime: Record {
                id,
                runtime: "fake".to_owned(),
                pid: 7,
                pid_start_time: 9,
                boot_id: "b".to_owned(),
                slot: 3,
                resources,
                layers: vec!["/layers/a".into()],
                policy: warren_types::NetworkPolicy::default(),
            },
            image: BuildImage {
                template_id: TemplateId::random(),
                build_id: BuildId::random(),
                layers: vec!["a".to_owned()],
                resources,
                default_user: "user".to_owned(),
                default_workdir: None,
                env: BTreeMap::new(),
                start: None,
                capture: None,
            },
            env: BTreeMap::new(),
            started_at: Timestamp::UNIX_EPOCH,
            end_at: Timestamp::UNIX_EPOCH,
            on_timeout: OnTimeout::Pause { memory: false },
            access_token: Some(Secret::new("t".to_owned())),
            network: NetworkConfig::default(),
            init_key: Secret::new("i".to_owned()),
            revision: 3,
            pause: Some(Pause {
                at: Timestamp::UNIX_EPOCH,
                frozen: true,
                stored: None,
                note: None,
                agent_silent: false,
            }),
            mounts: Vec::new(),
            authority: None,
        }
    }

    #[test]
    fn a_record_comes_back_and_only_root_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().join("l")).unwrap();
        let entry = entry();
        ledger.write(&entry).unwrap();
        ledger.write(&entry).unwrap();
        let mode = fs::metadata(ledger.path(&entry.id))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let (entries, unreadable) = ledger.load().unwrap();
        assert!(unreadable.is_empty());
        assert_eq!(entries[0].runtime, entry.runtime);
        assert_eq!(entries[0].pause, entry.pause);
        assert_eq!(entries[0].access_token.as_ref().unwrap().expose(), "t");
        ledger.remove(&entry.id).unwrap();
        ledger.remove(&entry.id).unwrap();
        assert!(ledger.load().unwrap().0.is_empty());
    }

    #[test]
    fn a_torn_record_is_told_apart_and_a_temporary_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path().to_owned()).unwrap();
        fs::write(dir.path().join("iabc.json"), b"{\"version\":1").unwrap();
        fs::write(dir.path().join("iabc.tmp"), b"x").unwrap();
        let (entries, unreadable) = ledger.load().unwrap();
        assert!(entries.is_empty());
        assert_eq!(unreadable.len(), 1);
        assert!(!dir.path().join("iabc.tmp").exists());
    }
}
