//! Where the server is.

use std::fmt;
use std::time::Duration;

/// Which server to talk to, and as whom.
#[derive(Clone)]
pub struct Config {
    /// URL of the REST API.
    pub api_url: String,
    /// URL that sandboxes are reached at. Requests name the sandbox in headers, which the
    /// server heeds on `localhost`, addresses and `sandbox.DOMAIN`.
    pub sandbox_url: String,
    /// API key.
    pub api_key: String,
    /// Limit of one call, streams and transfers of files aside.
    pub request_timeout: Duration,
}

impl Config {
    /// A server whose API and sandboxes are reached at the same URL.
    #[must_use]
    pub fn new(url: impl Into<String>, api_key: impl Into<String>) -> Self {
        let api_url = url.into();
        Self {
            sandbox_url: api_url.clone(),
            api_url,
            api_key: api_key.into(),
            request_timeout: Duration::from_secs(60),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("api_url", &self.api_url)
            .field("sandbox_url", &self.sandbox_url)
            .field("api_key", &"***")
            .field("request_timeout", &self.request_timeout)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_not_shown() {
        let config = Config::new("http://127.0.0.1", "e2b_secret");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
