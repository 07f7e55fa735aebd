//! Templates.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Answer of `GET /templates/aliases/{alias}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasAnswer {
    /// The template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Whether other teams may use it.
    pub public: bool,
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRef {
    /// Their id.
    pub id: String,
    /// Their address.
    #[serde(default)]
    pub email: Option<String>,
}

/// An element of `GET /templates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// Its id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Newest ready build, or the nil UUID.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// CPUs of its sandboxes.
    pub cpu_count: u32,
    /// Memory of its sandboxes in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Disk of its sandboxes in MiB.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    /// Whether other teams may use it.
    pub public: bool,
    /// Names without namespace.
    pub aliases: Vec<String>,
    /// Names with namespace.
    pub names: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Who made it.
    #[serde(default)]
    pub created_by: Option<UserRef>,
    /// When a sandbox was last made from it.
    #[serde(default)]
    pub last_spawned_at: Option<Timestamp>,
    /// Sandboxes made from it.
    pub spawn_count: u64,
    /// Number of its builds.
    pub build_count: u64,
    /// Version of the agent, empty without a ready build.
    pub envd_version: String,
    /// `waiting`, `building`, `ready` or `error`.
    pub build_status: String,
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBuild {
    /// Its id.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// `waiting`, `building`, `ready` or `error`.
    pub status: String,
    /// When it was requested.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// CPUs of its sandboxes.
    pub cpu_count: u32,
    /// Memory of its sandboxes in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Disk of its sandboxes in MiB.
    #[serde(
        default,
        rename = "diskSizeMB",
        skip_serializing_if = "Option::is_none"
    )]
    pub disk_size_mb: Option<u32>,
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envd_version: Option<String>,
}

/// Answer of `GET /templates/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateWithBuilds {
    /// Its id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Whether other teams may use it.
    pub public: bool,
    /// Names without namespace.
    pub aliases: Vec<String>,
    /// Names with namespace.
    pub names: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When a sandbox was last made from it.
    #[serde(default)]
    pub last_spawned_at: Option<Timestamp>,
    /// Sandboxes made from it.
    pub spawn_count: u64,
    /// Its builds, newest first.
    pub builds: Vec<TemplateBuild>,
}
