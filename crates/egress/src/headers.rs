//! The headers of a rule, with secrets and tokens filled in for one request.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use warren_service::{Chain, Secret};
use warren_types::SandboxId;
use warren_types::egress::EgressPolicy;
use warren_types::placeholder::{self, Part};

use crate::{Vault, VaultError};

/// Most bytes of all values together. Secrets are smaller; a rule can name one many times.
const LIMIT: usize = 256 * 1024;

/// Why the headers can't be set. The text is for the sandbox's log: it names, and quotes no
/// value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FillError {
    #[error("secret {name}: {source}")]
    Secret {
        name: String,
        #[source]
        source: VaultError,
    },
    #[error("token {name}: {source}")]
    Token {
        name: String,
        #[source]
        source: VaultError,
    },
    #[error("the value of header {0} can't be in a request")]
    Value(String),
    #[error("the headers are too large")]
    TooLarge,
}

/// Headers to set.
#[derive(Debug, Default)]
pub(crate) struct Filled {
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether a value in them is not for the sandbox to see.
    pub(crate) is_secret: bool,
}

impl Filled {
    /// Sets the headers, each once, in place of all that have their names.
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
    }
}

/// Fills in what the values of `headers` name.
pub(crate) async fn fill(
    headers: &BTreeMap<String, String>,
    policy: &EgressPolicy,
    sandbox: &SandboxId,
    vault: &dyn Vault,
) -> Result<Filled, FillError> {
    let mut known = BTreeMap::new();
    let mut filled = Filled::default();
    let mut size = 0;
    for (name, template) in headers {
        let bad = || FillError::Value(name.clone());
        let parts = placeholder::parts(template).ok_or_else(bad)?;
        let mut value = Vec::new();
        for part in parts {
            match part {
                Part::Text(text) => value.extend_from_slice(text.as_bytes()),
                part => {
                    let found = match known.entry(name_of(part)) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(free) => {
                            free.insert(find(part, policy, sandbox, vault).await?)
                        }
                    };
                    value.extend_from_slice(found.expose().as_bytes());
                    filled.is_secret = true;
                }
            }
            if size + value.len() > LIMIT {
                return Err(FillError::TooLarge);
            }
        }
        size += value.len();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| bad())?;
        // Not in debug output, and in no table of a compressor.
        value.set_sensitive(true);
        let name = HeaderName::try_from(name.as_str()).map_err(|_| bad())?;
        filled.headers.push((name, value));
    }
    Ok(filled)
}

fn name_of(part: Part<'_>) -> (bool, &str) {
    match part {
        Part::Text(text) => (false, text),
        Part::Secret(name) => (false, name),
        Part::Token(name) => (true, name),
    }
}

async fn find(
    part: Part<'_>,
    policy: &EgressPolicy,
    sandbox: &SandboxId,
    vault: &dyn Vault,
) -> Result<Secret, FillError> {
    let rules = policy.rules();
    let (found, name) = match part {
        Part::Text(text) => return Ok(Secret::new(text.to_owned())),
        Part::Secret(name) => (vault.secret(&rules.owner, name).await, name),
        Part::Token(name) => {
            let found = match rules.tokens.get(name) {
                Some(audience) => vault.token(&rules.owner, sandbox, audience).await,
                None => Err(VaultError::Missing),
            };
            (found, name)
        }
    };
    found.map_err(|source| {
        if let VaultError::Unavailable(cause) = &source {
            tracing::error!(sandbox_id = %sandbox, name, error = %Chain(cause.as_ref()),
                "a value that a header names can't be read");
        }
        let name = name.to_owned();
        match part {
            Part::Token(_) => FillError::Token { name, source },
            Part::Secret(_) | Part::Text(_) => FillError::Secret { name, source },
        }
    })
}
