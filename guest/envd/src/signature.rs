//! Signed URLs: what the platform hands to browsers instead of the access token.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What a signature permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Download.
    Read,
    /// Upload.
    Write,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Computes the signature for a path and user as they stand in the query, and an optional
/// expiration in Unix seconds.
#[must_use]
pub fn sign(
    path: &str,
    operation: Operation,
    username: &str,
    token: &str,
    expiration: Option<i64>,
) -> String {
    let mut input = format!("{path}:{}:{username}:{token}", operation.name());
    if let Some(expiration) = expiration {
        input.push_str(&format!(":{expiration}"));
    }
    format!("v1_{}", STANDARD_NO_PAD.encode(Sha256::digest(input)))
}

/// Compares two texts in time that depends on their lengths only.
#[must_use]
pub fn equal(a: &str, b: &str) -> bool {
    a.as_bytes().ct_eq(b.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_contract() {
        let token = "0123456789abcdef".repeat(4);
        let vectors = [
            (
                "hello.txt",
                Operation::Read,
                "user",
                None,
                "v1_+bx8fOC1KXbgDiT9ueoSvyj6IsQhoCYq4jB18IO7CYc",
            ),
            (
                "hello.txt",
                Operation::Write,
                "",
                Some(1_893_456_000),
                "v1_Ddnxw6cZAHcpI94Rck0xbl0ylzrZQDl8pfprwuXUPMM",
            ),
            (
                "/tmp/a b.txt",
                Operation::Read,
                "root",
                Some(1_893_456_000),
                "v1_XXouMCMJRWg23BU9E79FU38Q7W7VmkoiRrGWGcKDKws",
            ),
        ];
        for (path, operation, user, expiration, expected) in vectors {
            assert_eq!(sign(path, operation, user, &token, expiration), expected);
        }
    }

    #[test]
    fn equality_is_exact() {
        assert!(equal("v1_a", "v1_a"));
        assert!(!equal("v1_a", "v1_b") && !equal("v1_a", "v1_"));
    }
}
