//! Access tokens of people. Only hashes are kept.

use jiff::Timestamp;
use serde_json::json;
use sqlx::FromRow;
use warren_types::{AccessTokenId, KeyScope, UserId};

use crate::audit::{self, By, NewAudit};
use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// An access token without its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessTokenRecord {
    /// Its id in routes.
    pub id: AccessTokenId,
    /// The person that it stands for.
    pub user_id: UserId,
    /// What its owner calls it.
    pub name: String,
    /// SHA-256 of the decoded value, in lower-case hex.
    pub hash: String,
    /// First characters of the value, for people to tell tokens apart.
    pub mask_prefix: String,
    /// Last characters of it.
    pub mask_suffix: String,
    /// What it may be used for.
    pub scope: KeyScope,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used, as far as that was written down.
    pub last_used_at: Option<Timestamp>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct TokenRow {
    id: String,
    user_id: String,
    name: String,
    hash: String,
    mask_prefix: String,
    mask_suffix: String,
    scope: String,
    created_at: i64,
    last_used_at: Option<i64>,
    expires_at: Option<i64>,
}

impl TryFrom<TokenRow> for AccessTokenRecord {
    type Error = StoreError;

    fn try_from(row: TokenRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        let moment = |at: Option<i64>, field| at.map(|at| timestamp(at, field, &row.id));
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            user_id: row.user_id.parse().map_err(|_| bad("user_id"))?,
            scope: row.scope.parse().map_err(|_| bad("scope"))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            last_used_at: moment(row.last_used_at, "last_used_at").transpose()?,
            expires_at: moment(row.expires_at, "expires_at").transpose()?,
            name: row.name,
            hash: row.hash,
            mask_prefix: row.mask_prefix,
            mask_suffix: row.mask_suffix,
        })
    }
}

impl Store {
    /// Adds an access token.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails or the hash is known already.
    pub async fn access_token_insert(
        &self,
        by: &By,
        token: &AccessTokenRecord,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "add access token";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let id = token.id.to_string();
        sqlx::query(
            "INSERT INTO access_tokens
             (id, user_id, name, hash, mask_prefix, mask_suffix, scope, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(&id)
        .bind(token.user_id.to_string())
        .bind(&token.name)
        .bind(&token.hash)
        .bind(&token.mask_prefix)
        .bind(&token.mask_suffix)
        .bind(token.scope.as_str())
        .bind(micros(token.created_at))
        .bind(token.expires_at.map(micros))
        .execute(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        let facts = json!({
            "user": token.user_id, "name": token.name, "scope": token.scope,
            "expiresAt": token.expires_at,
        });
        let entry = NewAudit::done(by, "token.create", &id).with(facts);
        audit::write(&mut tx, &entry).await?;
        tx.commit().await.map_err(query(ACTION))
    }

    /// The access token of this hash.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_get(
        &self,
        hash: &str,
    ) -> Result<Option<AccessTokenRecord>, StoreError> {
        let row: Option<TokenRow> = sqlx::query_as("SELECT * FROM access_tokens WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.reader)
            .await
            .map_err(query("look up access token"))?;
        row.map(AccessTokenRecord::try_from).transpose()
    }

    /// The access tokens of a person, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_list(
        &self,
        user: UserId,
    ) -> Result<Vec<AccessTokenRecord>, StoreError> {
        let rows: Vec<TokenRow> = sqlx::query_as(
            "SELECT * FROM access_tokens WHERE user_id = $1 ORDER BY created_at, id",
        )
        .bind(user.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list access tokens"))?;
        rows.into_iter().map(AccessTokenRecord::try_from).collect()
    }

    /// Deletes an access token of a person. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn access_token_delete(
        &self,
        by: &By,
        user: UserId,
        id: AccessTokenId,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "delete access token";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let text = id.to_string();
        let name: Option<(String,)> = sqlx::query_as(
            "DELETE FROM access_tokens WHERE id = $1 AND user_id = $2 RETURNING name",
        )
        .bind(&text)
        .bind(user.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        let Some((name,)) = name else {
            return Ok(false);
        };
        let facts = json!({ "user": user, "name": name });
        let entry = NewAudit::done(by, "token.delete", &text).with(facts);
        audit::write(&mut tx, &entry).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }
}
