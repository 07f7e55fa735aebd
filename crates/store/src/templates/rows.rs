//! Rows of the template tables.

use sqlx::FromRow;
use warren_types::{CaptureKind, Resources};

use super::{BuildContent, BuildReason, BuildRecord, BuildStatus, TemplateRecord};
use crate::StoreError;
use crate::error::malformed;
use crate::time::timestamp;

#[derive(FromRow)]
pub(super) struct TemplateRow {
    id: String,
    team_id: String,
    public: i64,
    spawn_count: i64,
    last_spawned_at: Option<i64>,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<TemplateRow> for TemplateRecord {
    type Error = StoreError;

    fn try_from(row: TemplateRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.parse().map_err(|_| malformed("id", &row.id))?,
            team_id: row
                .team_id
                .parse()
                .map_err(|_| malformed("team_id", &row.id))?,
            public: row.public != 0,
            spawn_count: row.spawn_count.unsigned_abs(),
            last_spawned_at: row
                .last_spawned_at
                .map(|at| timestamp(at, "last_spawned_at", &row.id))
                .transpose()?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            updated_at: timestamp(row.updated_at, "updated_at", &row.id)?,
        })
    }
}

#[derive(FromRow)]
pub(super) struct BuildRow {
    id: String,
    template_id: String,
    status: String,
    layers: String,
    env: String,
    default_user: String,
    default_workdir: Option<String>,
    cpu_count: i64,
    memory_mib: i64,
    disk_mib: i64,
    max_processes: i64,
    envd_version: String,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
    start: Option<String>,
    reason: Option<String>,
    reason_step: Option<String>,
    min_free_disk_mib: Option<i64>,
    build_env: Option<String>,
    capture: Option<String>,
}

impl TryFrom<BuildRow> for BuildRecord {
    type Error = StoreError;

    fn try_from(row: BuildRow) -> Result<Self, StoreError> {
        let id = &row.id;
        let number = |value: i64, field| u32::try_from(value).map_err(|_| malformed(field, id));
        Ok(Self {
            id: id.parse().map_err(|_| malformed("id", id))?,
            template_id: row
                .template_id
                .parse()
                .map_err(|_| malformed("template_id", id))?,
            status: BuildStatus::parse(&row.status).ok_or_else(|| malformed("status", id))?,
            reason: row.reason.map(|message| BuildReason {
                message,
                step: row.reason_step,
            }),
            content: BuildContent {
                layers: serde_json::from_str(&row.layers).map_err(|_| malformed("layers", id))?,
                env: serde_json::from_str(&row.env).map_err(|_| malformed("env", id))?,
                build_env: row
                    .build_env
                    .as_deref()
                    .map(serde_json::from_str)
                    .transpose()
                    .map_err(|_| malformed("build_env", id))?,
                resources: Resources {
                    cpu_count: number(row.cpu_count, "cpu_count")?,
                    memory_mib: number(row.memory_mib, "memory_mib")?,
                    disk_mib: number(row.disk_mib, "disk_mib")?,
                    max_processes: number(row.max_processes, "max_processes")?,
                },
                start: row
                    .start
                    .as_deref()
                    .map(serde_json::from_str)
                    .transpose()
                    .map_err(|_| malformed("start", id))?,
                capture: row
                    .capture
                    .as_deref()
                    .map(|word| capture(word).ok_or_else(|| malformed("capture", id)))
                    .transpose()?,
                default_user: row.default_user,
                default_workdir: row.default_workdir,
                envd_version: row.envd_version,
            },
            min_free_disk_mib: row.min_free_disk_mib.map(i64::unsigned_abs),
            created_at: timestamp(row.created_at, "created_at", id)?,
            updated_at: timestamp(row.updated_at, "updated_at", id)?,
            finished_at: row
                .finished_at
                .map(|at| timestamp(at, "finished_at", id))
                .transpose()?,
        })
    }
}

fn capture(word: &str) -> Option<CaptureKind> {
    [CaptureKind::Filesystem, CaptureKind::Memory]
        .into_iter()
        .find(|kind| kind.as_str() == word)
}

/// The columns of a build's content as text.
pub(super) struct ContentColumns {
    pub(super) layers: String,
    pub(super) env: String,
    pub(super) build_env: Option<String>,
    pub(super) start: Option<String>,
}

impl ContentColumns {
    pub(super) fn of(content: &BuildContent, id: &str) -> Result<Self, StoreError> {
        let start = content.start.as_ref().map(serde_json::to_string);
        let build_env = content.build_env.as_ref().map(serde_json::to_string);
        Ok(Self {
            layers: serde_json::to_string(&content.layers).map_err(|_| malformed("layers", id))?,
            env: serde_json::to_string(&content.env).map_err(|_| malformed("env", id))?,
            build_env: build_env
                .transpose()
                .map_err(|_| malformed("build_env", id))?,
            start: start.transpose().map_err(|_| malformed("start", id))?,
        })
    }
}
