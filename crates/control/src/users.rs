//! People: added by the server's operator, put in teams.

use jiff::Timestamp;
use warren_store::{By, Member, Membership, StoreError, TeamRecord, UserRecord};
use warren_types::{Role, TeamId, UserId};

use crate::Control;

/// Longest address.
const MAX_EMAIL: usize = 254;

/// A person with the teams that they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserView {
    /// What is recorded of them.
    pub record: UserRecord,
    /// Their teams, the default one first.
    pub teams: Vec<Membership>,
}

/// Why a request about people was refused.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// Unknown.
    #[error("User not found")]
    NotFound,
    /// Unknown or deleted.
    #[error("Team not found")]
    NoTeam,
    /// Not in this team.
    #[error("the user is not in this team")]
    NoMember,
    /// No address.
    #[error("validation error: email must be an e-mail address")]
    Email,
    /// Known already.
    #[error("a user with the address '{0}' exists already")]
    Taken(String),
    /// The database failed.
    #[error("read or write users")]
    Store(#[from] StoreError),
}

/// Addresses serve as names only: nothing is sent there.
fn is_email(text: &str) -> bool {
    let parts = text.split_once('@');
    text.len() <= MAX_EMAIL
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && parts
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty() && !host.contains('@'))
}

impl Control {
    /// Adds a person.
    ///
    /// # Errors
    /// [`UsersError`]
    pub async fn user_create(&self, by: &By, email: &str) -> Result<UserRecord, UsersError> {
        if !is_email(email) {
            return Err(UsersError::Email);
        }
        let record = UserRecord {
            id: UserId::random(),
            email: email.to_lowercase(),
            created_at: Timestamp::now(),
        };
        if self.store.user_insert(by, &record).await? {
            Ok(record)
        } else {
            Err(UsersError::Taken(record.email))
        }
    }

    /// The person that an id or an address names.
    ///
    /// # Errors
    /// [`UsersError::NotFound`]; [`UsersError::Store`].
    pub async fn user_find(&self, text: &str) -> Result<UserRecord, UsersError> {
        let found = match text.parse() {
            Ok(id) => self.store.user_get(id).await?,
            Err(_) => self.store.user_by_email(&text.to_lowercase()).await?,
        };
        found.ok_or(UsersError::NotFound)
    }

    /// All people, oldest first, with their teams.
    ///
    /// # Errors
    /// [`UsersError::Store`]
    pub async fn user_list(&self) -> Result<Vec<UserView>, UsersError> {
        let mut users = Vec::new();
        for record in self.store.user_list().await? {
            let teams = self.store.membership_list(record.id).await?;
            users.push(UserView { record, teams });
        }
        Ok(users)
    }

    /// The teams that a person is in, the default one first.
    ///
    /// # Errors
    /// [`UsersError::Store`]
    pub async fn memberships(&self, user: UserId) -> Result<Vec<TeamRecord>, UsersError> {
        let places = self.store.membership_list(user).await?;
        Ok(places.into_iter().map(|place| place.team).collect())
    }

    /// Deletes a person with their tokens, which stop working at once. Keys that they made
    /// are the team's and stay.
    ///
    /// # Errors
    /// [`UsersError`]
    pub async fn user_delete(&self, by: &By, id: UserId) -> Result<(), UsersError> {
        if self.store.user_delete(by, id).await? {
            Ok(())
        } else {
            Err(UsersError::NotFound)
        }
    }

    /// Puts a person in a team or changes their role in it.
    ///
    /// # Errors
    /// [`UsersError`]
    pub async fn member_set(
        &self,
        by: &By,
        team: TeamId,
        user: UserId,
        role: Role,
        make_default: bool,
    ) -> Result<(), UsersError> {
        if self.store.team_get(team).await?.is_none() {
            return Err(UsersError::NoTeam);
        }
        if self.store.user_get(user).await?.is_none() {
            return Err(UsersError::NotFound);
        }
        let done = self.store.member_set(by, team, user, role, make_default);
        Ok(done.await?)
    }

    /// Takes a person out of a team.
    ///
    /// # Errors
    /// [`UsersError`]
    pub async fn member_remove(
        &self,
        by: &By,
        team: TeamId,
        user: UserId,
    ) -> Result<(), UsersError> {
        if self.store.member_remove(by, team, user).await? {
            Ok(())
        } else {
            Err(UsersError::NoMember)
        }
    }

    /// The people of a team, by address.
    ///
    /// # Errors
    /// [`UsersError::Store`]
    pub async fn member_list(&self, team: TeamId) -> Result<Vec<Member>, UsersError> {
        Ok(self.store.member_list(team).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::is_email;

    #[test]
    fn addresses_have_two_parts() {
        assert!(is_email("a@b"));
        for bad in ["", "a", "@b", "a@", "a@b@c", "a b@c", "a@b\n"] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
