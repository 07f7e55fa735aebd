//! Registering a ready build under a name.

use jiff::Timestamp;
use sqlx::{Sqlite, Transaction};
use warren_types::{BuildId, CaptureKind, TeamId, TemplateId};

use super::rows::{BuildRow, ContentColumns};
use super::{BuildContent, BuildRecord, BuildRegistration, BuildStatus};
use crate::error::{malformed, query};
use crate::time::micros;
use crate::{Store, StoreError};

const ACTION: &str = "register build";

impl Store {
    /// Makes a ready build known under a name. Does nothing if the newest build of that
    /// name and tag is the same; returns that one then.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_register(
        &self,
        build: &BuildRegistration,
    ) -> Result<BuildRecord, StoreError> {
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let template = template_of(&mut tx, build).await?;
        let newest: Option<BuildRow> = sqlx::query_as(
            "SELECT b.* FROM builds b JOIN template_tags g ON g.build_id = b.id
             WHERE g.template_id = $1 AND g.tag = $2 AND b.status = 'ready'
             ORDER BY g.created_at DESC, b.created_at DESC LIMIT 1",
        )
        .bind(template.as_str())
        .bind(&build.tag)
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        if let Some(row) = newest {
            let known = BuildRecord::try_from(row)?;
            if known.content == build.content {
                tx.commit().await.map_err(query(ACTION))?;
                return Ok(known);
            }
        }
        let (ready, at) = (BuildStatus::Ready, build.at);
        let id = insert_build(&mut tx, &template, ready, &build.content, None, at).await?;
        insert_tag(&mut tx, &template, &build.tag, id, at).await?;
        tx.commit().await.map_err(query(ACTION))?;
        let made = self.build_ready(&template, id).await?;
        made.ok_or_else(|| malformed("status", &id.to_string()))
    }
}

async fn template_of(
    tx: &mut Transaction<'_, Sqlite>,
    build: &BuildRegistration,
) -> Result<TemplateId, StoreError> {
    let known: Option<(String,)> = sqlx::query_as(
        "SELECT template_id FROM template_aliases WHERE namespace = $1 AND alias = $2",
    )
    .bind(&build.namespace)
    .bind(&build.alias)
    .fetch_optional(&mut **tx)
    .await
    .map_err(query(ACTION))?;
    if let Some((id,)) = known {
        sqlx::query("UPDATE templates SET public = $2, updated_at = $3 WHERE id = $1")
            .bind(&id)
            .bind(i64::from(build.public))
            .bind(micros(build.at))
            .execute(&mut **tx)
            .await
            .map_err(query(ACTION))?;
        return id.parse().map_err(|_| malformed("template_id", &id));
    }
    let id = TemplateId::random();
    insert_template(tx, &id, build.team_id, build.public, build.at).await?;
    insert_alias(tx, &build.namespace, &build.alias, &id, build.at).await?;
    Ok(id)
}

pub(crate) async fn insert_template(
    tx: &mut Transaction<'_, Sqlite>,
    id: &TemplateId,
    team: TeamId,
    public: bool,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO templates (id, team_id, public, spawn_count, created_at, updated_at)
         VALUES ($1, $2, $3, 0, $4, $4)",
    )
    .bind(id.as_str())
    .bind(team.to_string())
    .bind(i64::from(public))
    .bind(micros(at))
    .execute(&mut **tx)
    .await
    .map_err(query("add template"))?;
    Ok(())
}

pub(crate) async fn insert_alias(
    tx: &mut Transaction<'_, Sqlite>,
    namespace: &str,
    alias: &str,
    template: &TemplateId,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO template_aliases (namespace, alias, template_id, created_at)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(namespace)
    .bind(alias)
    .bind(template.as_str())
    .bind(micros(at))
    .execute(&mut **tx)
    .await
    .map_err(query("name template"))?;
    Ok(())
}

/// Adds a build that is ready or waiting.
pub(super) async fn insert_build(
    tx: &mut Transaction<'_, Sqlite>,
    template: &TemplateId,
    status: BuildStatus,
    content: &BuildContent,
    min_free_disk_mib: Option<u64>,
    at: Timestamp,
) -> Result<BuildId, StoreError> {
    let id = BuildId::random();
    insert_build_as(tx, id, template, status, content, min_free_disk_mib, at).await?;
    Ok(id)
}

/// The same under an id that was chosen before.
pub(crate) async fn insert_build_as(
    tx: &mut Transaction<'_, Sqlite>,
    id: BuildId,
    template: &TemplateId,
    status: BuildStatus,
    content: &BuildContent,
    min_free_disk_mib: Option<u64>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = id.to_string();
    let columns = ContentColumns::of(content, &text)?;
    sqlx::query(
        "INSERT INTO builds
         (id, template_id, status, layers, env, default_user, default_workdir, cpu_count,
          memory_mib, disk_mib, max_processes, envd_version, created_at, updated_at,
          finished_at, start, min_free_disk_mib, build_env, capture)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14, $15, $16,
                 $17, $18)",
    )
    .bind(&text)
    .bind(template.as_str())
    .bind(status.as_str())
    .bind(columns.layers)
    .bind(columns.env)
    .bind(&content.default_user)
    .bind(&content.default_workdir)
    .bind(i64::from(content.resources.cpu_count))
    .bind(i64::from(content.resources.memory_mib))
    .bind(i64::from(content.resources.disk_mib))
    .bind(i64::from(content.resources.max_processes))
    .bind(&content.envd_version)
    .bind(micros(at))
    .bind((status == BuildStatus::Ready).then(|| micros(at)))
    .bind(columns.start)
    .bind(min_free_disk_mib.map(|mib| i64::try_from(mib).unwrap_or(i64::MAX)))
    .bind(columns.build_env)
    .bind(content.capture.map(CaptureKind::as_str))
    .execute(&mut **tx)
    .await
    .map_err(query("add build"))?;
    Ok(())
}

/// Gives a build a tag, from now on.
pub(crate) async fn insert_tag(
    tx: &mut Transaction<'_, Sqlite>,
    template: &TemplateId,
    tag: &str,
    build: BuildId,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO template_tags (template_id, tag, build_id, created_at)
         VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
    )
    .bind(template.as_str())
    .bind(tag)
    .bind(build.to_string())
    .bind(micros(at))
    .execute(&mut **tx)
    .await
    .map_err(query("tag build"))?;
    Ok(())
}
