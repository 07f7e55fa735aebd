//! Sign-ins of programs on people's machines, given in the browser.

use jiff::Timestamp;
use warren_service::Secret;
use warren_store::{Actor, By, StoreError, UserRecord};
use warren_types::{Role, UserId};

use crate::auth::{TOKEN_PREFIX, hash};
use crate::keys::NewKey;
use crate::{AuthError, Caller, Control, KeysError};

/// Name of the tokens of such sign-ins.
const NAME: &str = "command line";
/// Such tokens kept for a person: each sign-in makes one, and the oldest give way.
const MOST: usize = 50;
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

/// The address of the person who stands for whoever has a key of a team.
pub(crate) fn stand_in(slug: &str) -> String {
    format!("{slug}@{NOBODY}")
}

impl Control {
    /// Makes an access token for a program of whoever calls. A caller with a key is no known
    /// person: the token is then of one who is in the key's team only. It may do no more
    /// than what was shown, and for no longer.
    ///
    /// # Errors
    /// [`AuthError`] if the caller's person has gone, or the database fails.
    pub async fn program_login(&self, caller: &Caller) -> Result<ProgramLogin, AuthError> {
        let by = By {
            actor: caller.actor,
            request_id: None,
            origin: None,
        };
        let user = match caller.user {
            Some(user) => self.store.user_get(user).await?,
            None => Some(self.nobody_of(caller, &by).await?),
        };
        let user = user.ok_or(AuthError::AccessToken)?;
        self.expire_logins(&by, user.id).await?;
        let new = NewKey {
            scope: caller.scope,
            expires_at: caller.expires_at,
            ..NewKey::named(NAME)
        };
        match self.token_create(&by, user.id, new).await {
            Ok(made) => Ok(ProgramLogin {
                email: user.email,
                token: made.clear,
            }),
            Err(KeysError::Store(error)) => Err(error.into()),
            Err(KeysError::Expiry) => Err(AuthError::Expired),
            Err(_) => Err(AuthError::TooManyKeys),
        }
    }

    /// The person who stands for whoever has a key of the caller's team.
    async fn nobody_of(&self, caller: &Caller, by: &By) -> Result<UserRecord, StoreError> {
        let email = stand_in(&caller.team.slug);
        let known = match self.store.user_by_email(&email).await? {
            Some(known) => known,
            None => {
                let record = UserRecord {
                    id: UserId::random(),
                    email: email.clone(),
                    created_at: Timestamp::now(),
                };
                self.store.user_insert(by, &record).await?;
                // Another sign-in may have been faster; its person counts.
                self.store.user_by_email(&email).await?.unwrap_or(record)
            }
        };
        let teams = self.store.membership_list(known.id).await?;
        if !teams.iter().any(|place| place.team.id == caller.team.id) {
            let (team, role) = (caller.team.id, Role::Member);
            self.store
                .member_set(by, team, known.id, role, true)
                .await?;
        }
        Ok(known)
    }

    async fn expire_logins(&self, by: &By, user: UserId) -> Result<(), StoreError> {
        let mut tokens = self.store.access_token_list(user).await?;
        tokens.retain(|token| token.name == NAME);
        let excess = (tokens.len() + 1).saturating_sub(MOST);
        for token in tokens.iter().take(excess) {
            self.store.access_token_delete(by, user, token.id).await?;
        }
        Ok(())
    }

    /// Ends such a sign-in: the token stops working at once. Returns whether it had worked.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn program_logout(&self, token: &str) -> Result<bool, StoreError> {
        let hashed = token.trim().strip_prefix(TOKEN_PREFIX).and_then(hash);
        let Some(hash) = hashed else {
            return Ok(false);
        };
        let Some(token) = self.store.access_token_get(&hex::encode(hash)).await? else {
            return Ok(false);
        };
        let by = By {
            actor: Actor::User(token.user_id),
            request_id: None,
            origin: None,
        };
        let (user, id) = (token.user_id, token.id);
        self.store.access_token_delete(&by, user, id).await
    }
}
