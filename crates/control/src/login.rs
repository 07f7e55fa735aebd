//! Sign-ins of programs on people's machines, given in the browser.

use jiff::Timestamp;
use warren_service::Secret;
use warren_store::StoreError;

use crate::auth::{TOKEN_PREFIX, hash};
use crate::teams::{digits, hash_of};
use crate::{AuthError, Caller, Control};

/// Name of the tokens of such sign-ins.
const NAME: &str = "command line";
/// Host part of the address of whoever signs in with a team's key and is nobody else. The
/// name is reserved, so no person has it.
const NOBODY: &str = "team.localhost";

/// What a program gets to act as a person.
#[derive(Debug, Clone)]
pub struct ProgramLogin {
    /// The address of the person, or one that stands for the team.
    pub email: String,
    /// An access token.
    pub token: Secret,
}

impl Control {
    /// Makes an access token for a program of whoever calls. A caller with a key is no known
    /// person: the token is then of one who is in the key's team only.
    ///
    /// # Errors
    /// [`AuthError`] if the caller's person has gone, or the database fails.
    pub async fn program_login(&self, caller: &Caller) -> Result<ProgramLogin, AuthError> {
        let Some(user) = caller.user else {
            let email = format!("{}@{NOBODY}", caller.team.slug);
            let token = self
                .access_token_create(&email, caller.team.id, NAME)
                .await?;
            return Ok(ProgramLogin { email, token });
        };
        let email = self.store.user_email(user).await?;
        let email = email.ok_or(AuthError::AccessToken)?;
        let digits = digits();
        self.store
            .access_token_insert(user, NAME, &hash_of(&digits), Timestamp::now())
            .await?;
        let token = Secret::new(format!("{TOKEN_PREFIX}{digits}"));
        Ok(ProgramLogin { email, token })
    }

    /// Ends such a sign-in: the token stops working at once. Returns whether it had worked.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn program_logout(&self, token: &str) -> Result<bool, StoreError> {
        let hashed = token.trim().strip_prefix(TOKEN_PREFIX).and_then(hash);
        match hashed {
            Some(hash) => self.store.access_token_revoke(&hex::encode(hash)).await,
            None => Ok(false),
        }
    }
}
