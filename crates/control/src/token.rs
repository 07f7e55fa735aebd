//! Tokens of a sandbox, derived from its id; the node derives the same.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use warren_service::Secret;
use warren_types::SandboxId;

fn derive(key: &Secret, text: &str) -> Secret {
    // The clear key is the HMAC's key.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    Secret::new(hex::encode(mac.finalize().into_bytes()))
}

/// The token that the agent of `id` requires.
pub(crate) fn access(key: &Secret, id: &SandboxId) -> Secret {
    derive(key, id.as_str())
}

/// The token that the other ports of `id` require when public traffic is off.
pub(crate) fn traffic(key: &Secret, id: &SandboxId) -> Secret {
    derive(key, &format!("sandbox-traffic-{id}"))
}
