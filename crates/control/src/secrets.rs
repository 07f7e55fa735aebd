//! Secrets of teams: written by clients, never shown to them, and sealed before they are
//! stored. Only the broker of outgoing connections reads them.

use std::collections::BTreeMap;
use std::fmt::Debug;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use rand::Rng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use warren_service::Secret;
use warren_store::{SecretRecord, StoreError};
use warren_types::TeamId;

use crate::paging::{self, Cursor};
use crate::{Caller, Control, PageError};

/// Secrets of a team.
const MAX_SECRETS: i64 = 1000;
const MAX_NAME: usize = 128;
/// A value becomes part of a header.
const MAX_VALUE: usize = 64 * 1024;
const MAX_NOTES: usize = 32;
const MAX_NOTE_KEY: usize = 128;
const MAX_NOTE_VALUE: usize = 1024;
const MAX_NOTES_TOGETHER: usize = 8192;
const ID_PREFIX: &str = "sec_";
/// Letter of the list's cursor.
const ORDER: char = 's';
/// First byte of what [`LocalKey`] seals.
const FORMAT: u8 = 1;

/// Why a use case of secrets failed.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// This server keeps none.
    #[error("Secrets are not available for this team")]
    Disabled,
    /// A name, value or note that can't be.
    #[error("Invalid secrets request")]
    Invalid,
    /// Unknown, or another team's.
    #[error("Secret not found")]
    NotFound,
    /// The name is taken, or somebody else changes it.
    #[error("Secret cannot be modified in its current state")]
    State,
    /// The team has its fill.
    #[error("secret limit reached ({MAX_SECRETS})")]
    TooMany,
    /// A bad page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// The database failed.
    #[error("read secrets")]
    Store(#[from] StoreError),
    /// The key failed.
    #[error("Secrets backend error")]
    Seal(#[from] SealError),
}

/// A value could not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The bytes were not sealed with this key for this place.
    #[error("a sealed value can't be opened: another key, or it was changed")]
    Open,
    /// The key can't seal.
    #[error("a value can't be sealed")]
    Seal,
}

/// Seals values, as a key management service does: the key itself never leaves it.
#[async_trait]
pub trait Sealer: Debug + Send + Sync {
    /// Seals a value for a place.
    ///
    /// # Errors
    /// [`SealError::Seal`]
    async fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, SealError>;

    /// Opens what was sealed for the same place.
    ///
    /// # Errors
    /// [`SealError::Open`]
    async fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

/// Seals with a key in memory (AES-256-GCM).
pub struct LocalKey(LessSafeKey);

impl Debug for LocalKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}

impl LocalKey {
    /// Reads a key of 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &Secret) -> Option<Self> {
        let bytes = hex::decode(text.expose().trim()).ok()?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).ok()?;
        Some(Self(LessSafeKey::new(key)))
    }
}

#[async_trait]
impl Sealer for LocalKey {
    async fn seal(&self, place: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_LEN] = rand::rng().random();
        let mut sealed = value.to_vec();
        let aad = Aad::from(place.as_bytes());
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| SealError::Seal)?;
        Ok([&[FORMAT][..], &nonce, &sealed].concat())
    }

    async fn open(&self, place: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let sealed = sealed.strip_prefix(&[FORMAT]).ok_or(SealError::Open)?;
        let (nonce, rest) = sealed
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(SealError::Open)?;
        let mut rest = rest.to_vec();
        let aad = Aad::from(place.as_bytes());
        let opened = self
            .0
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut rest)
            .map_err(|_| SealError::Open)?;
        Ok(opened.to_vec())
    }
}

/// What a sealed value is for: it opens nowhere else.
fn place(team: TeamId, id: &str, version: i64) -> String {
    format!("{team}/{id}/{version}")
}

/// The same of the password of a proxy.
fn proxy_place(team: TeamId) -> String {
    format!("{team}/egress-proxy")
}

/// The time, as the database keeps it.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

