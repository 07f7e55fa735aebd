//! Volumes that are kept in a bucket of an S3-compatible service.
//!
//! ```text
//! PREFIX/volumes/ID/manifest        what the volume is: its chunks, its keeper, its generation
//!                  /chunks/GEN-SHA  one piece of the image, never changed
//! DIR/ID.img     the image, in use here         DIR/ID.state   what the bucket is known to hold
//! DIR/ID.dirty   the image may be ahead of it   DIR/ID.lost    another server keeps it now
//! DIR/ID.clone, ID.draft   being written back, being fetched
//! ```
//!
//! The image here is what sandboxes and clients work with; what changes in it is written back
//! from time to time: the image is cloned, chunks that the manifest lacks are put beside the
//! others, and then the manifest is replaced, on the condition that it is still the one that
//! was replaced last from here. So the bucket always holds one whole state of the file system,
//! and a server that another has taken a volume from can't write over it.

mod manifest;
mod remote;
mod state;
mod transfer;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use warren_service::fault;
use warren_sys::loopdev::reflink;
use warren_types::VolumeId;

pub use manifest::ManifestError;
use manifest::{Manifest, Owner};
pub use remote::{Bucket, BucketConfig, BucketError};
use state::State;

use crate::VolumeError;
use crate::error::host;

/// Kinds of files beside an image.
const STATE: &str = "state";
const DIRTY: &str = "dirty";
const LOST: &str = "lost";
const CLONE: &str = "clone";
const DRAFT: &str = "draft";
const KINDS: [&str; 5] = [STATE, DIRTY, LOST, CLONE, DRAFT];
/// Name of the file that says which server this is.
const OWNER: &str = "owner";

/// The volumes of this server in a bucket. Methods block, on the bucket too, and are called
/// by one thread per volume at a time.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
    bucket: Bucket,
    owner: Owner,
}

/// What came of an attempt to replace a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Replaced {
    /// It was replaced.
    Done,
    /// An earlier attempt, of a process that died, has replaced it: its outcome is known now.
    Earlier,
}

