//! The life of a build: requested, started, finished, given up.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::{QueryBuilder, Sqlite, Transaction};
use warren_types::{BuildId, TeamId, TemplateId};

use super::register::{insert_alias, insert_build, insert_tag, insert_template};
use super::rows::{BuildRow, ContentColumns};
use super::{BuildContent, BuildReason, BuildRecord, BuildStatus, TemplateRecord};
use crate::error::{malformed, query};
use crate::time::micros;
use crate::{Store, StoreError};

/// A build to be made.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Who asks for it.
    pub team_id: TeamId,
    /// Slug of that team.
    pub namespace: String,
    /// Name of the template in it; the template is made if there is none.
    pub alias: String,
    /// Tags that the build gets.
    pub tags: Vec<String>,
    /// What is known of it before it ran.
    pub content: BuildContent,
    /// Free space in MiB that is wanted, if any was named.
    pub min_free_disk_mib: Option<u64>,
    /// Told as the reason of waiting builds that this one replaces.
    pub superseded: String,
    /// The time of the request.
    pub at: Timestamp,
}

/// A build that waits for its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequested {
    /// Its template.
    pub template: TemplateRecord,
    /// Its id.
    pub build: BuildId,
}

/// Why a build can't be requested.
#[derive(Debug, thiserror::Error)]
pub enum RequestBuildError {
    /// The name is the id of a template, present or past.
    #[error("Alias '{0}' is already used")]
    NameIsId(String),
    /// The name is another team's template's.
    #[error("Alias '{0}' already used")]
    NameTaken(String),
    /// The database failed.
    #[error("request build")]
    Store(#[from] StoreError),
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildOutcome {
    /// Usable, with this content.
    Ready(Box<BuildContent>),
    /// Failed.
    Failed(BuildReason),
}

const REQUEST: &str = "request build";
const START: &str = "start build";

impl Store {
    /// Adds a build that waits, its template if there is none, its tags; gives up waiting
    /// builds of the template that share a tag with it. All or nothing.
    ///
    /// # Errors
    /// [`RequestBuildError`] if the name can't be used, or the database fails.
    pub async fn build_request(
        &self,
        request: &BuildRequest,
    ) -> Result<BuildRequested, RequestBuildError> {
        let mut tx = self.writer.begin().await.map_err(query(REQUEST))?;
        let template = named_or_new(&mut tx, request).await?;
        for tag in &request.tags {
            supersede(&mut tx, &template, tag, request).await?;
        }
        let build = insert_build(
            &mut tx,
            &template,
            BuildStatus::Waiting,
            &request.content,
            request.min_free_disk_mib,
            request.at,
        )
        .await?;
        for tag in &request.tags {
            insert_tag(&mut tx, &template, tag, build, request.at).await?;
        }
        sqlx::query("UPDATE templates SET updated_at = $2 WHERE id = $1")
            .bind(template.as_str())
            .bind(micros(request.at))
            .execute(&mut *tx)
            .await
            .map_err(query(REQUEST))?;
        tx.commit().await.map_err(query(REQUEST))?;
        let template = self.template_get(&template).await?;
        let template = template.ok_or_else(|| malformed("template_id", &build.to_string()))?;
        Ok(BuildRequested { template, build })
    }

    /// How many builds of the team run that were requested after `running_since`, or wait
    /// that were after `waiting_since`, without those of the template named in its
    /// namespace that share one of the tags.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_count_open(
        &self,
        team: TeamId,
        name: (&str, &str),
        tags: &[String],
        (running_since, waiting_since): (Timestamp, Timestamp),
    ) -> Result<u64, StoreError> {
        let mut sql: QueryBuilder<'_, Sqlite> = QueryBuilder::new(
            "SELECT COUNT(*) FROM builds b JOIN templates t ON t.id = b.template_id
             WHERE t.deleted_at IS NULL AND t.team_id = ",
        );
        sql.push_bind(team.to_string());
        sql.push(" AND (b.status = 'building' AND b.created_at > ");
        sql.push_bind(micros(running_since));
        sql.push(" OR b.status = 'waiting' AND b.created_at > ");
        sql.push_bind(micros(waiting_since)).push(")");
        sql.push(
            " AND NOT EXISTS (SELECT 1 FROM template_aliases a
               JOIN template_tags g ON g.template_id = a.template_id
               WHERE a.template_id = b.template_id AND g.build_id = b.id AND a.namespace = ",
        );
        sql.push_bind(name.0);
        sql.push(" AND a.alias = ").push_bind(name.1);
        sql.push(" AND g.tag IN (");
        let mut list = sql.separated(", ");
        for tag in tags {
            list.push_bind(tag);
        }
        sql.push("))");
        let (count,): (i64,) = sql
            .build_query_as()
            .fetch_one(&self.reader)
            .await
            .map_err(query("count open builds"))?;
        Ok(count.unsigned_abs())
    }

