//! Addresses of files that need no further credential.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use url::Url;
use warren_types::ENVD_PORT;

use crate::error::Error;
use crate::http::{base_url, join};
use crate::sandbox::Sandbox;

impl Sandbox {
    /// A URL that a file can be downloaded from with `GET`, by whoever has it: for
    /// `lifetime`, or for as long as the sandbox lives. Relative paths start at the home of
    /// `user`, or of the default user.
    ///
    /// # Errors
    /// [`Error::Url`] if the server named a domain that is none.
    pub fn download_url(
        &self,
        path: &str,
        user: Option<&str>,
        lifetime: Option<Duration>,
    ) -> Result<Url, Error> {
        self.link(path, "read", user, lifetime)
    }

    /// A URL that a file can be uploaded to with `POST`, as [`Self::download_url`].
    ///
    /// # Errors
    /// [`Error::Url`] if the server named a domain that is none.
    pub fn upload_url(
        &self,
        path: &str,
        user: Option<&str>,
        lifetime: Option<Duration>,
    ) -> Result<Url, Error> {
        self.link(path, "write", user, lifetime)
    }

    fn link(
        &self,
        path: &str,
        operation: &str,
        user: Option<&str>,
        lifetime: Option<Duration>,
    ) -> Result<Url, Error> {
        let shared = &self.client().shared;
        let base = match self.host(ENVD_PORT) {
            Some(host) => base_url(&format!("{}://{host}", shared.sandbox_url.scheme()))?,
            None => shared.sandbox_url.clone(),
        };
        let mut url = join(&base, &["files"]);
        url.query_pairs_mut().append_pair("path", path);
        if let Some(user) = user {
            url.query_pairs_mut().append_pair("username", user);
        }
        // Without a token the agent asks for none.
        if let Some(token) = self.envd_access_token() {
            let ends = lifetime.map(|time| {
                let time = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
                Timestamp::now().as_second().saturating_add(time)
            });
            let signature = sign(path, operation, user.unwrap_or_default(), token, ends);
            url.query_pairs_mut().append_pair("signature", &signature);
            if let Some(ends) = ends {
                url.query_pairs_mut()
                    .append_pair("signature_expiration", &ends.to_string());
            }
        }
        Ok(url)
    }
}

fn sign(path: &str, operation: &str, user: &str, token: &str, ends: Option<i64>) -> String {
    let mut input = format!("{path}:{operation}:{user}:{token}");
    if let Some(ends) = ends {
        input.push_str(&format!(":{ends}"));
    }
    let digest = Sha256::digest(input.as_bytes());
    format!("v1_{}", STANDARD_NO_PAD.encode(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_agent() {
        let token = "0123456789abcdef".repeat(4);
        let of = |path, operation, user, ends| sign(path, operation, user, &token, ends);
        assert_eq!(
            of("hello.txt", "read", "user", None),
            "v1_+bx8fOC1KXbgDiT9ueoSvyj6IsQhoCYq4jB18IO7CYc"
        );
        assert_eq!(
            of("hello.txt", "write", "", Some(1_893_456_000)),
            "v1_Ddnxw6cZAHcpI94Rck0xbl0ylzrZQDl8pfprwuXUPMM"
        );
        assert_eq!(
            of("/tmp/a b.txt", "read", "root", Some(1_893_456_000)),
            "v1_XXouMCMJRWg23BU9E79FU38Q7W7VmkoiRrGWGcKDKws"
        );
    }
}
