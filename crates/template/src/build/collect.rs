//! Removing what no build needs: records of the cache that were not used for long or are
//! more than there is room for, and layers that nothing names.
//!
//! No build or export runs meanwhile. A layer gets a name that the next start sweeps before
//! any of it is removed, so a kill leaves whole layers and remains, nothing between.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use super::cache::Cached;
use super::engine::Engine;
use super::port::CollectError;
use crate::layers::{LayerError, LayerStore};
use warren_service::fault;

/// When records and layers may go.
#[derive(Debug, Clone)]
pub struct CollectLimits {
    /// Time between two rounds.
    pub every: Duration,
    /// Younger layers stay whatever names them, and younger records too: what a caller knows
    /// to be in use may be as old.
    pub grace: Duration,
    /// Records that were not used for this long go.
    pub unused: Duration,
    /// Bytes of layers that only records name; beyond it the longest unused records go.
    pub max_bytes: u64,
}

impl Default for CollectLimits {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        Self {
            every: HOUR,
            grace: HOUR,
            unused: HOUR * 24 * 14,
            max_bytes: 32 << 30,
        }
    }
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Records of the cache.
    pub records: usize,
    /// Layers.
    pub layers: usize,
}

impl Engine {
    /// Whether it is time for a round; if so, the next is due later.
    fn is_due(&self) -> bool {
        let mut last = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < self.config.collect.every) {
            return false;
        }
        *last = Some(Instant::now());
        true
    }

    fn forget_round(&self) {
        *self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// See [`Builder::collect`](super::Builder::collect).
    pub(super) async fn collect_unused(
        &self,
        in_use: HashSet<String>,
    ) -> Result<Option<Collected>, CollectError> {
        if !self.is_due() {
            return Ok(None);
        }
        // Builds come and go in seconds: the next try is soon.
        let Ok(turn) = self.running.clone().try_write_owned() else {
            self.forget_round();
            return Ok(None);
        };
        let (store, limits) = (self.config.layers.clone(), self.config.collect.clone());
        let (cache, host) = (self.cache.clone(), self.host.clone());
        let keep: HashSet<String> = self.config.keep.iter().cloned().chain(in_use).collect();
        let work = move || {
            let mut keep = keep;
            keep.extend(host.layers_in_use().map_err(CollectError::Host)?);
            let now = SystemTime::now();
            let known = cache.list().map_err(CollectError::Records)?;
            let (kept, gone) = sorted_out(known, &keep, now, &limits, &mut |layer| {
                size_of(&store.dir().join(layer))
            });
            let mut collected = Collected::default();
            for record in &gone {
                fs::remove_file(&record.path).map_err(CollectError::Records)?;
                collected.records += 1;
            }
            keep.extend(kept.into_iter().flat_map(|record| record.layers));
            let doomed = condemned(&store, &keep, now, limits.grace)?;
            fault::point("layers.condemned");
            // From here on nothing can come back to them.
            drop(turn);
            for (layer, taken) in doomed {
                store.remove(&layer, taken)?;
                collected.layers += 1;
            }
            Ok(Some(collected))
        };
        let done = self.tasks.spawn_blocking(work).await;
        done.map_err(|_| CollectError::Stopping)?
    }
}

/// A layer that is out of sight, where it is, and the lock that keeps others from making it.
type Doomed = (String, (PathBuf, fs::File));

/// Takes the layers that nothing keeps out of sight.
fn condemned(
    store: &LayerStore,
    keep: &HashSet<String>,
    now: SystemTime,
    grace: Duration,
) -> Result<Vec<Doomed>, LayerError> {
    let mut doomed = Vec::new();
    for (layer, made) in store.list()? {
        let is_young = now.duration_since(made).unwrap_or_default() < grace;
        if is_young || keep.contains(&layer) {
            continue;
        }
        if let Some(taken) = store.condemn(&layer)? {
            doomed.push((layer, taken));
        }
    }
    Ok(doomed)
}

