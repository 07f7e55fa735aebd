//! How a receiver knows that an event is ours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use warren_service::Secret;

/// Header of [`plain`].
pub const SIGNATURE: &str = "e2b-signature";
/// Header of [`timed`].
pub const TIMED_SIGNATURE: &str = "warren-signature";

/// The signature that receivers written for E2B check: base64 without padding of the SHA-256
/// of secret and body.
#[must_use]
pub fn plain(secret: &Secret, body: &[u8]) -> String {
    let hash = Sha256::new()
        .chain_update(secret.expose().as_bytes())
        .chain_update(body);
    STANDARD_NO_PAD.encode(hash.finalize())
}

/// `t=SECONDS,v1=HEX`: the HMAC-SHA-256 under the secret of the time, a dot and the body. It
/// can't be extended, and the receiver can tell an old delivery that somebody repeats.
///
/// # Panics
/// Never: HMAC takes keys of any length.
#[must_use]
pub fn timed(secret: &Secret, unix_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes keys of any length");
    mac.update(unix_s.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix_s},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_what_the_documentation_computes() {
        let secret = Secret::new("secret".to_owned());
        // python3: base64.b64encode(hashlib.sha256(b'secret{"a":1}').digest()).rstrip(b"=")
        assert_eq!(
            plain(&secret, br#"{"a":1}"#),
            "N7005LKS7534v+cOP1BSYTkklJDDwllM8gF1unZl4B0"
        );
        // python3: hmac.new(b"secret", b'7.{"a":1}', "sha256").hexdigest()
        assert_eq!(
            timed(&secret, 7, br#"{"a":1}"#),
            "t=7,v1=58451c5c8058db6fb5fe79fcdbd8895233b97d50ebe3d2035ced4bab8357d0ba"
        );
    }
}