fn canonical(name: &str) -> Result<String, SecretsError> {
    let name = name.trim().to_ascii_lowercase();
    let is_name = (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with(ID_PREFIX)
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    is_name.then_some(name).ok_or(SecretsError::Invalid)
}

fn check_value(value: &Secret) -> Result<(), SecretsError> {
    let text = value.expose();
    let fits = !text.is_empty() && text.len() <= MAX_VALUE && !text.contains(['\r', '\n', '\0']);
    fits.then_some(()).ok_or(SecretsError::Invalid)
}

fn check_notes(notes: &BTreeMap<String, String>) -> Result<(), SecretsError> {
    let each = notes
        .iter()
        .all(|(key, value)| key.len() <= MAX_NOTE_KEY && value.len() <= MAX_NOTE_VALUE);
    let together: usize = notes
        .iter()
        .map(|(key, value)| key.len() + value.len())
        .sum();
    let fits = each && notes.len() <= MAX_NOTES && together <= MAX_NOTES_TOGETHER;
    fits.then_some(()).ok_or(SecretsError::Invalid)
}

impl Control {
    fn sealer(&self) -> Result<&dyn Sealer, SecretsError> {
        self.config.sealer.as_deref().ok_or(SecretsError::Disabled)
    }

    /// Keeps a new secret.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_create(
        &self,
        caller: &Caller,
        name: &str,
        value: Secret,
        metadata: BTreeMap<String, String>,
    ) -> Result<SecretRecord, SecretsError> {
        let (sealer, team) = (self.sealer()?, caller.team.id);
        let name = canonical(name)?;
        check_value(&value)?;
        check_notes(&metadata)?;
        if self.store.secret_count(team).await? >= MAX_SECRETS {
            return Err(SecretsError::TooMany);
        }
        let id = format!(
            "{ID_PREFIX}{}",
            hex::encode(rand::rng().random::<[u8; 12]>())
        );
        let version = 1;
        let now = now();
        let record = SecretRecord {
            sealed: sealer
                .seal(&place(team, &id, version), value.expose().as_bytes())
                .await?,
            id,
            team_id: team,
            name,
            version,
            metadata,
            created_at: now,
            updated_at: now,
        };
        if self.store.secret_insert(&record).await? {
            Ok(record)
        } else {
            Err(SecretsError::State)
        }
    }

    /// A secret of the caller's team, by id or name.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_get(
        &self,
        caller: &Caller,
        id_or_name: &str,
    ) -> Result<SecretRecord, SecretsError> {
        self.sealer()?;
        let wanted = id_or_name.trim().to_ascii_lowercase();
        let found = self.store.secret_find(caller.team.id, &wanted).await?;
        found.ok_or(SecretsError::NotFound)
    }

    /// A page of secrets, newest first, and the cursor of the next one.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_list(
        &self,
        caller: &Caller,
        limit: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<(Vec<SecretRecord>, Option<String>), SecretsError> {
        self.sealer()?;
        let limit = paging::limit(limit)?;
        let after = cursor.map(|text| Cursor::decode(text, ORDER)).transpose()?;
        let after = after.as_ref().map(|cursor| (cursor.at, cursor.id.as_str()));
        let mut page = self
            .store
            .secret_page(caller.team.id, after, limit + 1)
            .await?;
        let is_more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| is_more).map(|last| {
            let cursor = Cursor {
                at: last.created_at,
                id: last.id.clone(),
                order: ORDER,
            };
            cursor.encode()
        });
        Ok((page, next))
    }

    /// Gives a secret a new value; notes that are not given stay. Connections that are made
    /// from here on get the new value.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_update(
        &self,
        caller: &Caller,
        id_or_name: &str,
        value: Secret,
        metadata: Option<BTreeMap<String, String>>,
    ) -> Result<SecretRecord, SecretsError> {
        check_value(&value)?;
        if let Some(notes) = &metadata {
            check_notes(notes)?;
        }
        let mut record = self.secret_get(caller, id_or_name).await?;
        record.version += 1;
        let place = place(record.team_id, &record.id, record.version);
        record.sealed = self
            .sealer()?
            .seal(&place, value.expose().as_bytes())
            .await?;
        record.metadata = metadata.unwrap_or(record.metadata);
        record.updated_at = now();
        if self.store.secret_update(&record).await? {
            Ok(record)
        } else {
            Err(SecretsError::State)
        }
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_delete(
        &self,
        caller: &Caller,
        id_or_name: &str,
    ) -> Result<(), SecretsError> {
        self.sealer()?;
        let wanted = id_or_name.trim().to_ascii_lowercase();
        let deleted = self.store.secret_delete(caller.team.id, &wanted).await?;
        deleted.then_some(()).ok_or(SecretsError::NotFound)
    }

    /// Seals the password of a proxy, as text.
    pub(crate) async fn seal_proxy_password(
        &self,
        team: TeamId,
        password: &Secret,
    ) -> Result<String, SecretsError> {
        let bytes = password.expose().as_bytes();
        let sealed = self.sealer()?.seal(&proxy_place(team), bytes).await?;
        Ok(BASE64.encode(sealed))
    }

    /// The password of a proxy, for the broker alone.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn proxy_password(&self, team: TeamId, sealed: &str) -> Result<Secret, SecretsError> {
        let sealed = BASE64.decode(sealed).map_err(|_| SealError::Open)?;
        let opened = self.sealer()?.open(&proxy_place(team), &sealed).await?;
        let text = String::from_utf8(opened).map_err(|_| SealError::Open)?;
        Ok(Secret::new(text))
    }

    /// The value of a team's secret, for the broker alone.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn secret_reveal(&self, team: TeamId, name: &str) -> Result<Secret, SecretsError> {
        let sealer = self.sealer()?;
        let name = name.to_ascii_lowercase();
        let found = self.store.secret_find(team, &name).await?;
        let record = found.ok_or(SecretsError::NotFound)?;
        let place = place(team, &record.id, record.version);
        let value = sealer.open(&place, &record.sealed).await?;
        let text = String::from_utf8(value).map_err(|_| SealError::Open)?;
        Ok(Secret::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> LocalKey {
        LocalKey::from_hex(&Secret::new(digit.repeat(64))).unwrap()
    }

    #[tokio::test]
    async fn a_value_opens_only_with_its_key_in_its_place() {
        let sealed = key("a").seal("here", b"value").await.unwrap();
        assert!(!sealed.windows(5).any(|part| part == b"value"));
        assert_eq!(key("a").open("here", &sealed).await.unwrap(), b"value");
        assert!(key("a").open("there", &sealed).await.is_err());
        assert!(key("b").open("here", &sealed).await.is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key("a").open("here", &changed).await.is_err(), "{at}");
            assert!(key("a").open("here", &sealed[..at]).await.is_err(), "{at}");
        }
        assert_ne!(key("a").seal("here", b"value").await.unwrap(), sealed);
        assert!(LocalKey::from_hex(&Secret::new("ab".to_owned())).is_none());
    }

    #[test]
    fn names_values_and_notes_are_bounded() {
        assert_eq!(canonical(" My-Key_1 ").unwrap(), "my-key_1");
        for bad in ["", "a b", "sec_x", "SEC_x", "é", &"x".repeat(129)] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
        for bad in ["", "a\nb", "a\rb", &"x".repeat(MAX_VALUE + 1)] {
            assert!(check_value(&Secret::new(bad.to_owned())).is_err());
        }
        let notes = |count: usize, size: usize| -> BTreeMap<String, String> {
            (0..count)
                .map(|number| (number.to_string(), "x".repeat(size)))
                .collect()
        };
        assert!(check_notes(&notes(32, 100)).is_ok());
        for bad in [notes(33, 1), notes(1, 1025), notes(20, 1000)] {
            assert!(check_notes(&bad).is_err());
        }
    }
}