/// Splits records into those that stay and those that go.
fn sorted_out(
    mut known: Vec<Cached>,
    keep: &HashSet<String>,
    now: SystemTime,
    limits: &CollectLimits,
    size: &mut dyn FnMut(&str) -> u64,
) -> (Vec<Cached>, Vec<Cached>) {
    let age = |record: &Cached| now.duration_since(record.used).unwrap_or_default();
    // The most recently used first: they have the room.
    known.sort_by_key(|record| age(record));
    let mut counted: HashMap<String, u64> = HashMap::new();
    let (mut total, mut kept, mut gone) = (0u64, Vec::new(), Vec::new());
    for record in known {
        let mut added = Vec::new();
        for layer in &record.layers {
            if !keep.contains(layer) && !counted.contains_key(layer) {
                added.push((layer.clone(), size(layer)));
            }
        }
        let more: u64 = added.iter().map(|(_, bytes)| bytes).sum();
        let fits = total.saturating_add(more) <= limits.max_bytes;
        let is_young = age(&record) < limits.grace;
        if is_young || (fits && age(&record) <= limits.unused) {
            total = total.saturating_add(more);
            counted.extend(added);
            kept.push(record);
        } else {
            gone.push(record);
        }
    }
    (kept, gone)
}

/// Bytes that a layer takes, as far as they can be told.
fn size_of(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries.filter_map(io::Result::ok) {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                waiting.push(entry.path());
            }
            total += metadata.blocks() * 512;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str, days: u64, layers: &[&str]) -> Cached {
        Cached {
            path: name.into(),
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * 86_400 - days * 86_400),
            layers: layers.iter().map(|&layer| layer.to_owned()).collect(),
        }
    }

    #[test]
    fn old_records_go_and_the_longest_unused_beyond_the_room() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * 86_400);
        let limits = CollectLimits {
            max_bytes: 25,
            ..CollectLimits::default()
        };
        let keep = HashSet::from(["used".to_owned()]);
        let known = vec![
            record("old", 20, &["used"]),
            record("fresh", 0, &["a", "b"]),
            record("second", 1, &["a", "used", "c"]),
            record("third", 2, &["d"]),
            record("shared", 3, &["a", "used"]),
        ];
        // Each layer takes 10: a, b and c are 30, so the second does not fit; nothing after
        // it needs more room than is left, but the third.
        let (kept, gone) = sorted_out(known, &keep, now, &limits, &mut |_| 10);
        let names = |records: &[Cached]| -> Vec<String> {
            let paths = records.iter().map(|record| record.path.display());
            paths.map(|path| path.to_string()).collect()
        };
        assert_eq!(names(&kept), ["fresh", "shared"]);
        assert_eq!(names(&gone), ["second", "third", "old"]);
    }

    #[test]
    fn only_old_layers_that_nothing_keeps_are_condemned() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let layers = ["a", "b"].map(|letter| letter.repeat(64));
        for layer in &layers {
            let making = store.make(layer).unwrap();
            fs::create_dir(making.root()).unwrap();
            fs::write(making.root().join("file"), "x").unwrap();
            making.commit().unwrap();
        }
        let keep = HashSet::from([layers[0].clone()]);
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        assert!(condemned(&store, &keep, now, hour).unwrap().is_empty());
        let doomed = condemned(&store, &keep, now, Duration::ZERO).unwrap();
        assert_eq!(doomed.len(), 1);
        assert!(store.get(&layers[0]).unwrap().is_some());
        assert_eq!(store.get(&layers[1]).unwrap(), None);
        // A process that is killed here leaves what the next start sweeps.
        let remains = doomed[0].1.0.clone();
        assert!(remains.exists());
        drop(doomed);
        LayerStore::open(dir.path()).unwrap();
        assert!(!remains.exists());
        // The name can be used again.
        let making = store.make(&layers[1]).unwrap();
        fs::create_dir(making.root()).unwrap();
        making.commit().unwrap();
        let mut doomed = condemned(&store, &keep, now, Duration::ZERO).unwrap();
        let (layer, taken) = doomed.remove(0);
        store.remove(&layer, taken).unwrap();
        let left = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 2, "the layer that is kept and its lock");
    }
}
