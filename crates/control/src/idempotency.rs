//! One execution for repeated requests.

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use warren_service::Chain;
use warren_store::{IdempotencyClaim, StoredAnswer};

use crate::{Caller, Control, IdempotencyError};

/// Longest key.
const MAX_KEY: usize = 255;

/// What to do with a request that carries a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Execution {
    /// Execute it, then call [`Control::idempotency_finish`].
    Run,
    /// It was answered before.
    Replay(StoredAnswer),
}

impl Control {
    /// Claims a key for a request. `request` is the same text for equal requests: method,
    /// target and parsed body.
    ///
    /// # Errors
    /// [`IdempotencyError`]
    pub async fn idempotency_begin(
        &self,
        caller: &Caller,
        key: &str,
        request: &str,
    ) -> Result<Execution, IdempotencyError> {
        let is_valid = key
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if key.is_empty() || key.len() > MAX_KEY || !is_valid {
            return Err(IdempotencyError::Key);
        }
        let fingerprint = hex::encode(Sha256::digest(request));
        let claim = self
            .store
            .idempotency_claim(caller.team.id, key, &fingerprint, Timestamp::now())
            .await?;
        match claim {
            IdempotencyClaim::Claimed => Ok(Execution::Run),
            IdempotencyClaim::Answered(answer) => Ok(Execution::Replay(answer)),
            IdempotencyClaim::Running => Err(IdempotencyError::InProgress),
            IdempotencyClaim::Unknown => Err(IdempotencyError::Unknown),
            IdempotencyClaim::Mismatch => Err(IdempotencyError::Mismatch),
        }
    }

    /// Keeps the answer of a claimed key. One that a retry may change (429 and server
    /// errors, behind which nothing was made) is not kept: the key is given back.
    pub async fn idempotency_finish(&self, caller: &Caller, key: &str, answer: &StoredAnswer) {
        let team = caller.team.id;
        let written = if answer.status == 429 || answer.status >= 500 {
            self.store.idempotency_release(team, key).await
        } else {
            self.store.idempotency_complete(team, key, answer).await
        };
        // The request itself is answered all the same.
        if let Err(error) = written {
            tracing::error!(error = %Chain(&error), "an idempotent answer was not kept");
        }
    }
}
