//! Network settings of a sandbox.

use serde::{Deserialize, Serialize};

/// What the node enforces on traffic leaving a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPolicy {
    /// Whether public addresses can be reached at all. Host, other sandboxes and
    /// private ranges never can.
    pub internet: bool,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self { internet: true }
    }
}

/// What a client asked for at create, as far as the node and the proxy act on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkConfig {
    /// What may leave the sandbox.
    pub egress: NetworkPolicy,
    /// Header value that non-agent ports require, when public traffic is off.
    pub traffic_access_token: Option<String>,
    /// `Host` shown to services inside; `${PORT}` stands for the requested port.
    pub mask_request_host: Option<String>,
    /// Ports whose service inside speaks HTTPS.
    pub https_ports: Vec<u16>,
}
