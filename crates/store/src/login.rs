//! Sign-ins of people's programs.

use warren_types::UserId;

use crate::error::query;
use crate::{Store, StoreError};

impl Store {
    /// The address of a person; `None` if there is no such person.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_email(&self, user: UserId) -> Result<Option<String>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT email FROM users WHERE id = $1")
            .bind(user.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("look up user"))?;
        Ok(row.map(|(email,)| email))
    }

    /// Deletes the access token with this hash. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_revoke(&self, hash: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM access_tokens WHERE hash = $1")
            .bind(hash)
            .execute(&self.writer)
            .await
            .map_err(query("revoke access token"))?;
        Ok(done.rows_affected() > 0)
    }
}
