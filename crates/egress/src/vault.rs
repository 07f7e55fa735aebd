//! What the broker needs of whoever keeps secrets.

use std::error::Error;
use std::fmt::Debug;

use async_trait::async_trait;
use warren_service::Secret;
use warren_types::SandboxId;

/// Why a value is not there.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// Nothing of that name is kept.
    #[error("it does not exist")]
    Missing,
    /// It could not be read; the cause is not for sandboxes.
    #[error("it can't be read now")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
}

/// Gives values at the moment in which they leave, never earlier. `owner` is what the rules
/// say.
#[async_trait]
pub trait Vault: Debug + Send + Sync {
    /// The current value of a secret.
    ///
    /// # Errors
    /// [`VaultError`]
    async fn secret(&self, owner: &str, name: &str) -> Result<Secret, VaultError>;

    /// A fresh token that says which sandbox asks, for an audience.
    ///
    /// # Errors
    /// [`VaultError`]
    async fn token(
        &self,
        owner: &str,
        sandbox: &SandboxId,
        audience: &str,
    ) -> Result<Secret, VaultError>;

    /// Opens the password of a proxy.
    ///
    /// # Errors
    /// [`VaultError`]
    async fn proxy_password(&self, owner: &str, sealed: &str) -> Result<Secret, VaultError>;
}
