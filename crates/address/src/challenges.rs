//! What HTTP-01 challenges (RFC 8555, section 8.3) are answered with.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Proofs by token, while their challenges are up. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Challenges(Arc<Mutex<BTreeMap<String, String>>>);

impl Challenges {
    /// Where a service asks for the proof of a token, with the token behind it.
    pub const PATH: &str = "/.well-known/acme-challenge/";

    /// The proof that goes with a token.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<String> {
        self.lock().get(token).cloned()
    }

    pub(crate) fn set(&self, token: &str, proof: &str) {
        self.lock().insert(token.to_owned(), proof.to_owned());
    }

    pub(crate) fn remove(&self, token: &str) {
        self.lock().remove(token);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_is_there_while_its_challenge_is() {
        let challenges = Challenges::default();
        let shared = challenges.clone();
        challenges.set("t", "t.proof");
        assert_eq!(shared.answer("t").as_deref(), Some("t.proof"));
        assert_eq!(shared.answer("other"), None);
        shared.remove("t");
        assert_eq!(challenges.answer("t"), None);
    }
}
