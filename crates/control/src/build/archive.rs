//! Uploaded archives: one file for each team and hash, and the links to upload them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hmac::{Hmac, Mac};
use jiff::Timestamp;
use sha2::Sha256;
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;
use warren_service::{Secret, fault};
use warren_types::TeamId;

use super::error::UploadError;

/// How long an upload may be begun after its link was made.
const LINK_LIFE: Duration = Duration::from_secs(30 * 60);
/// An upload that is not finished by then was given up.
const UPLOAD_LIFE: Duration = Duration::from_secs(6 * 3600);
/// Archives younger than this are never removed: a build may be about to read them.
const MIN_AGE: Duration = Duration::from_secs(24 * 3600);
/// Disk space that an upload must leave.
const RESERVE: u64 = 512 * 1024 * 1024;
const PARTIAL: &str = "partial-";

/// How much room archives get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Largest archive in bytes.
    pub max_bytes: u64,
    /// All archives together, in bytes; the longest unused are removed beyond it.
    pub total_bytes: u64,
    /// Archives that were not used for as long are removed.
    pub unused: Duration,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            max_bytes: 8 * 1024 * 1024 * 1024,
            total_bytes: 32 * 1024 * 1024 * 1024,
            unused: Duration::from_secs(14 * 24 * 3600),
        }
    }
}

/// Whether a text is a hash as clients make them.
pub(crate) fn is_hash(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.len() == 64 && text.bytes().all(digit)
}

/// The archives.
#[derive(Debug)]
pub(crate) struct Archives {
    dir: PathBuf,
    limits: ArchiveLimits,
}

/// Where an archive goes: what a link names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadSlot {
    team: TeamId,
    hash: String,
}

impl UploadSlot {
    pub(crate) fn new(team: TeamId, hash: String) -> Self {
        Self { team, hash }
    }

    /// Reads the path of a link.
    fn parse(path: &str) -> Option<Self> {
        let (team, hash) = path.split_once('/')?;
        let id: TeamId = team.parse().ok()?;
        (id.to_string() == team && is_hash(hash)).then(|| Self::new(id, hash.to_owned()))
    }

    fn path(&self) -> String {
        format!("{}/{}", self.team, self.hash)
    }
}

/// Parameters of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadLink {
    /// What it is for.
    pub path: String,
    /// When it ends, in seconds since the epoch.
    pub expires: i64,
    /// Proof that this server made it.
    pub signature: String,
}

fn sign(key: &Secret, path: &str, expires: i64) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    // Sandbox ids, which the same key signs, hold no colon.
    mac.update(format!("upload:{path}:{expires}").as_bytes());
    Secret::new(hex::encode(mac.finalize().into_bytes()))
}

impl UploadLink {
    pub(crate) fn new(key: &Secret, slot: &UploadSlot, now: Timestamp) -> Self {
        let path = slot.path();
        let life = i64::try_from(LINK_LIFE.as_secs()).unwrap_or(i64::MAX);
        let expires = now.as_second().saturating_add(life);
        let signature = sign(key, &path, expires).expose().to_owned();
        Self {
            path,
            expires,
            signature,
        }
    }

    pub(crate) fn check(&self, key: &Secret, now: Timestamp) -> Result<UploadSlot, UploadError> {
        let slot = UploadSlot::parse(&self.path).ok_or(UploadError::Path)?;
        if !sign(key, &self.path, self.expires).matches(&self.signature) {
            return Err(UploadError::Signature);
        }
        if self.expires < now.as_second() {
            return Err(UploadError::Expired);
        }
        Ok(slot)
    }
}

impl Archives {
    pub(crate) fn new(dir: PathBuf, limits: ArchiveLimits) -> Self {
        Self { dir, limits }
    }

    fn file(&self, team: TeamId, hash: &str) -> PathBuf {
        self.dir.join(team.to_string()).join(hash)
    }

    /// The archive, if it is there. Counts as use.
    pub(crate) async fn find(&self, team: TeamId, hash: &str) -> io::Result<Option<PathBuf>> {
        if !is_hash(hash) {
            return Ok(None);
        }
        let path = self.file(team, hash);
        let file = match OpenOptions::new().append(true).open(&path).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        file.into_std().await.set_modified(SystemTime::now())?;
        Ok(Some(path))
    }

