//! Uploads of the archives that copies take from.

use jiff::Timestamp;

use super::archive::{Upload, UploadLink, UploadSlot, is_hash};
use super::error::{FilesError, UploadError};
use crate::{Caller, Control};

/// Whether an archive is there, and how to upload it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilesAnswer {
    /// Whether the team has uploaded it before.
    pub present: bool,
    /// Where it can be uploaded, again too.
    pub link: UploadLink,
}

impl Control {
    /// Whether the caller's team has an archive of this hash, and a link to upload it. The
    /// template must be the team's; which one does not matter.
    ///
    /// # Errors
    /// [`FilesError`].
    pub async fn build_files(
        &self,
        caller: &Caller,
        template: &str,
        hash: &str,
    ) -> Result<FilesAnswer, FilesError> {
        if !is_hash(hash) {
            return Err(FilesError::Hash);
        }
        let unknown = || FilesError::Template(template.to_owned());
        let id = template.parse().map_err(|_| unknown())?;
        let found = self.store.template_get(&id).await?.ok_or_else(unknown)?;
        let team = caller.team.id;
        if found.team_id != team {
            return Err(unknown());
        }
        let builds = self.building.as_ref().ok_or(FilesError::NoBuilder)?;
        let archive = builds.archives.find(team, hash).await;
        let slot = UploadSlot::new(team, hash.to_owned());
        let key = &self.config.token_key;
        Ok(FilesAnswer {
            present: archive.map_err(FilesError::Disk)?.is_some(),
            link: UploadLink::new(key, &slot, Timestamp::now()),
        })
    }

    /// Checks the link of an upload.
    ///
    /// # Errors
    /// [`UploadError`] if it names no archive, is not this server's, or is too old.
    pub fn upload_check(&self, link: &UploadLink) -> Result<UploadSlot, UploadError> {
        link.check(&self.config.token_key, Timestamp::now())
    }

    /// Begins an upload of exactly `length` bytes.
    ///
    /// # Errors
    /// [`UploadError`] if it is too large, there is no room, or the disk fails.
    pub async fn upload_begin(&self, slot: UploadSlot, length: u64) -> Result<Upload, UploadError> {
        let builds = self.building.as_ref().ok_or(UploadError::NoBuilder)?;
        builds.archives.begin(slot, length).await
    }
}