    /// A build with the team that owns its template, deleted or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_get(
        &self,
        build: BuildId,
    ) -> Result<Option<(BuildRecord, TeamId)>, StoreError> {
        let action = "read build";
        let row: Option<BuildRow> = sqlx::query_as("SELECT * FROM builds WHERE id = $1")
            .bind(build.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(query(action))?;
        let Some(row) = row else {
            return Ok(None);
        };
        let record = BuildRecord::try_from(row)?;
        let (team,): (String,) = sqlx::query_as("SELECT team_id FROM templates WHERE id = $1")
            .bind(record.template_id.as_str())
            .fetch_one(&self.reader)
            .await
            .map_err(query(action))?;
        let team = team.parse().map_err(|_| malformed("team_id", &team))?;
        Ok(Some((record, team)))
    }

    /// Running builds of the same template that share a tag with this build.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_rivals(&self, build: BuildId) -> Result<Vec<BuildId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT DISTINCT b.id FROM builds b
             JOIN template_tags theirs ON theirs.build_id = b.id
             JOIN template_tags ours ON ours.template_id = theirs.template_id
                  AND ours.tag = theirs.tag
             WHERE ours.build_id = $1 AND b.id <> $1 AND b.status = 'building'",
        )
        .bind(build.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list rival builds"))?;
        ids(rows)
    }

    /// Makes a waiting build a running one and gives up its rivals with this reason.
    /// Returns false, and does nothing, if it does not wait or its template is gone.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_start(
        &self,
        build: BuildId,
        rivals: &[BuildId],
        reason: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.writer.begin().await.map_err(query(START))?;
        let started = sqlx::query(
            "UPDATE builds SET status = 'building', updated_at = $2
             WHERE id = $1 AND status = 'waiting' AND EXISTS
               (SELECT 1 FROM templates t WHERE t.id = template_id AND t.deleted_at IS NULL)",
        )
        .bind(build.to_string())
        .bind(micros(at))
        .execute(&mut *tx)
        .await
        .map_err(query(START))?;
        if started.rows_affected() == 0 {
            return Ok(false);
        }
        for rival in rivals {
            sqlx::query(
                "UPDATE builds SET status = 'error', reason = $2, updated_at = $3,
                        finished_at = $3
                 WHERE id = $1 AND status = 'building'",
            )
            .bind(rival.to_string())
            .bind(reason)
            .bind(micros(at))
            .execute(&mut *tx)
            .await
            .map_err(query(START))?;
        }
        tx.commit().await.map_err(query(START))?;
        Ok(true)
    }

    /// Ends a build that waits or runs. Returns false, and does nothing, if it has ended
    /// already.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_finish(
        &self,
        build: BuildId,
        outcome: &BuildOutcome,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let action = "finish build";
        let id = build.to_string();
        let done = match outcome {
            BuildOutcome::Failed(reason) => {
                sqlx::query(
                    "UPDATE builds SET status = 'error', reason = $2, reason_step = $3,
                            updated_at = $4, finished_at = $4
                     WHERE id = $1 AND status IN ('waiting', 'building')",
                )
                .bind(&id)
                .bind(&reason.message)
                .bind(&reason.step)
                .bind(micros(at))
                .execute(&self.writer)
                .await
            }
            BuildOutcome::Ready(content) => {
                let columns = ContentColumns::of(content, &id)?;
                sqlx::query(
                    "UPDATE builds SET status = 'ready', layers = $2, env = $3,
                            default_user = $4, default_workdir = $5, start = $6,
                            cpu_count = $7, memory_mib = $8, disk_mib = $9,
                            max_processes = $10, envd_version = $11,
                            updated_at = $12, finished_at = $12, build_env = $13
                     WHERE id = $1 AND status = 'building'",
                )
                .bind(&id)
                .bind(columns.layers)
                .bind(columns.env)
                .bind(&content.default_user)
                .bind(&content.default_workdir)
                .bind(columns.start)
                .bind(i64::from(content.resources.cpu_count))
                .bind(i64::from(content.resources.memory_mib))
                .bind(i64::from(content.resources.disk_mib))
                .bind(i64::from(content.resources.max_processes))
                .bind(&content.envd_version)
                .bind(micros(at))
                .bind(columns.build_env)
                .execute(&self.writer)
                .await
            }
        };
        Ok(done.map_err(query(action))?.rows_affected() > 0)
    }

    /// Builds that the database believes to be running.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_list_running(&self) -> Result<Vec<BuildId>, StoreError> {
        let rows: Vec<(String,)> =
            sqlx::query_as("SELECT id FROM builds WHERE status = 'building'")
                .fetch_all(&self.reader)
                .await
                .map_err(query("list running builds"))?;
        ids(rows)
    }

    /// Builds whose captures are kept: those of templates that are there, which did not fail.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_list_kept(&self) -> Result<Vec<BuildId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT b.id FROM builds b JOIN templates t ON t.id = b.template_id
             WHERE b.status <> 'error' AND t.deleted_at IS NULL",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("list builds to keep"))?;
        ids(rows)
    }

    /// Layers of the builds that can be used: of templates that are there, and of those that
    /// were deleted after this time.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_layers(&self, since: Timestamp) -> Result<HashSet<String>, StoreError> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT b.id, b.layers FROM builds b JOIN templates t ON t.id = b.template_id
             WHERE b.status = 'ready' AND (t.deleted_at IS NULL OR t.deleted_at > $1)",
        )
        .bind(micros(since))
        .fetch_all(&self.reader)
        .await
        .map_err(query("list layers of builds"))?;
        let mut layers = HashSet::new();
        for (id, json) in rows {
            let these: Vec<String> =
                serde_json::from_str(&json).map_err(|_| malformed("layers", &id))?;
            layers.extend(these);
        }
        Ok(layers)
    }

    /// Builds of a team that wait or run.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_list_open(&self, team: TeamId) -> Result<Vec<BuildId>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT b.id FROM builds b JOIN templates t ON t.id = b.template_id
             WHERE t.team_id = $1 AND b.status IN ('waiting', 'building')
             ORDER BY b.created_at, b.id",
        )
        .bind(team.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list open builds"))?;
        ids(rows)
    }

    /// Gives up builds that have waited since before this time. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_expire_waiting(
        &self,
        before: Timestamp,
        reason: &str,
        at: Timestamp,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE builds SET status = 'error', reason = $2, updated_at = $3, finished_at = $3
             WHERE status = 'waiting' AND created_at < $1",
        )
        .bind(micros(before))
        .bind(reason)
        .bind(micros(at))
        .execute(&self.writer)
        .await
        .map_err(query("give up waiting builds"))?;
        Ok(done.rows_affected())
    }
}