    /// Begins an upload of exactly `length` bytes.
    pub(crate) async fn begin(&self, slot: UploadSlot, length: u64) -> Result<Upload, UploadError> {
        let limit = self.limits.max_bytes;
        if length > limit {
            return Err(UploadError::TooLarge { limit });
        }
        let path = self.file(slot.team, &slot.hash);
        let dir = path.parent().unwrap_or(&self.dir).to_owned();
        fs::create_dir_all(&dir).await.map_err(UploadError::Disk)?;
        let room = rustix::fs::statvfs(&dir).map_err(|error| UploadError::Disk(error.into()))?;
        if room.f_bavail.saturating_mul(room.f_frsize) < length.saturating_add(RESERVE) {
            return Err(UploadError::NoRoom);
        }
        let temporary = dir.join(format!("{PARTIAL}{}", Uuid::new_v4()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .await
            .map_err(UploadError::Disk)?;
        Ok(Upload {
            file: Some(file),
            temporary: Temporary(temporary),
            path,
            left: length,
        })
    }

    /// Removes what uploads left behind, and archives that were not used for long or are
    /// more than there is room for. Blocks on the disk.
    pub(crate) fn sweep(&self) -> io::Result<()> {
        let now = SystemTime::now();
        let mut kept = Vec::new();
        let mut total = 0;
        for path in files(&self.dir)? {
            let metadata = match std::fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            let age = now.duration_since(metadata.modified()?).unwrap_or_default();
            let name = path.file_name().and_then(|name| name.to_str());
            let is_partial = name.is_some_and(|name| name.starts_with(PARTIAL));
            if is_partial && age > UPLOAD_LIFE || !is_partial && age > self.limits.unused {
                remove(&path)?;
            } else if !is_partial {
                total += metadata.len();
                kept.push((age, metadata.len(), path));
            }
        }
        kept.sort_by_key(|(age, ..)| std::cmp::Reverse(*age));
        for (age, size, path) in kept {
            if total <= self.limits.total_bytes || age < MIN_AGE {
                break;
            }
            remove(&path)?;
            total -= size;
        }
        Ok(())
    }

    /// Removes what uploads of an earlier run of the server left behind. Blocks on the disk.
    pub(crate) fn sweep_partial(&self) -> io::Result<()> {
        for path in files(&self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(PARTIAL)) {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// The files of all teams.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let teams = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        teams => teams?,
    };
    for team in teams {
        for file in std::fs::read_dir(team?.path())? {
            files.push(file?.path());
        }
    }
    Ok(files)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file that is removed unless it got its name.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!(%error, path = %self.0.display(), "half an upload is left");
        }
    }
}

/// An upload under way. Dropped before its end it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    file: Option<File>,
    temporary: Temporary,
    path: PathBuf,
    left: u64,
}

