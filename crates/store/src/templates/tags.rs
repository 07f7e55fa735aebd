//! Tags and names of templates, and their end.

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::{BuildId, TemplateId};

use super::register::{insert_alias, insert_tag};
use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// A tag and the build that it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagRecord {
    /// The tag.
    pub tag: String,
    /// The build.
    pub build_id: BuildId,
    /// When the build got the tag.
    pub assigned_at: Timestamp,
    /// When the build was requested.
    pub build_created_at: Timestamp,
    /// When it became ready.
    pub build_finished_at: Option<Timestamp>,
}

#[derive(FromRow)]
struct TagRow {
    tag: String,
    build_id: String,
    created_at: i64,
    build_created_at: i64,
    build_finished_at: Option<i64>,
}

impl TryFrom<TagRow> for TagRecord {
    type Error = StoreError;

    fn try_from(row: TagRow) -> Result<Self, StoreError> {
        let id = &row.build_id;
        Ok(Self {
            build_id: id.parse().map_err(|_| malformed("build_id", id))?,
            assigned_at: timestamp(row.created_at, "created_at", id)?,
            build_created_at: timestamp(row.build_created_at, "created_at", id)?,
            build_finished_at: row
                .build_finished_at
                .map(|at| timestamp(at, "finished_at", id))
                .transpose()?,
            tag: row.tag,
        })
    }
}

/// Why a template is not deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteTemplateError {
    /// Sandboxes of its team run on it.
    #[error("cannot delete template '{0}' because there are running sandboxes using it")]
    Running(TemplateId),
    /// Sandboxes of its team are paused on it.
    #[error("cannot delete template '{0}' because there are paused sandboxes using it")]
    Paused(TemplateId),
    /// It is gone already.
    #[error("Template {0} not found")]
    Gone(TemplateId),
    /// The database failed.
    #[error("delete template")]
    Store(#[from] StoreError),
}

const DELETE: &str = "delete template";

impl Store {
    /// Gives a build these tags, from now on. All or nothing.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tag_assign(
        &self,
        template: &TemplateId,
        build: BuildId,
        tags: &[String],
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let action = "assign tags";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        for tag in tags {
            insert_tag(&mut tx, template, tag, build, at).await?;
        }
        tx.commit().await.map_err(query(action))
    }

    /// Forgets these tags of a template, with their history.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tag_remove(
        &self,
        template: &TemplateId,
        tags: &[String],
    ) -> Result<(), StoreError> {
        let action = "remove tags";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        for tag in tags {
            sqlx::query("DELETE FROM template_tags WHERE template_id = $1 AND tag = $2")
                .bind(template.as_str())
                .bind(tag)
                .execute(&mut *tx)
                .await
                .map_err(query(action))?;
        }
        tx.commit().await.map_err(query(action))
    }

    /// Every assignment of a tag to a ready build of the template: by tag, and the newest
    /// of a tag, which counts, first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn tag_history(&self, template: &TemplateId) -> Result<Vec<TagRecord>, StoreError> {
        let rows: Vec<TagRow> = sqlx::query_as(
            "SELECT g.tag, g.build_id, g.created_at, b.created_at AS build_created_at,
                    b.finished_at AS build_finished_at
             FROM template_tags g JOIN builds b ON b.id = g.build_id
             WHERE g.template_id = $1 AND b.status = 'ready'
             ORDER BY g.tag, g.created_at DESC, b.created_at DESC",
        )
        .bind(template.as_str())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list tags"))?;
        rows.into_iter().map(TagRecord::try_from).collect()
    }

    /// Gives a template a global name. Returns false if another one has it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn alias_claim(
        &self,
        template: &TemplateId,
        alias: &str,
        at: Timestamp,
    ) -> Result<bool, StoreError> {
        let action = "claim name";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        let holder: Option<(String,)> = sqlx::query_as(
            "SELECT template_id FROM template_aliases WHERE namespace = '' AND alias = $1",
        )
        .bind(alias)
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(action))?;
        match holder {
            Some((id,)) => return Ok(id == template.as_str()),
            None => insert_alias(&mut tx, "", alias, template, at).await?,
        }
        tx.commit().await.map_err(query(action))?;
        Ok(true)
    }

    /// Deletes a template unless sandboxes of its team are on it: frees its names, gives up
    /// its open builds with this reason, keeps its id reserved.
    ///
    /// # Errors
    /// [`DeleteTemplateError`] if it is in use or gone, or the database fails.
    pub async fn template_delete(
        &self,
        id: &TemplateId,
        reason: &str,
        at: Timestamp,
    ) -> Result<(), DeleteTemplateError> {
        let mut tx = self.writer.begin().await.map_err(query(DELETE))?;
        let states: Vec<(String,)> = sqlx::query_as(
            "SELECT DISTINCT s.state FROM sandboxes s JOIN templates t ON t.id = s.template_id
             WHERE t.id = $1 AND s.team_id = t.team_id AND s.ended_at IS NULL",
        )
        .bind(id.as_str())
        .fetch_all(&mut *tx)
        .await
        .map_err(query(DELETE))?;
        if states.iter().any(|(state,)| state != "paused") {
            return Err(DeleteTemplateError::Running(id.clone()));
        }
        if !states.is_empty() {
            return Err(DeleteTemplateError::Paused(id.clone()));
        }
        let deleted = sqlx::query(
            "UPDATE templates SET deleted_at = $2, updated_at = $2
             WHERE id = $1 AND deleted_at IS NULL",
        )
        .bind(id.as_str())
        .bind(micros(at))
        .execute(&mut *tx)
        .await
        .map_err(query(DELETE))?;
        if deleted.rows_affected() == 0 {
            return Err(DeleteTemplateError::Gone(id.clone()));
        }
        sqlx::query("DELETE FROM template_aliases WHERE template_id = $1")
            .bind(id.as_str())
            .execute(&mut *tx)
            .await
            .map_err(query(DELETE))?;
        sqlx::query(
            "UPDATE builds SET status = 'error', reason = $2, updated_at = $3, finished_at = $3
             WHERE template_id = $1 AND status IN ('waiting', 'building')",
        )
        .bind(id.as_str())
        .bind(reason)
        .bind(micros(at))
        .execute(&mut *tx)
        .await
        .map_err(query(DELETE))?;
        tx.commit().await.map_err(query(DELETE))?;
        Ok(())
    }
}
