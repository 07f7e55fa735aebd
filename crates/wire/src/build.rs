//! Builds of templates.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_types::LogLevel;

/// Body of `POST /v3/templates`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateBuildRequest {
    /// Name of the template, with optional namespace and tag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The same in older clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Further tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// CPUs of its sandboxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_count: Option<i32>,
    /// Memory of its sandboxes in MiB.
    #[serde(rename = "memoryMB", skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<i32>,
    /// Free disk space of its sandboxes in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_free_disk_mb: Option<i64>,
}

/// Answer of `POST /v3/templates`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateBuildRequested {
    /// The template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The build, which waits for its start.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// Whether other teams may use the template.
    pub public: bool,
    /// Names with namespace.
    pub names: Vec<String>,
    /// Names without namespace.
    pub aliases: Vec<String>,
    /// Tags of the build.
    pub tags: Vec<String>,
}

/// Answer of `POST /v2/templates`: a template as old clients know it. Only ids, flag and
/// names say something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LegacyTemplate {
    /// The template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The build.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// CPUs.
    pub cpu_count: u32,
    /// Memory in MiB.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Disk in MiB.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    /// Whether other teams may use it.
    pub public: bool,
    /// Names without namespace.
    pub aliases: Vec<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Who made it.
    pub created_by: Option<crate::UserRef>,
    /// When a sandbox was last made from it.
    pub last_spawned_at: Option<Timestamp>,
    /// Sandboxes made from it.
    pub spawn_count: u64,
    /// Number of its builds.
    pub build_count: u64,
    /// Version of the agent.
    pub envd_version: String,
}

/// One step. Further keys, which clients send for themselves, are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateStep {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Vec<String>,
    /// Hash of the archive that it takes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files_hash: Option<String>,
    /// Use no cached layer from here on.
    #[serde(default)]
    pub force: bool,
}

/// How to sign in to the registry of an image. Which fields belong to which type is
/// checked by the reader, so that an unknown type can be told from a malformed one.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageRegistry {
    /// `registry`, `aws` or `gcp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// User of a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// Password of a registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Id of an AWS key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_access_key_id: Option<String>,
    /// An AWS key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_secret_access_key: Option<String>,
    /// An AWS region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_region: Option<String>,
    /// Key file of a Google Cloud service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_json: Option<String>,
}

impl std::fmt::Debug for ImageRegistry {
    /// Shows the type alone: the rest is secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageRegistry")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Body of `POST /v2/templates/{templateID}/builds/{buildID}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TemplateBuildStart {
    /// Image to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_image: Option<String>,
    /// Template to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_template: Option<String>,
    /// How to sign in to the image's registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_image_registry: Option<ImageRegistry>,
    /// Steps in order.
    pub steps: Vec<TemplateStep>,
    /// Use no cached layer.
    pub force: bool,
    /// Command that sandboxes have running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_cmd: Option<String>,
    /// Command that tells that a sandbox is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_cmd: Option<String>,
}

/// Answer of `GET /templates/{templateID}/files/{hash}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateFiles {
    /// Whether the archive is there.
    pub present: bool,
    /// Where to upload it.
    pub url: String,
}

/// One line of a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildLogEntry {
    /// When it was said.
    pub timestamp: Timestamp,
    /// Its text.
    pub message: String,
    /// Its severity.
    pub level: LogLevel,
    /// The phase that said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildStatusReason {
    /// What is told to the user.
    pub message: String,
    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Warnings and errors of that step in this answer.
    #[serde(default)]
    pub log_entries: Vec<BuildLogEntry>,
}

/// Answer of `GET /templates/{templateID}/builds/{buildID}/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateBuildInfo {
    /// The template.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The build.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// `waiting`, `building`, `ready` or `error`.
    pub status: String,
    /// Log lines of the oldest kind of build; always empty.
    pub logs: Vec<String>,
    /// Log lines.
    pub log_entries: Vec<BuildLogEntry>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<BuildStatusReason>,
}

/// Answer of `GET /templates/{templateID}/builds/{buildID}/logs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateBuildLogs {
    /// Log lines.
    pub logs: Vec<BuildLogEntry>,
}

/// Body of `PATCH /templates/{templateID}` and `PATCH /v2/templates/{templateID}`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUpdate {
    /// Whether other teams may use it; absent changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<bool>,
}

/// Answer of `PATCH /v2/templates/{templateID}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateUpdated {
    /// Names with namespace.
    pub names: Vec<String>,
}

/// Body of `POST /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignTags {
    /// Name of the template, with optional tag.
    pub target: String,
    /// Tags to give.
    pub tags: Vec<String>,
}

/// Answer of `POST /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedTags {
    /// The build that got them.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// The tags.
    pub tags: Vec<String>,
}

/// Body of `DELETE /templates/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteTags {
    /// Name of the template.
    pub name: String,
    /// Tags to take off.
    pub tags: Vec<String>,
}

/// An element of `GET /templates/{templateID}/tags`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateTag {
    /// The tag.
    pub tag: String,
    /// The build that it means.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// When the build got it.
    pub created_at: Timestamp,
}

/// Answer of `GET /templates/{templateID}/tags/count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagCount {
    /// How many tags there are.
    pub total: usize,
}

/// Answer of `GET /templates/{templateID}/tags/exists`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagExists {
    /// Whether there is such a tag.
    pub exists: bool,
    /// The tag as it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalized_tag: Option<String>,
}

/// Answer of `POST /admin/teams/{teamID}/builds/cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelledBuilds {
    /// How many were given up.
    pub cancelled_count: usize,
    /// How many could not be.
    pub failed_count: usize,
}

/// One assignment of a tag to a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagAssignment {
    /// Its id.
    #[serde(rename = "assignmentID")]
    pub assignment_id: String,
    /// The build.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// When the build got the tag.
    pub assigned_at: Timestamp,
    /// When the build was requested.
    pub build_created_at: Timestamp,
    /// When it became ready.
    pub build_finished_at: Option<Timestamp>,
}

/// A tag with its newest assignments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagGroup {
    /// The tag.
    pub tag: String,
    /// Its assignments, newest first.
    pub assignments: Vec<TagAssignment>,
    /// Whether there are more of them.
    pub has_more: bool,
}

/// Answer of `GET /templates/{templateID}/tags/groups`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagGroups {
    /// The tags.
    pub tags: Vec<TagGroup>,
    /// Cursor of the next page.
    pub next_cursor: Option<String>,
}

/// Answer of `GET /templates/{templateID}/tags/{tag}/assignments`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TagAssignments {
    /// Assignments, newest first.
    pub data: Vec<TagAssignment>,
    /// Cursor of the next page.
    pub next_cursor: Option<String>,
}