impl Upload {
    /// Adds bytes.
    ///
    /// # Errors
    /// [`UploadError`] if there are more than were announced, or the disk fails.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        let length = bytes.len() as u64;
        self.left = self.left.checked_sub(length).ok_or(UploadError::Length)?;
        match &mut self.file {
            Some(file) => file.write_all(bytes).await.map_err(UploadError::Disk),
            None => Ok(()),
        }
    }

    /// Makes the archive present, whole and on the disk.
    ///
    /// # Errors
    /// [`UploadError`] if bytes are missing, or the disk fails.
    pub async fn finish(mut self) -> Result<(), UploadError> {
        if self.left != 0 {
            return Err(UploadError::Length);
        }
        if let Some(mut file) = self.file.take() {
            file.flush().await.map_err(UploadError::Disk)?;
            file.sync_data().await.map_err(UploadError::Disk)?;
        }
        fault::point("upload.written");
        let renamed = fs::rename(&self.temporary.0, &self.path).await;
        renamed.map_err(UploadError::Disk)?;
        if let Some(dir) = self.path.parent() {
            let dir = File::open(dir).await.map_err(UploadError::Disk)?;
            dir.sync_all().await.map_err(UploadError::Disk)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn archives(dir: &Path, limits: ArchiveLimits) -> Archives {
        Archives::new(dir.join("blobs"), limits)
    }

    fn hash(digit: char) -> String {
        std::iter::repeat_n(digit, 64).collect()
    }

    #[tokio::test]
    async fn only_a_whole_upload_is_present() {
        let dir = tempfile::tempdir().unwrap();
        let archives = archives(dir.path(), ArchiveLimits::default());
        let team = TeamId::random();
        let slot = UploadSlot::new(team, hash('a'));
        let mut short = archives.begin(slot.clone(), 4).await.unwrap();
        short.write(b"abc").await.unwrap();
        assert!(matches!(short.finish().await, Err(UploadError::Length)));
        let mut long = archives.begin(slot.clone(), 2).await.unwrap();
        assert!(matches!(long.write(b"abc").await, Err(UploadError::Length)));
        drop(long);
        assert_eq!(archives.find(team, &hash('a')).await.unwrap(), None);
        assert!(files(&archives.dir).unwrap().is_empty(), "nothing is left");
        let mut whole = archives.begin(slot, 3).await.unwrap();
        whole.write(b"ab").await.unwrap();
        whole.write(b"c").await.unwrap();
        whole.finish().await.unwrap();
        let path = archives.find(team, &hash('a')).await.unwrap().unwrap();
        assert_eq!(std::fs::read(path).unwrap(), b"abc");
        let other = TeamId::random();
        assert_eq!(archives.find(other, &hash('a')).await.unwrap(), None);
    }

    #[tokio::test]
    async fn large_ones_are_refused_before_a_byte_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let limits = ArchiveLimits {
            max_bytes: 3,
            ..ArchiveLimits::default()
        };
        let archives = archives(dir.path(), limits);
        let slot = UploadSlot::new(TeamId::random(), hash('a'));
        let refused = archives.begin(slot, 4).await;
        assert!(matches!(refused, Err(UploadError::TooLarge { limit: 3 })));
    }

    #[tokio::test]
    async fn unused_and_excess_archives_go_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let limits = ArchiveLimits {
            total_bytes: 5,
            ..ArchiveLimits::default()
        };
        let archives = archives(dir.path(), limits);
        let team = TeamId::random();
        let days = |days: u64| SystemTime::now() - Duration::from_secs(days * 24 * 3600);
        for (name, age) in [('a', 20), ('b', 3), ('c', 2), ('d', 0), ('e', 0)] {
            let slot = UploadSlot::new(team, hash(name));
            let mut upload = archives.begin(slot, 2).await.unwrap();
            upload.write(b"xy").await.unwrap();
            upload.finish().await.unwrap();
            let path = archives.file(team, &hash(name));
            let file = std::fs::File::options().append(true).open(path).unwrap();
            file.set_modified(days(age)).unwrap();
        }
        archives.sweep().unwrap();
        let mut left: Vec<_> = files(&archives.dir).unwrap();
        left.sort();
        assert_eq!(
            left,
            ['d', 'e'].map(|name| archives.file(team, &hash(name))),
            "a was unused for long, b and c were too many"
        );
    }

    #[tokio::test]
    async fn what_a_killed_server_left_of_an_upload_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let archives = archives(dir.path(), ArchiveLimits::default());
        archives.sweep_partial().unwrap();
        let slot = UploadSlot::new(TeamId::random(), hash('a'));
        let mut cut = archives.begin(slot, 4).await.unwrap();
        cut.write(b"ab").await.unwrap();
        assert_eq!(files(&archives.dir).unwrap().len(), 1);
        archives.sweep().unwrap();
        assert_eq!(files(&archives.dir).unwrap().len(), 1, "it may go on");
        archives.sweep_partial().unwrap();
        assert!(files(&archives.dir).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn only_a_team_and_a_hash_are_a_path(path in "\\PC{0,120}") {
            prop_assert_eq!(UploadSlot::parse(&path), None);
        }

        #[test]
        fn a_path_reads_back(team in any::<u128>(), hash in "[0-9a-f]{64}") {
            let slot = UploadSlot::new(uuid::Uuid::from_u128(team).into(), hash);
            prop_assert_eq!(UploadSlot::parse(&slot.path()), Some(slot));
        }
    }

    #[test]
    fn links_are_checked() {
        let key = Secret::new("k".to_owned());
        let now = Timestamp::from_second(1_000_000).unwrap();
        let slot = UploadSlot::new(TeamId::random(), hash('0'));
        let link = UploadLink::new(&key, &slot, now);
        assert_eq!(link.check(&key, now).unwrap(), slot);
        let later = Timestamp::from_second(1_000_000 + 1801).unwrap();
        assert!(matches!(link.check(&key, later), Err(UploadError::Expired)));
        let stretched = UploadLink {
            expires: link.expires + 1,
            ..link.clone()
        };
        let refused = stretched.check(&key, now);
        assert!(matches!(refused, Err(UploadError::Signature)));
        let other = Secret::new("other".to_owned());
        let refused = link.check(&other, now);
        assert!(matches!(refused, Err(UploadError::Signature)));
        for path in ["", "../x", "a/b", &format!("{}/../x", slot.team)] {
            let escaping = UploadLink {
                path: path.to_owned(),
                ..link.clone()
            };
            let refused = escaping.check(&key, now);
            assert!(matches!(refused, Err(UploadError::Path)), "{path}");
        }
    }
}
