//! Where the server is.

use std::time::Duration;
use std::{env, fmt};

use crate::error::Error;

/// Where a server on this machine listens unless told otherwise.
const LOCAL: &str = "http://127.0.0.1:3000";

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

    /// The server that the environment names, as for the other SDKs: `E2B_API_KEY`, with
    /// `E2B_API_URL` and `E2B_SANDBOX_URL`, or `E2B_DOMAIN` instead of both. Without any of
    /// these it is one on this machine.
    ///
    /// # Errors
    /// [`Error::NoKey`] without an API key.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let given = |name| variable(name).filter(|value| !value.trim().is_empty());
        let api_key = given("E2B_API_KEY").ok_or(Error::NoKey)?;
        let (api, sandbox) = (given("E2B_API_URL"), given("E2B_SANDBOX_URL"));
        // A URL of the API is whole: the domain then says nothing of sandboxes either.
        let domain = given("E2B_DOMAIN").filter(|_| api.is_none());
        let under = |name: &str| {
            domain
                .as_ref()
                .map(|domain| format!("https://{name}.{domain}"))
        };
        let api_url = api
            .or_else(|| under("api"))
            .unwrap_or_else(|| LOCAL.to_owned());
        let mut config = Self::new(api_url, api_key.trim());
        if let Some(url) = sandbox.or_else(|| under("sandbox")) {
            config.sandbox_url = url;
        }
        Ok(config)
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
    fn the_environment_names_the_server() {
        let of = |pairs: &[(&str, &str)]| {
            let config = Config::from_variables(|name| {
                let found = pairs.iter().find(|(key, _)| *key == name)?;
                Some(found.1.to_owned())
            })?;
            Ok::<_, Error>(format!(
                "{} {} {}",
                config.api_url, config.sandbox_url, config.api_key
            ))
        };
        assert!(matches!(of(&[("E2B_API_KEY", "  ")]), Err(Error::NoKey)));
        let key = ("E2B_API_KEY", "k\n");
        assert_eq!(of(&[key]).unwrap(), format!("{LOCAL} {LOCAL} k"));
        let domain = ("E2B_DOMAIN", "d.example");
        assert_eq!(
            of(&[key, domain]).unwrap(),
            "https://api.d.example https://sandbox.d.example k"
        );
        let api = ("E2B_API_URL", "http://a");
        assert_eq!(of(&[key, domain, api]).unwrap(), "http://a http://a k");
        let sandbox = ("E2B_SANDBOX_URL", "http://s");
        assert_eq!(of(&[key, api, sandbox]).unwrap(), "http://a http://s k");
    }

    #[test]
    fn the_key_is_not_shown() {
        let config = Config::new("http://127.0.0.1", "e2b_secret");
        assert!(!format!("{config:?}").contains("secret"));
    }
}
