//! Answers kept for repeated requests.

use jiff::Timestamp;
use warren_types::TeamId;

use crate::error::{malformed, query};
use crate::time::micros;
use crate::{Store, StoreError};

/// An answer given before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAnswer {
    /// HTTP status.
    pub status: u16,
    /// JSON text.
    pub body: String,
}

/// What an idempotency key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdempotencyClaim {
    /// New: the caller executes the request and must complete or release the key.
    Claimed,
    /// It was answered.
    Answered(StoredAnswer),
    /// It is being executed.
    Running,
    /// The server stopped while it was being executed.
    Unknown,
    /// The key belongs to another request.
    Mismatch,
}

impl Store {
    /// Claims a key for the request of this fingerprint, or says what became of it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn idempotency_claim(
        &self,
        team: TeamId,
        key: &str,
        fingerprint: &str,
        at: Timestamp,
    ) -> Result<IdempotencyClaim, StoreError> {
        let action = "claim idempotency key";
        let team = team.to_string();
        let inserted = sqlx::query(
            "INSERT INTO idempotency (team_id, key, fingerprint, outcome, created_at)
             VALUES ($1, $2, $3, 'running', $4) ON CONFLICT (team_id, key) DO NOTHING",
        )
        .bind(&team)
        .bind(key)
        .bind(fingerprint)
        .bind(micros(at))
        .execute(&self.writer)
        .await
        .map_err(query(action))?;
        if inserted.rows_affected() > 0 {
            return Ok(IdempotencyClaim::Claimed);
        }
        let row: Option<(String, String, Option<i64>, Option<String>)> = sqlx::query_as(
            "SELECT fingerprint, outcome, status, body FROM idempotency
             WHERE team_id = $1 AND key = $2",
        )
        .bind(&team)
        .bind(key)
        .fetch_optional(&self.writer)
        .await
        .map_err(query(action))?;
        // Released between the two statements: the other request is still being answered.
        let Some((known, outcome, status, body)) = row else {
            return Ok(IdempotencyClaim::Running);
        };
        if known != fingerprint {
            return Ok(IdempotencyClaim::Mismatch);
        }
        match (outcome.as_str(), status, body) {
            ("running", ..) => Ok(IdempotencyClaim::Running),
            ("unknown", ..) => Ok(IdempotencyClaim::Unknown),
            ("done", Some(status), Some(body)) => {
                let status = u16::try_from(status).map_err(|_| malformed("status", key))?;
                Ok(IdempotencyClaim::Answered(StoredAnswer { status, body }))
            }
            _ => Err(malformed("outcome", key)),
        }
    }

    /// Keeps the answer to a claimed key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn idempotency_complete(
        &self,
        team: TeamId,
        key: &str,
        answer: &StoredAnswer,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE idempotency SET outcome = 'done', status = $3, body = $4
             WHERE team_id = $1 AND key = $2",
        )
        .bind(team.to_string())
        .bind(key)
        .bind(i64::from(answer.status))
        .bind(&answer.body)
        .execute(&self.writer)
        .await
        .map_err(query("complete idempotency key"))?;
        Ok(())
    }

    /// Gives a claimed key back: nothing was done for it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn idempotency_release(&self, team: TeamId, key: &str) -> Result<(), StoreError> {
        sqlx::query(
            "DELETE FROM idempotency WHERE team_id = $1 AND key = $2 AND outcome = 'running'",
        )
        .bind(team.to_string())
        .bind(key)
        .execute(&self.writer)
        .await
        .map_err(query("release idempotency key"))?;
        Ok(())
    }

    /// Marks what an earlier run of the server left unanswered. Call before serving.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn idempotency_abandon(&self) -> Result<(), StoreError> {
        sqlx::query("UPDATE idempotency SET outcome = 'unknown' WHERE outcome = 'running'")
            .execute(&self.writer)
            .await
            .map_err(query("abandon idempotency keys"))?;
        Ok(())
    }

    /// Forgets keys older than `before`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn idempotency_purge(&self, before: Timestamp) -> Result<u64, StoreError> {
        let done =
            sqlx::query("DELETE FROM idempotency WHERE created_at < $1 AND outcome <> 'running'")
                .bind(micros(before))
                .execute(&self.writer)
                .await
                .map_err(query("forget idempotency keys"))?;
        Ok(done.rows_affected())
    }
}