fn ids(rows: Vec<(String,)>) -> Result<Vec<BuildId>, StoreError> {
    rows.into_iter()
        .map(|(id,)| id.parse().map_err(|_| malformed("id", &id)))
        .collect()
}

async fn named_or_new(
    tx: &mut Transaction<'_, Sqlite>,
    request: &BuildRequest,
) -> Result<TemplateId, RequestBuildError> {
    let alias = &request.alias;
    let id: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM templates WHERE id = $1")
        .bind(alias)
        .fetch_optional(&mut **tx)
        .await
        .map_err(query(REQUEST))?;
    if id.is_some() {
        return Err(RequestBuildError::NameIsId(alias.clone()));
    }
    let known: Option<(String, String)> = sqlx::query_as(
        "SELECT t.id, t.team_id FROM template_aliases a JOIN templates t ON t.id = a.template_id
         WHERE a.namespace = $1 AND a.alias = $2",
    )
    .bind(&request.namespace)
    .bind(alias)
    .fetch_optional(&mut **tx)
    .await
    .map_err(query(REQUEST))?;
    match known {
        Some((_, team)) if team != request.team_id.to_string() => {
            Err(RequestBuildError::NameTaken(alias.clone()))
        }
        Some((id, _)) => Ok(id.parse().map_err(|_| malformed("template_id", &id))?),
        None => {
            let id = TemplateId::random();
            insert_template(tx, &id, request.team_id, false, request.at).await?;
            insert_alias(tx, &request.namespace, alias, &id, request.at).await?;
            Ok(id)
        }
    }
}

async fn supersede(
    tx: &mut Transaction<'_, Sqlite>,
    template: &TemplateId,
    tag: &str,
    request: &BuildRequest,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE builds SET status = 'error', reason = $3, updated_at = $4, finished_at = $4
         WHERE template_id = $1 AND status = 'waiting' AND id IN
           (SELECT build_id FROM template_tags WHERE template_id = $1 AND tag = $2)",
    )
    .bind(template.as_str())
    .bind(tag)
    .bind(&request.superseded)
    .bind(micros(request.at))
    .execute(&mut **tx)
    .await
    .map_err(query("supersede builds"))?;
    Ok(())
}
