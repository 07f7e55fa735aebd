//! Tokens of a sandbox, derived from its id so that they never change during its life.
//! Nodes hand them to agents, use cases to clients; both derive them here.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use warren_service::Secret;
use warren_types::SandboxId;

fn derive(key: &Secret, text: &str) -> Secret {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    Secret::new(hex::encode(mac.finalize().into_bytes()))
}

/// The token that the agent of `id` requires.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn access(key: &Secret, id: &SandboxId) -> Secret {
    derive(key, id.as_str())
}

/// The token that the other ports of `id` require when public traffic is off.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn traffic(key: &Secret, id: &SandboxId) -> Secret {
    derive(key, &format!("sandbox-traffic-{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_stable_and_differ_by_use_and_sandbox() {
        let key = Secret::new("k".to_owned());
        let (a, b) = (SandboxId::random(), SandboxId::random());
        assert_eq!(access(&key, &a).expose(), access(&key, &a).expose());
        assert_eq!(access(&key, &a).expose().len(), 64);
        assert!(!access(&key, &a).matches(access(&key, &b).expose()));
        assert!(!access(&key, &a).matches(traffic(&key, &a).expose()));
    }
}
