//! Addresses of names, as the host's own resolvers give them.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Dns;
use crate::query::{self, Addresses};

/// Names that are remembered.
const CACHED: usize = 8192;
/// An answer is remembered for so long at least, and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It is no name.
    #[error("it is not a name")]
    NotAName,
    /// The resolvers did not answer.
    #[error("ask the name servers")]
    Ask(#[source] std::io::Error),
    /// They answered that they can't tell.
    #[error("the name servers can't tell")]
    Failed,
    /// The name has none.
    #[error("it has no IPv4 address")]
    NoAddress,
}

type Cache = HashMap<Box<str>, (Arc<[Ipv4Addr]>, Instant)>;

/// Finds and remembers addresses.
#[derive(Debug, Clone)]
pub struct Resolver {
    dns: Dns,
    cache: Arc<Mutex<Cache>>,
}

impl Resolver {
    /// Asks the servers that `dns` relays to.
    #[must_use]
    pub fn new(dns: Dns) -> Self {
        Self {
            dns,
            cache: Arc::default(),
        }
    }

    /// The addresses of a normalised name; at least one.
    ///
    /// # Errors
    /// [`ResolveError`]
    pub async fn addresses(&self, name: &str) -> Result<Arc<[Ipv4Addr]>, ResolveError> {
        if let Some(found) = self.remembered(name) {
            return Ok(found);
        }
        let query = query::for_addresses(name).ok_or(ResolveError::NotAName)?;
        let answer = self.dns.ask(&query).await.map_err(ResolveError::Ask)?;
        let mut found = query::addresses(&answer);
        if found == Addresses::Truncated {
            let answer = self.dns.ask_long(&query).await.map_err(ResolveError::Ask)?;
            found = query::addresses(&answer);
        }
        match found {
            Addresses::Found(list, _) if list.is_empty() => Err(ResolveError::NoAddress),
            Addresses::Found(list, seconds) => {
                let list: Arc<[Ipv4Addr]> = list.into();
                self.remember(name, &list, seconds);
                Ok(list)
            }
            Addresses::Truncated | Addresses::Failed => Err(ResolveError::Failed),
        }
    }

    fn remembered(&self, name: &str) -> Option<Arc<[Ipv4Addr]>> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let (list, until) = cache.get(name)?;
        (Instant::now() < *until).then(|| Arc::clone(list))
    }

    fn remember(&self, name: &str, list: &Arc<[Ipv4Addr]>, seconds: u32) {
        let now = Instant::now();
        let life = Duration::from_secs(seconds.into()).clamp(SHORTEST, LONGEST);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHED {
            cache.retain(|_, (_, until)| *until > now);
            if cache.len() >= CACHED {
                cache.clear();
            }
        }
        cache.insert(name.into(), (Arc::clone(list), now + life));
    }
}
