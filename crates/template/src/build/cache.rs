//! What was built before: under the key of a phase, its layers and the context after it.
//!
//! A record is written whole and after its layers, so what is found is whole. Records
//! belong to a scope; layers have names of their own, since a forced build makes another
//! layer under the same key.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use warren_service::fault;

use super::plan::{self, Context};

/// Longest record that is read.
const MAX_RECORD: u64 = 1 << 20;
/// Version of the records' format and of the way layers are made.
const VERSION: u32 = 1;

/// What a phase left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    version: u32,
    /// Key of the phase.
    pub(super) key: String,
    /// All layers, lowest first.
    pub(super) layers: Vec<String>,
    /// Context of what follows.
    pub(super) context: Context,
}

impl State {
    pub(super) fn new(key: String, layers: Vec<String>, context: Context) -> Self {
        Self {
            version: VERSION,
            key,
            layers,
            context,
        }
    }
}

/// A record among all.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) path: PathBuf,
    /// When it was last written or asked for.
    pub(super) used: SystemTime,
    pub(super) layers: Vec<String>,
}

/// The records, and a lock for each key that is being made. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
    /// By scope and key.
    making: Arc<Mutex<HashMap<Place, Weak<Lock>>>>,
}

/// A scope and a key.
type Place = (String, String);

type Lock = tokio::sync::Mutex<()>;

/// The right to make what belongs under a key.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Cache {
    /// Opens the records in `dir`, making it if needed.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self {
            dir,
            making: Arc::default(),
        })
    }

    /// Waits until nobody else makes what belongs under `key`.
    pub(super) async fn turn(&self, scope: &str, key: &str) -> Turn {
        let lock = {
            let mut making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
            making.retain(|_, lock| lock.strong_count() > 0);
            let name = (scope.to_owned(), key.to_owned());
            match making.get(&name).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    making.insert(name, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }

    /// Scopes and keys are digests here, whatever they were made of.
    fn path(&self, scope: &str, key: &str) -> PathBuf {
        let scope = plan::key("scope", &[scope]);
        let key = plan::key("key", &[key]);
        self.dir.join(scope).join(format!("{key}.json"))
    }

    /// What is known under a key. An unreadable record counts as none: it is made anew.
    /// Counts as use.
    pub(super) fn get(&self, scope: &str, key: &str) -> Option<State> {
        let path = self.path(scope, key);
        let state = read(&path).filter(|state| state.key == key)?;
        let touched = OpenOptions::new()
            .append(true)
            .open(&path)
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::warn!(%error, "the use of a record can't be noted");
        }
        Some(state)
    }

    /// All records that can be read. Drafts of a killed process and what is no record of
    /// this version is removed.
    pub(super) fn list(&self) -> io::Result<Vec<Cached>> {
        let mut found = Vec::new();
        for scope in fs::read_dir(&self.dir)? {
            for file in fs::read_dir(scope?.path())? {
                let path = file?.path();
                match read(&path) {
                    Some(state) => found.push(Cached {
                        used: fs::metadata(&path)?.modified()?,
                        layers: state.layers,
                        path,
                    }),
                    None => fs::remove_file(&path)?,
                }
            }
        }
        Ok(found)
    }

    /// Writes a record, replacing an older one at once.
    pub(super) fn put(&self, scope: &str, state: &State) -> io::Result<()> {
        let path = self.path(scope, &state.key);
        if let Some(dir) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let draft = path.with_extension("tmp");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        file.write_all(&serde_json::to_vec(state)?)?;
        file.sync_all()?;
        fault::point("record.written");
        fs::rename(draft, path)
    }
}

fn read(path: &Path) -> Option<State> {
    let length = fs::metadata(path).ok()?.len();
    if length > MAX_RECORD || path.extension()? != "json" {
        return None;
    }
    let state: State = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (state.version == VERSION).then_some(state)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn state(key: &str) -> State {
        let layers = vec!["a".repeat(64)];
        State::new(key.to_owned(), layers, Context::of_image(BTreeMap::new()))
    }

    #[test]
    fn a_record_is_found_in_its_scope_only() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().join("c")).unwrap();
        assert_eq!(cache.get("team", "k"), None);
        cache.put("team", &state("k")).unwrap();
        assert_eq!(cache.get("team", "k"), Some(state("k")));
        assert_eq!(cache.get("other", "k"), None);
        fs::write(cache.path("team", "k"), b"{\"version\":1").unwrap();
        assert_eq!(cache.get("team", "k"), None);
    }

    #[tokio::test]
    async fn turns_of_one_key_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path().to_owned()).unwrap();
        let first = cache.turn("team", "k").await;
        let _other = cache.turn("team", "l").await;
        let _elsewhere = cache.turn("other", "k").await;
        let second = cache.turn("team", "k");
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        second.await;
    }
}
