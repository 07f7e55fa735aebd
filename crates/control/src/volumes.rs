//! Volumes: who may make, see, mount and delete which, and the tokens for their content.

mod token;

use std::collections::HashSet;
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use tokio::io::AsyncReadExt;
use warren_cluster::VolumeMount;
use warren_service::{Chain, Secret, fault};
use warren_store::{Actor, MountRecord, StoreError, VolumeRecord};
use warren_types::VolumeId;
use warren_volume::{Content, VolumeError, VolumePath, Volumes};

use crate::{Caller, Control, CreateError, Team};

pub use self::token::VolumeHolder;
use self::token::{sign, verify};

const MAX_NAME: usize = 128;
const MAX_PATH: usize = 1024;
const MAX_MOUNTS: usize = 32;
/// Bytes read of a file at once.
const PIECE: usize = 256 * 1024;
/// Volumes of a team.
const MAX_VOLUMES: usize = 1000;
/// Places that sandboxes need as they are.
const RESERVED: [&str; 3] = ["/dev", "/proc", "/sys"];
/// How often content is removed that could not be removed when it was to be; longer than
/// making a volume takes.
const REMOVE_EVERY: Duration = Duration::from_secs(3600);

/// Why a use case of volumes failed.
#[derive(Debug, thiserror::Error)]
pub enum VolumesError {
    /// This server keeps none.
    #[error("use of volumes is not enabled")]
    Disabled,
    /// A name outside `[a-zA-Z0-9_-]`.
    #[error("Invalid volume name")]
    Name,
    /// The team has one of that name.
    #[error("Volume with name '{0}' already exists")]
    Taken(String),
    /// The team has its fill.
    #[error("you have reached the maximum number of volumes ({0})")]
    TooMany(usize),
    /// Unknown, or another team's.
    #[error("Volume not found")]
    NotFound,
    /// The database failed.
    #[error("read volumes")]
    Store(#[from] StoreError),
    /// The host failed.
    #[error("keep volumes")]
    Host(#[from] VolumeError),
}

/// A token for the content of a volume is not good.
#[derive(Debug, thiserror::Error)]
pub enum VolumeTokenError {
    /// Malformed, forged, expired, for another volume, or for one that is gone.
    #[error("invalid volume token")]
    Refused,
    /// The database failed.
    #[error("read volume")]
    Store(#[from] StoreError),
    /// The host failed.
    #[error("open volume")]
    Host(#[source] VolumeError),
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
}

/// A volume with what its owner gets.
#[derive(Debug, Clone)]
pub struct VolumeView {
    /// What is recorded of it.
    pub record: VolumeRecord,
    /// Token for its content.
    pub token: Secret,
    /// Domain under which its content is reached.
    pub domain: Option<String>,
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(fits)
}

/// What is wrong with the path of a mount, if anything.
fn path_fault(path: &str) -> Option<String> {
    if path.is_empty() {
        return Some("path cannot be empty".to_owned());
    }
    if !path.starts_with('/') {
        return Some("path must be absolute".to_owned());
    }
    if path.split('/').any(|part| part == "." || part == "..") {
        return Some("path must not contain any '.' or '..' components".to_owned());
    }
    if path.len() > MAX_PATH || path.contains('\0') {
        return Some("path is too long or has a zero byte".to_owned());
    }
    let plain = plain(path);
    let is_reserved = RESERVED.iter().any(|reserved| {
        plain
            .strip_prefix(reserved)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    (plain == "/" || is_reserved).then(|| format!("path '{plain}' is reserved"))
}

/// The path without empty parts.
fn plain(path: &str) -> String {
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

impl Control {
    fn volumes(&self) -> Result<&Arc<Volumes>, VolumesError> {
        self.config.volumes.as_ref().ok_or(VolumesError::Disabled)
    }

    fn volume_view(&self, record: VolumeRecord, actor: Actor) -> VolumeView {
        let audience = self.config.domain.as_deref().unwrap_or("localhost");
        let now = Timestamp::now().as_second();
        VolumeView {
            token: sign(&self.config.token_key, &record, actor, audience, now),
            domain: self.config.domain.clone(),
            record,
        }
    }

    async fn on_volumes<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Volumes) -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumesError> {
        let volumes = Arc::clone(self.volumes()?);
        let done = self.tasks.spawn_blocking(move || act(&volumes)).await;
        match done {
            Ok(done) => Ok(done?),
            Err(_) => Err(VolumesError::Disabled),
        }
    }

    /// Makes an empty volume. Must run to its end once begun.
    ///
    /// # Errors
    /// [`VolumesError`]; no volume is left behind.
    pub async fn volume_create(
        &self,
        caller: &Caller,
        name: String,
    ) -> Result<VolumeView, VolumesError> {
        self.volumes()?;
        if !is_name(&name) {
            return Err(VolumesError::Name);
        }
        let known = self.store.volume_list(caller.team.id).await?;
        if known.iter().any(|volume| volume.name == name) {
            return Err(VolumesError::Taken(name));
        }
        if known.len() >= MAX_VOLUMES {
            return Err(VolumesError::TooMany(MAX_VOLUMES));
        }
        let record = VolumeRecord {
            id: VolumeId::random(),
            team_id: caller.team.id,
            name,
            created_at: crate::create::micros(Timestamp::now()),
        };
        let id = record.id;
        // First the content: a volume on record has one. Without a record, it is removed.
        self.store.volume_removal_add(id, record.created_at).await?;
        fault::point("volume.announced");
        let made = self.on_volumes(move |volumes| volumes.create(id)).await;
        fault::point("volume.made");
        if let Err(error) = made {
            self.remove_content(id).await;
            return Err(error);
        }
        let inserted = self.store.volume_insert(&record).await;
        if !matches!(inserted, Ok(true)) {
            self.remove_content(id).await;
        }
        if inserted? {
            Ok(self.volume_view(record, caller.actor))
        } else {
            Err(VolumesError::Taken(record.name))
        }
    }

    /// Removes content of a volume that is noted to be removed.
    async fn remove_content(&self, id: VolumeId) {
        let removed = async {
            self.on_volumes(move |volumes| volumes.delete(id)).await?;
            fault::point("volume.gone");
            Ok::<_, VolumesError>(self.store.volume_removal_done(id).await?)
        };
        if let Err(error) = removed.await {
            tracing::error!(volume_id = %id, error = %Chain(&error),
                "content of a volume is left; it is tried again");
        }
    }

    /// The volumes of the caller's team.
    ///
    /// # Errors
    /// [`VolumesError`].
    pub async fn volume_list(&self, caller: &Caller) -> Result<Vec<VolumeRecord>, VolumesError> {
        self.volumes()?;
        Ok(self.store.volume_list(caller.team.id).await?)
    }

    /// A volume of the caller's team, with a fresh token.
    ///
    /// # Errors
    /// [`VolumesError`].
    pub async fn volume_get(
        &self,
        caller: &Caller,
        id: VolumeId,
    ) -> Result<VolumeView, VolumesError> {
        self.volumes()?;
        let found = self.store.volume_get(id).await?;
        let own = found.filter(|volume| volume.team_id == caller.team.id);
        let own = own.ok_or(VolumesError::NotFound)?;
        Ok(self.volume_view(own, caller.actor))
    }

    /// Deletes a volume of the caller's team. Sandboxes that have it mounted keep their view
    /// of it until they end. Must run to its end once begun.
    ///
    /// # Errors
    /// [`VolumesError`].
    pub async fn volume_delete(&self, caller: &Caller, id: VolumeId) -> Result<(), VolumesError> {
        self.volumes()?;
        let now = Timestamp::now();
        if !self.store.volume_delete(caller.team.id, id, now).await? {
            return Err(VolumesError::NotFound);
        }
        fault::point("volume.forgotten");
        self.remove_content(id).await;
        Ok(())
    }

    /// Whom a volume's token was made for.
    ///
    /// # Errors
    /// [`VolumeTokenError`]; whether the content can be reached is not looked at.
    pub async fn volume_holder(
        &self,
        id: &str,
        token: &str,
    ) -> Result<VolumeHolder, VolumeTokenError> {
        let refused = || VolumeTokenError::Refused;
        let id: VolumeId = id.parse().map_err(|_| refused())?;
        let now = Timestamp::now().as_second();
        let verified = verify(&self.config.token_key, token, now);
        let (_, actor) = verified
            .filter(|(volume, _)| *volume == id)
            .ok_or_else(refused)?;
        let record = self.store.volume_get(id).await?.ok_or_else(refused)?;
        Ok(VolumeHolder {
            volume: id,
            team: record.team_id,
            actor,
        })
    }

    /// Opens the content of a volume for whoever shows its token.
    ///
    /// # Errors
    /// [`VolumeTokenError`].
    pub async fn volume_content(&self, id: &str, token: &str) -> Result<Content, VolumeTokenError> {
        let refused = || VolumeTokenError::Refused;
        let volumes = self.config.volumes.clone().ok_or_else(refused)?;
        let id = self.volume_holder(id, token).await?.volume;
        let opened = self.tasks.spawn_blocking(move || volumes.content(id)).await;
        match opened {
            Ok(Err(VolumeError::NoVolume)) => Err(refused()),
            Ok(opened) => opened.map_err(VolumeTokenError::Host),
            Err(_) => Err(VolumeTokenError::Stopping),
        }
    }

    /// Runs an operation on a volume's content where blocking is fine.
    ///
    /// # Errors
    /// Those of the operation; [`VolumeError::Host`] while the server stops.
    pub async fn on_content<T: Send + 'static>(
        &self,
        act: impl FnOnce() -> Result<T, VolumeError> + Send + 'static,
    ) -> Result<T, VolumeError> {
        let done = self.tasks.spawn_blocking(act).await;
        done.unwrap_or_else(|error| {
            Err(VolumeError::Host {
                action: "run an operation on a volume",
                source: io::Error::other(error),
            })
        })
    }

    /// Opens a file for reading: what it holds now, piece by piece, and its length in bytes,
    /// which is told before the pieces come. The volume stays mounted for as long as they are
    /// read. The stream fails when the file has become shorter; what is written to its end
    /// meanwhile does not come.
    ///
    /// # Errors
    /// [`VolumeError`]
    pub async fn content_stream(
        &self,
        content: Content,
        path: VolumePath,
    ) -> Result<(impl Stream<Item = io::Result<Bytes>> + use<>, u64), VolumeError> {
        let holder = content.clone();
        let (file, length) = self.on_content(move || content.read(&path)).await?;
        let start = (self.content_file(file).take(length), length, holder);
        let pieces = stream::try_unfold(start, |(mut file, left, holder)| async move {
            if left == 0 {
                return Ok(None);
            }
            let mut piece = BytesMut::with_capacity(PIECE);
            let read = file.read_buf(&mut piece).await?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let left = left.saturating_sub(read as u64);
            Ok(Some((piece.freeze(), (file, left, holder))))
        });
        Ok((pieces, length))
    }

    /// Makes a file of a volume one for tasks.
    #[must_use]
    pub fn content_file(&self, file: File) -> tokio::fs::File {
        tokio::fs::File::from_std(file)
    }

    /// Finds the volumes to mount, by name, and checks where.
    pub(crate) async fn mounts(
        &self,
        team: &Team,
        wanted: &[MountRecord],
    ) -> Result<Vec<VolumeMount>, CreateError> {
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        if self.config.volumes.is_none() {
            return Err(CreateError::VolumeMounts);
        }
        if wanted.len() > MAX_MOUNTS {
            let text = format!("invalid mounts:\n\t- at most {MAX_MOUNTS} volumes can be mounted");
            return Err(CreateError::Mounts(text));
        }
        let known = self.store.volume_list(team.id).await?;
        let mut text = String::from("invalid mounts:");
        let (mut mounts, mut used) = (Vec::new(), HashSet::new());
        let mut is_bad = false;
        for (index, mount) in wanted.iter().enumerate() {
            let volume = known.iter().find(|volume| volume.name == mount.name);
            let fault = match volume {
                None => Some(format!("volume '{}' not found", mount.name)),
                Some(_) => path_fault(&mount.path).or_else(|| {
                    let is_new = used.insert(plain(&mount.path));
                    (!is_new).then(|| format!("path '{}' is already used", mount.path))
                }),
            };
            match (fault, volume) {
                (None, Some(volume)) => mounts.push(VolumeMount {
                    volume: volume.id,
                    path: plain(&mount.path),
                    read_only: mount.read_only,
                }),
                (fault, _) => {
                    is_bad = true;
                    // Formatting into a string can't fail.
                    let _ok = write!(
                        text,
                        "\n\t- volume mount #{index}: {}",
                        fault.unwrap_or_default()
                    );
                }
            }
        }
        if is_bad {
            Err(CreateError::Mounts(text))
        } else {
            Ok(mounts)
        }
    }

    /// Removes content that is on no record: what a crash has left. Call once at start.
    ///
    /// # Errors
    /// [`VolumesError`].
    pub async fn sweep_volumes(self: &Arc<Self>) -> Result<usize, VolumesError> {
        if self.config.volumes.is_none() {
            return Ok(0);
        }
        // Nothing is being made yet. A bucket may keep it waiting.
        let stale = self.store.volume_removals(Timestamp::MAX).await?;
        let control = Arc::clone(self);
        self.tasks.spawn(async move {
            for id in stale {
                control.remove_content(id).await;
            }
        });
        let keep = self.store.volume_ids().await?.into_iter().collect();
        self.on_volumes(move |volumes| volumes.sweep(&keep)).await
    }

    async fn remove_volumes(&self, before: Timestamp) -> Result<(), VolumesError> {
        for id in self.store.volume_removals(before).await? {
            self.remove_content(id).await;
        }
        Ok(())
    }

    /// Writes volumes back from time to time, and removes what could not be removed when it
    /// was to be, until the server stops.
    pub(crate) async fn keep_volumes(&self) {
        let Some(volumes) = self.config.volumes.clone() else {
            return;
        };
        let stop = self.tasks.stop_token().clone();
        let mut wait = self.config.write_back_every;
        let mut removed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
            let begun = Instant::now();
            if volumes.is_in_bucket() {
                let volumes = Arc::clone(&volumes);
                let work = move || volumes.write_back();
                // Cut by a server that stops at most, and the image here has everything.
                for failed in self.tasks.spawn_blocking(work).await.unwrap_or_default() {
                    tracing::error!(volume_id = ?failed.id, error = %Chain(&failed),
                        "a volume is behind in its bucket; it is tried again");
                }
            }
            // It reads all of what changed, so it takes a part of the time only.
            wait = self.config.write_back_every.max(begun.elapsed() * 4);
            if removed.elapsed() >= REMOVE_EVERY {
                removed = Instant::now();
                let before = Timestamp::now().checked_sub(REMOVE_EVERY);
                let before = before.unwrap_or(Timestamp::MIN);
                if let Err(error) = self.remove_volumes(before).await {
                    tracing::error!(error = %Chain(&error), "volumes to remove can't be listed");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_paths_are_told_in_the_contracts_words() {
        for (path, told) in [
            ("", Some("path cannot be empty")),
            ("mnt", Some("path must be absolute")),
            (
                "/a/../b",
                Some("path must not contain any '.' or '..' components"),
            ),
            (
                "/./b",
                Some("path must not contain any '.' or '..' components"),
            ),
            ("//", Some("path '/' is reserved")),
            ("/proc/x", Some("path '/proc/x' is reserved")),
            ("/process", None),
            ("/mnt/v", None),
        ] {
            assert_eq!(path_fault(path).as_deref(), told, "{path}");
        }
    }

    #[test]
    fn names_are_of_few_characters() {
        assert!(is_name("a-B_9"));
        for bad in ["", "a b", "a/b", "ü", &"x".repeat(129)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
