//! Templates, their names, builds and tags.

mod builds;
pub(crate) mod register;
mod rows;
mod tags;

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::{BuildId, CaptureKind, Resources, StartCommand, TeamId, TemplateId};

pub use self::builds::{BuildOutcome, BuildRequest, BuildRequested, RequestBuildError};
use self::rows::{BuildRow, TemplateRow};
pub use self::tags::{DeleteTemplateError, TagRecord};
use crate::error::query;
use crate::time::micros;
use crate::{Store, StoreError};

/// A template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateRecord {
    /// Its id.
    pub id: TemplateId,
    /// The team that owns it.
    pub team_id: TeamId,
    /// Whether other teams may use it.
    pub public: bool,
    /// Sandboxes made from it so far.
    pub spawn_count: u64,
    /// When the last of them was made.
    pub last_spawned_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A name of a template.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct AliasRecord {
    /// Slug of the team, or empty for a global name.
    pub namespace: String,
    /// The name in it.
    pub alias: String,
}

/// How far a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildStatus {
    /// Requested.
    Waiting,
    /// Under way.
    Building,
    /// Usable.
    Ready,
    /// Failed.
    Error,
}

impl BuildStatus {
    /// The word in the database and on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Error => "error",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Waiting, Self::Building, Self::Ready, Self::Error]
            .into_iter()
            .find(|status| status.as_str() == word)
    }
}

/// What the sandboxes of a build are made from and how they start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildContent {
    /// Digests of its layers, lowest first.
    pub layers: Vec<String>,
    /// Variables of every process in its sandboxes.
    pub env: BTreeMap<String, String>,
    /// Variables that its steps ended with, if it was made of steps.
    pub build_env: Option<BTreeMap<String, String>>,
    /// User that commands run as.
    pub default_user: String,
    /// Directory that commands start in; the user's home if unset.
    pub default_workdir: Option<String>,
    /// What its sandboxes have running before they are handed out.
    pub start: Option<StartCommand>,
    /// For a build made from a sandbox: what was captured of it.
    pub capture: Option<CaptureKind>,
    /// Limits of its sandboxes.
    pub resources: Resources,
    /// Version of the agent in its sandboxes.
    pub envd_version: String,
}

/// Why a build failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildReason {
    /// What is told to the user.
    pub message: String,
    /// The step that failed, if it was one.
    pub step: Option<String>,
}

/// One build of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRecord {
    /// Its id.
    pub id: BuildId,
    /// The template.
    pub template_id: TemplateId,
    /// How far it is.
    pub status: BuildStatus,
    /// Why it failed, if it did.
    pub reason: Option<BuildReason>,
    /// What its sandboxes are made from; whole once it is ready.
    pub content: BuildContent,
    /// Free space in MiB that was asked for, if any was.
    pub min_free_disk_mib: Option<u64>,
    /// When it was requested.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it became ready or failed.
    pub finished_at: Option<Timestamp>,
}

/// A ready build made outside the build API, to be known under a name.
#[derive(Debug, Clone)]
pub struct BuildRegistration {
    /// Owner of the template if it has to be made.
    pub team_id: TeamId,
    /// Slug of the team, or empty for a global name.
    pub namespace: String,
    /// The name.
    pub alias: String,
    /// Whether other teams may use the template.
    pub public: bool,
    /// Tag that the build gets.
    pub tag: String,
    /// What its sandboxes are made from.
    pub content: BuildContent,
    /// The time of the registration.
    pub at: Timestamp,
}

/// A template with what lists show of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateSummary {
    /// The template.
    pub template: TemplateRecord,
    /// Its names, sorted.
    pub aliases: Vec<AliasRecord>,
    /// Number of its builds.
    pub build_count: u64,
    /// The newest ready build of tag `default`.
    pub ready: Option<BuildRecord>,
    /// Status of the newest build of tag `default`.
    pub status: Option<BuildStatus>,
}

const TEMPLATE: &str = "read template";

