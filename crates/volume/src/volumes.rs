//! The volumes of this host.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use warren_service::{Chain, fault};
use warren_types::VolumeId;

use crate::bucket::{Bucket, Kept, WrittenBack};
use crate::error::host;
use crate::image::{self, Mounted};
use crate::{VolumeError, WriteBackError};

const IMAGE: &str = "img";
const DRAFT: &str = "draft";
/// Volumes that stay mounted here; sandboxes keep theirs mounted by themselves.
const KEPT: usize = 32;

/// The volumes of this host, one image each. All methods block.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    size_mib: u32,
    /// Most recently used last. Held while one is mounted, so that none is twice, and while
    /// one that nobody uses is let go.
    mounted: Mutex<VecDeque<(VolumeId, Arc<Mounted>)>>,
    kept: Option<InBucket>,
}

/// What volumes in a bucket need beside it.
#[derive(Debug)]
struct InBucket {
    bucket: Kept,
    /// Images that nobody uses stay here for as long.
    keep: Duration,
    /// Each is held while its volume is fetched, written back or removed. Before `mounted`.
    turns: Mutex<HashMap<VolumeId, Arc<Mutex<Turn>>>>,
}

/// What this process has seen of a volume in the bucket.
#[derive(Debug, Default)]
struct Turn {
    /// Sectors written to its device when it was written back last.
    sectors: Option<u64>,
    /// Since when nobody uses it.
    unused: Option<Instant>,
    /// Whether strays of earlier processes were looked for.
    is_swept: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InBucket {
    fn turn(&self, id: VolumeId) -> Arc<Mutex<Turn>> {
        Arc::clone(lock(&self.turns).entry(id).or_default())
    }
}

impl Volumes {
    /// Opens the volumes kept in `dir`, making it if needed. New volumes hold `size_mib`.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn open(dir: PathBuf, size_mib: u32) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        Ok(Self {
            dir,
            size_mib,
            mounted: Mutex::default(),
            kept: None,
        })
    }

    /// Opens volumes that are kept in a bucket. Their images are in `dir` while they are used
    /// and for `keep` after; it must be on a file system whose files can share blocks.
    ///
    /// # Errors
    /// As mkdir(2).
    pub fn open_in_bucket(
        dir: PathBuf,
        size_mib: u32,
        bucket: Bucket,
        keep: Duration,
    ) -> io::Result<Self> {
        let mut volumes = Self::open(dir, size_mib)?;
        volumes.kept = Some(InBucket {
            bucket: Kept::open(volumes.dir.clone(), bucket)?,
            keep,
            turns: Mutex::default(),
        });
        Ok(volumes)
    }

    fn path(&self, id: VolumeId) -> PathBuf {
        self.dir.join(format!("{id}.{IMAGE}"))
    }

    /// Makes an empty volume.
    ///
    /// # Errors
    /// [`VolumeError::Host`], [`VolumeError::Bucket`]; what is left then, [`Self::delete`]
    /// removes.
    pub fn create(&self, id: VolumeId) -> Result<(), VolumeError> {
        let failed = || host("make a volume");
        let draft = self.dir.join(format!("{id}.{DRAFT}"));
        let made = image::format(&draft, self.size_mib)
            .and_then(|()| fs::rename(&draft, self.path(id)))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        made.inspect_err(|_| drop(fs::remove_file(&draft)))
            .map_err(failed())?;
        if let Some(kept) = &self.kept {
            fault::point("volume.formatted");
            let turn = kept.turn(id);
            let _turn = lock(&turn);
            kept.bucket.write_back(id, &self.path(id))?;
        }
        Ok(())
    }

    /// Removes a volume with its content. Sandboxes that have it mounted keep what they see,
    /// as with an open file that is deleted; it is gone with the last of them. Idempotent.
    ///
    /// # Errors
    /// [`VolumeError::Host`], [`VolumeError::Bucket`].
    pub fn delete(&self, id: VolumeId) -> Result<(), VolumeError> {
        lock(&self.mounted).retain(|(other, _)| *other != id);
        let turn = self.kept.as_ref().map(|kept| kept.turn(id));
        let _turn = turn.as_deref().map(lock);
        match fs::remove_file(self.path(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(host("delete a volume")(error));
            }
            _ => {}
        }
        if let Some(kept) = &self.kept {
            kept.bucket.remove(id)?;
            lock(&kept.turns).remove(&id);
        }
        Ok(())
    }

    /// Removes drafts and every volume that is not in `keep` from this host. Called once at
    /// start.
    ///
    /// # Errors
    /// [`VolumeError::Host`].
    pub fn sweep(&self, keep: &HashSet<VolumeId>) -> Result<usize, VolumeError> {
        let mut swept = 0;
        let mut sweep = || -> io::Result<()> {
            for entry in fs::read_dir(&self.dir)? {
                let path = entry?.path();
                let id: Option<VolumeId> = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                let kind = path.extension().and_then(|kind| kind.to_str());
                let is_strange = id.is_some_and(|id| !keep.contains(&id));
                let is_stale = match kind {
                    Some(DRAFT) => true,
                    Some(kind) if Kept::is_stale(kind) => true,
                    Some(kind) => (kind == IMAGE || Kept::is_beside(kind)) && is_strange,
                    None => false,
                };
                if is_stale {
                    match fs::remove_file(path) {
                        // A deletion that was begun before goes on beside.
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        removed => {
                            removed?;
                            swept += 1;
                        }
                    }
                }
            }
            Ok(())
        };
        sweep().map_err(host("sweep volumes"))?;
        Ok(swept)
    }

    /// Brings the image here if it is in the bucket only.
    fn fetch(&self, kept: &InBucket, id: VolumeId) -> Result<(), VolumeError> {
        kept.bucket.check(id)?;
        if self.path(id).exists() {
            return Ok(());
        }
        let turn = kept.turn(id);
        let _turn = lock(&turn);
        if self.path(id).exists() {
            return Ok(());
        }
        kept.bucket.fetch(id, &self.path(id))
    }

    fn mounted(&self, id: VolumeId) -> Result<Arc<Mounted>, VolumeError> {
        loop {
            if let Some(kept) = &self.kept {
                self.fetch(kept, id)?;
            }
            match self.mount_here(id)? {
                // It was let go meanwhile.
                None if self.kept.is_some() => {}
                None => return Err(VolumeError::NoVolume),
                Some(volume) => return Ok(volume),
            }
        }
    }

    fn mount_here(&self, id: VolumeId) -> Result<Option<Arc<Mounted>>, VolumeError> {
        let mut mounted = lock(&self.mounted);
        if let Some(at) = mounted.iter().position(|(other, _)| *other == id) {
            let found = mounted.remove(at).ok_or(VolumeError::NoVolume)?;
            let volume = Arc::clone(&found.1);
            mounted.push_back(found);
            return Ok(Some(volume));
        }
        if let Some(kept) = &self.kept
            && self.path(id).exists()
        {
            kept.bucket.note_use(id)?;
            fault::point("volume.noted");
        }
        let volume = Mounted::open(&self.path(id), &format!("warren-volume-{id}"));
        let volume = match volume {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => Arc::new(other.map_err(host("mount a volume"))?),
        };
        mounted.push_back((id, Arc::clone(&volume)));
        if mounted.len() > KEPT {
            mounted.pop_front();
        }
        Ok(Some(volume))
    }

    /// A detached mount of the volume, for a sandbox. Devices and set-user-id bits have no
    /// effect in it.
    ///
    /// # Errors
    /// [`VolumeError::NoVolume`], [`VolumeError::Elsewhere`], [`VolumeError::Bucket`],
    /// [`VolumeError::Host`].
    pub fn mount(&self, id: VolumeId) -> Result<OwnedFd, VolumeError> {
        let mounted = self.mounted(id)?;
        mounted.again().map_err(host("mount a volume"))
    }

    /// The content of the volume.
    ///
    /// # Errors
    /// As [`Self::mount`].
    pub fn content(&self, id: VolumeId) -> Result<Content, VolumeError> {
        Ok(Content(Held::Volume(self.mounted(id)?)))
    }

    /// Whether volumes are kept in a bucket.
    #[must_use]
    pub fn is_in_bucket(&self) -> bool {
        self.kept.is_some()
    }

    /// Writes every volume back that has changed, and lets go of images that nobody uses.
    /// Returns what failed, which does not keep from the others and is tried again with the
    /// next call.
    pub fn write_back(&self) -> Vec<WriteBackError> {
        let Some(kept) = &self.kept else {
            return Vec::new();
        };
        let ids = match self.here().map_err(host("list volumes")) {
            Ok(ids) => ids,
            Err(source) => return vec![WriteBackError { id: None, source }],
        };
        let mut failed = Vec::new();
        for id in ids {
            match self.write_back_one(kept, id) {
                Ok(written) if written.chunks > 0 => {
                    tracing::debug!(volume_id = %id, ?written, "wrote a volume back");
                }
                // Told when it was found out.
                Ok(_) | Err(VolumeError::Elsewhere(_)) => {}
                Err(source) => failed.push(WriteBackError {
                    id: Some(id),
                    source,
                }),
            }
        }
        failed
    }

    /// Volumes whose image is here.
    fn here(&self) -> io::Result<Vec<VolumeId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == IMAGE) {
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                ids.extend(stem.and_then(|stem| stem.parse::<VolumeId>().ok()));
            }
        }
        Ok(ids)
    }

    fn write_back_one(&self, kept: &InBucket, id: VolumeId) -> Result<WrittenBack, VolumeError> {
        let turn = kept.turn(id);
        let mut turn = lock(&turn);
        let image = self.path(id);
        let failed = || host("look whether a volume is in use");
        let mounted = {
            let here = lock(&self.mounted);
            match here.iter().find(|(other, _)| *other == id) {
                Some((_, volume)) => Some(Arc::clone(volume)),
                None => match Mounted::join(&image) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Ok(WrittenBack::default());
                    }
                    other => other.map_err(failed())?.map(Arc::new),
                },
            }
        };
        let Some(volume) = mounted else {
            return self.write_back_unused(kept, id, &mut turn);
        };
        turn.unused = None;
        // What is written from here on counts for the next time.
        let sectors = volume.sync().map_err(host("sync a volume"))?;
        if turn.sectors == Some(sectors) {
            // Held by nobody else, it is unused at the next time.
            drop(volume);
            let mut here = lock(&self.mounted);
            here.retain(|(other, volume)| *other != id || Arc::strong_count(volume) > 1);
            return Ok(WrittenBack::default());
        }
        let written = kept.bucket.write_back(id, &image)?;
        turn.sectors = Some(sectors);
        Self::sweep_chunks(kept, id, &mut turn);
        Ok(written)
    }

    fn write_back_unused(
        &self,
        kept: &InBucket,
        id: VolumeId,
        turn: &mut Turn,
    ) -> Result<WrittenBack, VolumeError> {
        turn.sectors = None;
        let image = self.path(id);
        let mut written = WrittenBack::default();
        if kept.bucket.is_dirty(id) {
            written = kept.bucket.write_back(id, &image)?;
            Self::sweep_chunks(kept, id, turn);
        }
        let here = lock(&self.mounted);
        let is_used = here.iter().any(|(other, _)| *other == id)
            || Mounted::join(&image)
                .map_err(host("look whether a volume is in use"))?
                .is_some();
        if is_used {
            turn.unused = None;
            return Ok(written);
        }
        kept.bucket.note_clean(id)?;
        fault::point("volume.clean");
        let since = *turn.unused.get_or_insert_with(Instant::now);
        if since.elapsed() >= kept.keep {
            fs::remove_file(&image).map_err(host("let go of a volume"))?;
            tracing::debug!(volume_id = %id, "let go of the image of a volume");
        }
        drop(here);
        Ok(written)
    }

    fn sweep_chunks(kept: &InBucket, id: VolumeId, turn: &mut Turn) {
        if turn.is_swept {
            return;
        }
        match kept.bucket.sweep_chunks(id) {
            Ok(_) => turn.is_swept = true,
            Err(error) => {
                tracing::warn!(volume_id = %id, error = %Chain(&error),
                    "stray chunks of a volume are left");
            }
        }
    }
}

/// The content of a volume; keeps it mounted.
#[derive(Debug, Clone)]
pub struct Content(Held);

#[derive(Debug, Clone)]
enum Held {
    Volume(Arc<Mounted>),
    #[cfg(test)]
    Directory(Arc<OwnedFd>),
}

impl Content {
    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Held::Volume(mounted) => mounted.root(),
            #[cfg(test)]
            Held::Directory(fd) => std::os::fd::AsFd::as_fd(fd),
        }
    }

    #[cfg(test)]
    pub(crate) fn of_directory(path: &std::path::Path) -> Self {
        Self(Held::Directory(Arc::new(File::open(path).unwrap().into())))
    }
}
