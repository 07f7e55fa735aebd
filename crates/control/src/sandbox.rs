//! A sandbox as its team sees it.

use jiff::Timestamp;
use warren_cluster::token;
use warren_service::Secret;
use warren_store::SandboxRecord;

use crate::{Control, NetworkSettings};

/// A sandbox with what only its team may know.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// What is recorded of it.
    pub record: SandboxRecord,
    /// Token for its agent, if it requires one.
    pub access_token: Option<Secret>,
    /// Token for its other ports, if they require one.
    pub traffic_token: Option<Secret>,
    /// Network settings as given.
    pub network: Option<NetworkSettings>,
    /// Domain under which it is reached.
    pub domain: Option<String>,
}

impl Control {
    /// Adds the derived parts to a record.
    pub(crate) fn sandbox(&self, record: SandboxRecord) -> Sandbox {
        let key = &self.config.token_key;
        Sandbox {
            access_token: record.secure.then(|| token::access(key, &record.id)),
            traffic_token: record
                .private_traffic
                .then(|| token::traffic(key, &record.id)),
            network: record
                .network
                .as_deref()
                .and_then(NetworkSettings::from_stored),
            domain: self.config.domain.clone(),
            record,
        }
    }
}

/// The latest moment that a sandbox may live to.
pub(crate) fn latest_end(started_at: Timestamp, max: std::time::Duration) -> Timestamp {
    started_at.checked_add(max).unwrap_or(Timestamp::MAX)
}

/// A moment `seconds` from `now`.
pub(crate) fn later(now: Timestamp, seconds: u64) -> Timestamp {
    now.checked_add(std::time::Duration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
