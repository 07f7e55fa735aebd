//! Registering a ready build under a name.

use sqlx::{Sqlite, Transaction};
use warren_types::{BuildId, TemplateId};

use super::rows::BuildRow;
use super::{BuildRecord, BuildRegistration};
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
            if is_same(&known, build) {
                tx.commit().await.map_err(query(ACTION))?;
                return Ok(known);
            }
        }
        let id = insert(&mut tx, &template, build).await?;
        tx.commit().await.map_err(query(ACTION))?;
        let made = self.build_ready(&template, id).await?;
        made.ok_or_else(|| malformed("status", &id.to_string()))
    }
}

fn is_same(known: &BuildRecord, build: &BuildRegistration) -> bool {
    known.layers == build.layers
        && known.start == build.start
        && known.env == build.env
        && known.resources == build.resources
        && known.default_user == build.default_user
        && known.default_workdir == build.default_workdir
        && known.envd_version == build.envd_version
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
    sqlx::query(
        "INSERT INTO templates (id, team_id, public, spawn_count, created_at, updated_at)
         VALUES ($1, $2, $3, 0, $4, $4)",
    )
    .bind(id.as_str())
    .bind(build.team_id.to_string())
    .bind(i64::from(build.public))
    .bind(micros(build.at))
    .execute(&mut **tx)
    .await
    .map_err(query(ACTION))?;
    sqlx::query(
        "INSERT INTO template_aliases (namespace, alias, template_id, created_at)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(&build.namespace)
    .bind(&build.alias)
    .bind(id.as_str())
    .bind(micros(build.at))
    .execute(&mut **tx)
    .await
    .map_err(query(ACTION))?;
    Ok(id)
}

fn json_start(build: &BuildRegistration, id: &str) -> Result<Option<String>, StoreError> {
    let start = build.start.as_ref().map(serde_json::to_string).transpose();
    start.map_err(|_| malformed("start", id))
}

async fn insert(
    tx: &mut Transaction<'_, Sqlite>,
    template: &TemplateId,
    build: &BuildRegistration,
) -> Result<BuildId, StoreError> {
    let id = BuildId::random();
    let text = id.to_string();
    sqlx::query(
        "INSERT INTO builds
         (id, template_id, status, layers, env, default_user, default_workdir, cpu_count,
          memory_mib, disk_mib, max_processes, envd_version, created_at, updated_at,
          finished_at, start)
         VALUES ($1, $2, 'ready', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12, $12, $13)",
    )
    .bind(&text)
    .bind(template.as_str())
    .bind(serde_json::to_string(&build.layers).map_err(|_| malformed("layers", &text))?)
    .bind(serde_json::to_string(&build.env).map_err(|_| malformed("env", &text))?)
    .bind(&build.default_user)
    .bind(&build.default_workdir)
    .bind(i64::from(build.resources.cpu_count))
    .bind(i64::from(build.resources.memory_mib))
    .bind(i64::from(build.resources.disk_mib))
    .bind(i64::from(build.resources.max_processes))
    .bind(&build.envd_version)
    .bind(micros(build.at))
    .bind(json_start(build, &text)?)
    .execute(&mut **tx)
    .await
    .map_err(query(ACTION))?;
    sqlx::query(
        "INSERT INTO template_tags (template_id, tag, build_id, created_at)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(template.as_str())
    .bind(&build.tag)
    .bind(&text)
    .bind(micros(build.at))
    .execute(&mut **tx)
    .await
    .map_err(query(ACTION))?;
    Ok(id)
}
