//! Sandboxes.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ErrorBody, NetworkSettings};

/// Body of `POST /sandboxes` and `POST /v2/sandboxes`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    /// Name or id of a template, with optional tag.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Seconds until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i32>,
    /// Pause at time-out instead of end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause: Option<bool>,
    /// Whether that pause keeps memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_memory: Option<bool>,
    /// Whether traffic resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_resume: Option<AutoResume>,
    /// Require a token on the agent; version 1 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure: Option<bool>,
    /// False denies all egress.
    #[serde(
        default,
        rename = "allow_internet_access",
        skip_serializing_if = "Option::is_none"
    )]
    pub allow_internet_access: Option<bool>,
    /// Network settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSettings>,
    /// Labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Variables of every process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// Settings of an MCP gateway, kept as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcp: Option<BTreeMap<String, Value>>,
    /// Workload identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iam: Option<Iam>,
    /// Volumes to mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_mounts: Option<Vec<VolumeMount>>,
}

/// Whether traffic resumes a paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutoResume {
    /// Whether it does.
    pub enabled: bool,
}

/// Workload identity of a sandbox.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iam {
    /// Tokens by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<BTreeMap<String, IamToken>>,
}

/// A workload identity token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IamToken {
    /// Who it is for.
    pub audience: String,
    /// `JWT-SVID`.
    pub token_type: String,
}

/// A volume in a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// Name of the volume.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
    /// Whether it can't be written to there. An addition of ours to the API.
    #[serde(
        default,
        rename = "readOnly",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub read_only: bool,
}

/// Answer of create and connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// The template's id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Its id.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// The template's first name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// A constant.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// Version of the agent.
    pub envd_version: String,
    /// Token for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// Token for the other ports, null when they are public.
    #[serde(default)]
    pub traffic_access_token: Option<String>,
    /// Domain of sandbox host names, null for the client's own.
    #[serde(default)]
    pub domain: Option<String>,
}

/// State as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Usable.
    Running,
    /// Set aside.
    Paused,
}

/// An element of the lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedSandbox {
    /// The template's id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The template's first name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Its id.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// A constant.
    #[serde(rename = "clientID")]
    pub client_id: String,
    /// When it became usable.
    pub started_at: Timestamp,
    /// When it ends.
    pub end_at: Timestamp,
    /// CPUs.
    pub cpu_count: u32,
    /// Memory in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Disk in MiB.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    /// Labels.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// State.
    pub state: State,
    /// Version of the agent.
    pub envd_version: String,
    /// Mounted volumes.
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    /// Of a paused one: true if its agent did not answer when its memory was kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub envd_unresponsive_at_pause: bool,
}

/// What happens when a sandbox's time runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnTimeout {
    /// It is set aside.
    Pause,
    /// It ends.
    Kill,
}

/// How a sandbox's life goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lifecycle {
    /// Whether traffic resumes it.
    pub auto_resume: bool,
    /// What happens when its time runs out.
    pub on_timeout: OnTimeout,
}

/// Answer of `GET /sandboxes/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxDetail {
    /// What lists show too.
    #[serde(flatten)]
    pub listed: ListedSandbox,
    /// Token for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// `allow_internet_access` as given.
    #[serde(default)]
    pub allow_internet_access: Option<bool>,
    /// Domain of sandbox host names, null for the client's own.
    #[serde(default)]
    pub domain: Option<String>,
    /// Network settings as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkSettings>,
    /// How its life goes.
    pub lifecycle: Lifecycle,
    /// Of a paused one: what is kept of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_mode: Option<PauseMode>,
}

/// Body of connect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Seconds that it shall live at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i32>,
    /// Whether a resume takes up the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// Body of `POST /sandboxes/{id}/pause`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Whether memory is kept; it is unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
    /// Refuse unless the agent answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_healthy_guest: Option<bool>,
}

/// Body of `POST /sandboxes/{id}/resume`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resume {
    /// Seconds until it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i32>,
    /// Replaces whether it is paused at its time-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause: Option<bool>,
    /// Whether the memory is taken up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// Body of `POST /sandboxes/{id}/snapshots`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewSnapshot {
    /// Name, with optional tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether memory is captured; it is unless said otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<bool>,
}

/// A template made from a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// What sandboxes are made from it by, and what it is deleted by.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Its names without tags.
    pub names: Vec<String>,
}

/// Body of `POST /sandboxes/{id}/fork`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fork {
    /// How many copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i32>,
    /// Seconds until they end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i32>,
}

/// What became of one copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForkResult {
    /// It runs.
    Sandbox(Box<Sandbox>),
    /// It was not made.
    Error(ErrorBody),
}

/// What is kept of a paused sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PauseMode {
    /// Processes and memory too.
    Full,
    /// Files.
    Filesystem,
}

/// Body of `POST /sandboxes/{id}/timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout {
    /// Seconds from now until it ends.
    pub timeout: i32,
}

/// Body of `POST /sandboxes/{id}/refreshes`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refresh {
    /// Seconds that it shall live at least.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<i32>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_create_body_with_nulls_and_unknown_fields_is_read() {
        let body: NewSandbox = serde_json::from_value(json!({
            "templateID": "base", "timeout": 300, "metadata": null, "nonsense": [1],
            "network": {"allowPublicTraffic": null, "httpsPorts": [8443]},
            "allow_internet_access": false, "envVars": {"A": "1"},
        }))
        .unwrap();
        assert_eq!(body.template_id, "base");
        assert_eq!(body.allow_internet_access, Some(false));
        assert_eq!(body.metadata, None);
        assert_eq!(body.network.unwrap().https_ports, Some(vec![8443]));
    }

    #[test]
    fn detail_has_the_names_that_clients_read() {
        let at: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let detail = SandboxDetail {
            listed: ListedSandbox {
                template_id: "t".into(),
                alias: Some("base".into()),
                sandbox_id: "i".into(),
                client_id: "c".into(),
                started_at: at,
                end_at: at,
                cpu_count: 2,
                memory_mb: 512,
                disk_size_mb: 1024,
                metadata: BTreeMap::new(),
                state: State::Running,
                envd_version: "0.6.13".into(),
                volume_mounts: Vec::new(),
                envd_unresponsive_at_pause: false,
            },
            envd_access_token: None,
            allow_internet_access: None,
            domain: None,
            network: None,
            lifecycle: Lifecycle {
                auto_resume: false,
                on_timeout: OnTimeout::Kill,
            },
            pause_mode: None,
        };
        let value = serde_json::to_value(&detail).unwrap();
        assert_eq!(
            value,
            json!({
                "templateID": "t", "alias": "base", "sandboxID": "i", "clientID": "c",
                "startedAt": "2026-01-02T03:04:05.678901Z",
                "endAt": "2026-01-02T03:04:05.678901Z",
                "cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024, "metadata": {},
                "state": "running", "envdVersion": "0.6.13", "volumeMounts": [],
                "allowInternetAccess": null, "domain": null,
                "lifecycle": {"autoResume": false, "onTimeout": "kill"},
            })
        );
        assert_eq!(
            serde_json::from_value::<SandboxDetail>(value).unwrap(),
            detail
        );
    }
}