impl Store {
    /// The live template of this name; the empty namespace holds global names.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_by_alias(
        &self,
        namespace: &str,
        alias: &str,
    ) -> Result<Option<TemplateRecord>, StoreError> {
        let row: Option<TemplateRow> = sqlx::query_as(
            "SELECT t.* FROM templates t JOIN template_aliases a ON a.template_id = t.id
             WHERE a.namespace = $1 AND a.alias = $2 AND t.deleted_at IS NULL",
        )
        .bind(namespace)
        .bind(alias)
        .fetch_optional(&self.reader)
        .await
        .map_err(query(TEMPLATE))?;
        row.map(TemplateRecord::try_from).transpose()
    }

    /// The live template of this id.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_get(
        &self,
        id: &TemplateId,
    ) -> Result<Option<TemplateRecord>, StoreError> {
        let row: Option<TemplateRow> =
            sqlx::query_as("SELECT * FROM templates WHERE id = $1 AND deleted_at IS NULL")
                .bind(id.as_str())
                .fetch_optional(&self.reader)
                .await
                .map_err(query(TEMPLATE))?;
        row.map(TemplateRecord::try_from).transpose()
    }

    /// Lets other teams use the template, or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_set_public(
        &self,
        id: &TemplateId,
        public: bool,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE templates SET public = $2, updated_at = $3 WHERE id = $1")
            .bind(id.as_str())
            .bind(i64::from(public))
            .bind(micros(at))
            .execute(&self.writer)
            .await
            .map_err(query("publish template"))?;
        Ok(())
    }

    /// Adds to the count of sandboxes made from a template.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_spawned(
        &self,
        id: &TemplateId,
        sandboxes: u32,
        last: Timestamp,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE templates SET spawn_count = spawn_count + $2, last_spawned_at = $3
             WHERE id = $1",
        )
        .bind(id.as_str())
        .bind(i64::from(sandboxes))
        .bind(micros(last))
        .execute(&self.writer)
        .await
        .map_err(query("count sandboxes of template"))?;
        Ok(())
    }

    /// The names of a template, first given first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn alias_list(&self, id: &TemplateId) -> Result<Vec<AliasRecord>, StoreError> {
        sqlx::query_as(
            "SELECT namespace, alias FROM template_aliases WHERE template_id = $1
             ORDER BY created_at, namespace, alias",
        )
        .bind(id.as_str())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list names of template"))
    }

    /// The newest ready build that carries the tag.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_by_tag(
        &self,
        template: &TemplateId,
        tag: &str,
    ) -> Result<Option<BuildRecord>, StoreError> {
        let row: Option<BuildRow> = sqlx::query_as(
            "SELECT b.* FROM builds b JOIN template_tags g ON g.build_id = b.id
             WHERE g.template_id = $1 AND g.tag = $2 AND b.status = 'ready'
             ORDER BY g.created_at DESC, b.created_at DESC LIMIT 1",
        )
        .bind(template.as_str())
        .bind(tag)
        .fetch_optional(&self.reader)
        .await
        .map_err(query("read build of tag"))?;
        row.map(BuildRecord::try_from).transpose()
    }

    /// This build of the template, if it is ready.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_ready(
        &self,
        template: &TemplateId,
        build: BuildId,
    ) -> Result<Option<BuildRecord>, StoreError> {
        let row: Option<BuildRow> = sqlx::query_as(
            "SELECT * FROM builds WHERE id = $1 AND template_id = $2 AND status = 'ready'",
        )
        .bind(build.to_string())
        .bind(template.as_str())
        .fetch_optional(&self.reader)
        .await
        .map_err(query("read build"))?;
        row.map(BuildRecord::try_from).transpose()
    }

    /// The builds of a template, newest first: those older than `before`, if given.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn build_list(
        &self,
        template: &TemplateId,
        before: Option<(Timestamp, BuildId)>,
        limit: u32,
    ) -> Result<Vec<BuildRecord>, StoreError> {
        let (at, id) = before.map_or((i64::MAX, String::new()), |(at, id)| {
            (micros(at), id.to_string())
        });
        let rows: Vec<BuildRow> = sqlx::query_as(
            "SELECT * FROM builds
             WHERE template_id = $1 AND (created_at < $2 OR (created_at = $2 AND id > $3))
             ORDER BY created_at DESC, id LIMIT $4",
        )
        .bind(template.as_str())
        .bind(at)
        .bind(id)
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await
        .map_err(query("list builds"))?;
        rows.into_iter().map(BuildRecord::try_from).collect()
    }

    /// The templates of a team, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_list(&self, team: TeamId) -> Result<Vec<TemplateSummary>, StoreError> {
        let action = "list templates";
        let rows: Vec<TemplateRow> = sqlx::query_as(
            "SELECT * FROM templates t WHERE team_id = $1 AND deleted_at IS NULL
             AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.template_id = t.id)
             ORDER BY created_at, id",
        )
        .bind(team.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query(action))?;
        let mut summaries = Vec::with_capacity(rows.len());
        for row in rows {
            summaries.push(self.template_summary(row.try_into()?).await?);
        }
        Ok(summaries)
    }

    /// Adds names and builds to a template.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_summary(
        &self,
        template: TemplateRecord,
    ) -> Result<TemplateSummary, StoreError> {
        let mut aliases = self.alias_list(&template.id).await?;
        aliases.sort_by(|a, b| (&a.alias, &a.namespace).cmp(&(&b.alias, &b.namespace)));
        let (count,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM builds WHERE template_id = $1")
            .bind(template.id.as_str())
            .fetch_one(&self.reader)
            .await
            .map_err(query("count builds"))?;
        let newest: Option<(String,)> = sqlx::query_as(
            "SELECT b.status FROM builds b JOIN template_tags g ON g.build_id = b.id
             WHERE g.template_id = $1 AND g.tag = 'default'
             ORDER BY g.created_at DESC, b.created_at DESC LIMIT 1",
        )
        .bind(template.id.as_str())
        .fetch_optional(&self.reader)
        .await
        .map_err(query("read status of template"))?;
        let ready = self.build_by_tag(&template.id, "default").await?;
        Ok(TemplateSummary {
            aliases,
            build_count: count.unsigned_abs(),
            ready,
            status: newest.and_then(|(status,)| BuildStatus::parse(&status)),
            template,
        })
    }
}
