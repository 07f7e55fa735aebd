//! Limits of teams and API keys. Not of E2B's API.

use serde::{Deserialize, Serialize};

/// Limits; null is no limit of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Budget {
    /// Sandboxes that start or run.
    pub sandboxes: Option<u32>,
    /// Their CPUs together.
    pub cpus: Option<u32>,
    /// Their memory together in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mib: Option<u32>,
    /// Disk together in MiB, of paused sandboxes too.
    #[serde(rename = "diskMB")]
    pub disk_mib: Option<u32>,
    /// Requests to the API in a minute.
    pub requests_per_minute: Option<u32>,
}

/// What is in use or reserved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Usage {
    /// Sandboxes that start or run.
    pub sandboxes: u64,
    /// Their CPUs.
    pub cpus: u64,
    /// Their memory in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mib: u64,
    /// Disk in MiB, of paused ones too.
    #[serde(rename = "diskMB")]
    pub disk_mib: u64,
}

/// Limits of a team or an API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Those of its own.
    pub own: Budget,
    /// Those in force: its own, else the server's defaults.
    pub limits: Budget,
    /// What of them is used.
    pub used: Usage,
}

/// Answer to `GET /limits`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerLimits {
    /// Those of the team.
    pub team: Limits,
    /// Those of the key that was shown.
    pub key: Option<Limits>,
}