/// What a write-back did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WrittenBack {
    /// Chunks put into the bucket.
    pub chunks: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Kept {
    /// Joins a directory for images, on a file system whose files can share blocks, with a
    /// bucket.
    pub(crate) fn open(dir: PathBuf, bucket: Bucket) -> io::Result<Self> {
        let owner = Owner::of(&dir.join(OWNER))?;
        Ok(Self { dir, bucket, owner })
    }

    fn file(&self, id: VolumeId, kind: &str) -> PathBuf {
        self.dir.join(format!("{id}.{kind}"))
    }

    /// Refuses a volume that another server has taken.
    pub(crate) fn check(&self, id: VolumeId) -> Result<(), VolumeError> {
        match fs::read_to_string(self.file(id, LOST)) {
            Ok(keeper) => Err(VolumeError::Elsewhere(keeper)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(host("look for a volume")(error)),
        }
    }

    /// Notes that the image may be changed from now on. Durable on return.
    pub(crate) fn note_use(&self, id: VolumeId) -> Result<(), VolumeError> {
        let path = self.file(id, DIRTY);
        if path.exists() {
            return Ok(());
        }
        File::create(path)
            .and_then(|_| self.sync_dir())
            .map_err(host("note that a volume is in use"))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }

    /// Fetches a volume whose image is not here to `image`, and becomes its keeper.
    pub(crate) fn fetch(&self, id: VolumeId, image: &Path) -> Result<(), VolumeError> {
        let mut state = match State::read(&self.file(id, STATE))? {
            // An earlier attempt, or an image that was let go: its answer may be unknown.
            Some(state) if !state.is_new() => state,
            _ => State::default(),
        };
        let found = self.bucket.manifest(id)?.ok_or(VolumeError::NoVolume)?;
        let keeper = &found.0.owner;
        if keeper.id != self.owner.id && !self.bucket.takes_over() {
            return Err(VolumeError::Elsewhere(keeper.host.clone()));
        }
        state.accept(found);
        loop {
            let claim = self.successor(&state.manifest);
            if self.replace(id, &mut state, claim)? == Replaced::Done {
                break;
            }
        }
        fault::point("volume.claimed");
        let draft = self.file(id, DRAFT);
        self.bucket.fetch(id, &state.manifest, &draft)?;
        fault::point("volume.fetched");
        fs::rename(&draft, image)
            .and_then(|()| self.sync_dir())
            .map_err(host("fetch a volume"))
    }

    /// What comes after a manifest, so far with the same chunks.
    fn successor(&self, manifest: &Manifest) -> Manifest {
        Manifest {
            generation: manifest.generation + 1,
            nonce: Manifest::fresh_nonce(),
            owner: self.owner.clone(),
            ..manifest.clone()
        }
    }

    /// Replaces the manifest that `state` knows by `next`. The attempt is on the disk before
    /// it is made, so that its outcome is known whatever happens; one of an earlier process
    /// that succeeded counts as what the bucket holds, and `next` is built on it.
    fn replace(
        &self,
        id: VolumeId,
        state: &mut State,
        next: Manifest,
    ) -> Result<Replaced, VolumeError> {
        let path = self.file(id, STATE);
        state.attempts.push(next.nonce.clone());
        state.write(&path)?;
        fault::point("volume.attempted");
        match self.bucket.replace(id, &next, state.version.as_ref()) {
            Ok(version) => {
                fault::point("volume.replaced");
                state.accept((next, version));
            }
            Err(BucketError::Changed) => {
                let found = self.bucket.manifest(id)?;
                let found = found.ok_or(VolumeError::NoVolume)?;
                if !state.attempts.contains(&found.0.nonce) {
                    return Err(self.lose(id, &found.0.owner.host));
                }
                let is_this = found.0.nonce == next.nonce;
                state.accept(found);
                if !is_this {
                    state.write(&path)?;
                    return Ok(Replaced::Earlier);
                }
            }
            Err(error) => return Err(error.into()),
        }
        state.write(&path)?;
        fault::point("volume.recorded");
        Ok(Replaced::Done)
    }

    /// Another server keeps it now: what is here is no longer the volume.
    fn lose(&self, id: VolumeId, keeper: &str) -> VolumeError {
        tracing::error!(volume_id = %id, keeper,
            "another server has taken a volume; what was changed here since is only in its image");
        let noted = fs::write(self.file(id, LOST), keeper).and_then(|()| self.sync_dir());
        match noted {
            Ok(()) => VolumeError::Elsewhere(keeper.to_owned()),
            Err(error) => host("note that a volume is lost")(error),
        }
    }

    /// Whether the bucket may lack something of the image.
    pub(crate) fn is_dirty(&self, id: VolumeId) -> bool {
        self.file(id, DIRTY).exists()
    }

    /// Writes the image back. What was synced to it before is in the bucket on return.
    pub(crate) fn write_back(
        &self,
        id: VolumeId,
        image: &Path,
    ) -> Result<WrittenBack, VolumeError> {
        self.check(id)?;
        let clone = self.file(id, CLONE);
        let written = self.write_clone(id, image, &clone);
        match fs::remove_file(&clone) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(host("remove a clone of a volume")(error))
            }
            _ => written,
        }
    }

    fn write_clone(
        &self,
        id: VolumeId,
        image: &Path,
        clone: &Path,
    ) -> Result<WrittenBack, VolumeError> {
        let size = copy(image, clone).map_err(host("clone a volume"))?;
        fault::point("volume.cloned");
        let path = self.file(id, STATE);
        let mut state = State::read(&path)?.unwrap_or_default();
        loop {
            let mut next = self.successor(&state.manifest);
            next.size = size;
            let fresh = transfer::compare(clone, &state.manifest, &mut next)
                .map_err(host("read a volume"))?;
            if fresh.is_empty() && next.chunks == state.manifest.chunks && !state.is_new() {
                return Ok(WrittenBack::default());
            }
            let bytes = self.bucket.put_chunks(id, clone, &fresh)?;
            fault::point("volume.uploaded");
            let before = state.manifest.names();
            let kept = next.names();
            if self.replace(id, &mut state, next)? == Replaced::Earlier {
                continue;
            }
            let gone: BTreeSet<_> = before.difference(&kept).cloned().collect();
            // What can't be removed now is when the volume is opened anew.
            if let Err(error) = self.bucket.remove_chunks(id, &gone) {
                tracing::warn!(volume_id = %id, %error, "old chunks of a volume are left");
            }
            fault::point("volume.removed");
            let chunks = fresh.len();
            return Ok(WrittenBack { chunks, bytes });
        }
    }

    /// Notes that the bucket has all of an image that nobody uses.
    pub(crate) fn note_clean(&self, id: VolumeId) -> Result<(), VolumeError> {
        match fs::remove_file(self.file(id, DIRTY)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(host("note that a volume is written back")(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes chunks that the volume's manifest does not name: what a server left that died
    /// or was given up. Returns how many.
    pub(crate) fn sweep_chunks(&self, id: VolumeId) -> Result<usize, VolumeError> {
        let Some(state) = State::read(&self.file(id, STATE))? else {
            return Ok(0);
        };
        let kept = state.manifest.names();
        let newest = state.manifest.generation;
        let mut stray = self.bucket.chunks(id)?;
        // Later ones may be named by a manifest that is not there yet.
        stray.retain(|name| {
            !kept.contains(name) && manifest::generation_of(name).is_some_and(|of| of <= newest)
        });
        self.bucket.remove_chunks(id, &stray)?;
        Ok(stray.len())
    }

    /// Removes a volume from the bucket, unless another server keeps it, and what is beside
    /// its image here. Idempotent.
    pub(crate) fn remove(&self, id: VolumeId) -> Result<(), VolumeError> {
        if let Some((found, _)) = self.bucket.manifest(id)?
            && found.owner.id != self.owner.id
        {
            tracing::warn!(volume_id = %id, keeper = found.owner.host,
                "a deleted volume is left in the bucket: another server keeps it");
        } else {
            self.bucket.remove_manifest(id)?;
            fault::point("volume.unnamed");
            let chunks = self.bucket.chunks(id)?;
            self.bucket.remove_chunks(id, &chunks)?;
        }
        for kind in KINDS {
            match fs::remove_file(self.file(id, kind)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(host("delete a volume")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether a file in the directory is one that a process can't have left in use.
    pub(crate) fn is_stale(kind: &str) -> bool {
        matches!(kind, CLONE | DRAFT)
    }

    /// Whether a file in the directory belongs beside an image.
    pub(crate) fn is_beside(kind: &str) -> bool {
        KINDS.contains(&kind)
    }
}

/// Makes `to` a copy of `from` at this instant, without copying. Returns its size.
fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let source = File::open(from)?;
    let target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)?;
    reflink(source.as_fd(), target.as_fd()).map_err(|error| {
        if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) {
            io::Error::other("volumes in a bucket need a file system whose files can share blocks")
        } else {
            error
        }
    })?;
    Ok(target.metadata()?.len())
}
