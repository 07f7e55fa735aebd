//! Builds made from sandboxes.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{FromRow, SqliteConnection};
use warren_types::{BuildId, EventKind, SandboxId, TeamId, TemplateId};

use crate::error::{malformed, query};
use crate::events::{self, SUBJECT, Subject};
use crate::templates::register::{insert_alias, insert_build_as, insert_tag, insert_template};
use crate::templates::{BuildContent, BuildStatus};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

const INSERT: &str = "record snapshot";

/// A build made from a sandbox, to be recorded.
#[derive(Debug, Clone)]
pub struct NewSnapshot {
    /// Its id, under which the node keeps the capture.
    pub build_id: BuildId,
    /// The team that it belongs to.
    pub team_id: TeamId,
    /// The sandbox that it was made from.
    pub sandbox_id: SandboxId,
    /// Slug of the team and name, if it has a name.
    pub name: Option<(String, String)>,
    /// The tag.
    pub tag: String,
    /// What its sandboxes are made from.
    pub content: BuildContent,
    /// When it was made.
    pub at: Timestamp,
}

/// Why a snapshot is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordSnapshotError {
    /// A template that is none of snapshots has the name.
    #[error("the name '{0}' belongs to a template")]
    NameTaken(String),
    /// The database failed.
    #[error("record snapshot")]
    Store(#[from] StoreError),
}

/// A snapshot that its template's tag means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// The build.
    pub build_id: BuildId,
    /// The template.
    pub template_id: TemplateId,
    /// The sandbox that it was made from.
    pub sandbox_id: SandboxId,
    /// Slug of the team and name, if it has a name.
    pub name: Option<(String, String)>,
    /// The tag.
    pub tag: String,
    /// When it was made.
    pub created_at: Timestamp,
}

#[derive(FromRow)]
struct Row {
    build_id: String,
    template_id: String,
    sandbox_id: String,
    tag: String,
    created_at: i64,
    namespace: Option<String>,
    alias: Option<String>,
}

impl TryFrom<Row> for SnapshotRecord {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let id = &row.build_id;
        Ok(Self {
            build_id: id.parse().map_err(|_| malformed("build_id", id))?,
            template_id: row
                .template_id
                .parse()
                .map_err(|_| malformed("template_id", id))?,
            sandbox_id: row
                .sandbox_id
                .parse()
                .map_err(|_| malformed("sandbox_id", id))?,
            created_at: timestamp(row.created_at, "created_at", id)?,
            name: row.namespace.zip(row.alias),
            tag: row.tag,
        })
    }
}

impl Store {
    /// Records a snapshot as a ready build, of the template of its name or of a new one,
    /// and moves the tag to it.
    ///
    /// # Errors
    /// [`RecordSnapshotError`]; nothing is recorded then.
    pub async fn snapshot_insert(
        &self,
        snapshot: &NewSnapshot,
    ) -> Result<TemplateId, RecordSnapshotError> {
        let mut tx = self.writer.begin().await.map_err(query(INSERT))?;
        let (team, at) = (snapshot.team_id, snapshot.at);
        let known: Option<(String, i64)> = match &snapshot.name {
            None => None,
            Some((namespace, alias)) => sqlx::query_as(
                "SELECT a.template_id,
                        EXISTS (SELECT 1 FROM snapshots s WHERE s.template_id = a.template_id)
                 FROM template_aliases a WHERE a.namespace = $1 AND a.alias = $2",
            )
            .bind(namespace)
            .bind(alias)
            .fetch_optional(&mut *tx)
            .await
            .map_err(query(INSERT))?,
        };
        let template = match (known, &snapshot.name) {
            (Some((_, 0)), Some((_, alias))) => {
                return Err(RecordSnapshotError::NameTaken(alias.clone()));
            }
            (Some((id, _)), _) => id.parse().map_err(|_| malformed("template_id", &id))?,
            (None, name) => {
                let id = TemplateId::random();
                insert_template(&mut tx, &id, team, false, at).await?;
                if let Some((namespace, alias)) = name {
                    insert_alias(&mut tx, namespace, alias, &id, at).await?;
                }
                id
            }
        };
        let (build, ready) = (snapshot.build_id, BuildStatus::Ready);
        insert_build_as(
            &mut tx,
            build,
            &template,
            ready,
            &snapshot.content,
            None,
            at,
        )
        .await?;
        insert_tag(&mut tx, &template, &snapshot.tag, build, at).await?;
        sqlx::query(
            "INSERT INTO snapshots (build_id, template_id, team_id, sandbox_id, tag, created_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(build.to_string())
        .bind(template.as_str())
        .bind(team.to_string())
        .bind(snapshot.sandbox_id.as_str())
        .bind(&snapshot.tag)
        .bind(micros(at))
        .execute(&mut *tx)
        .await
        .map_err(query(INSERT))?;
        let told = checkpointed(&mut tx, snapshot, &template).await?;
        tx.commit().await.map_err(query(INSERT))?;
        self.delivered_later(told);
        Ok(template)
    }

    /// The team's snapshots, newest first; of those of one template and tag the newest.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn snapshot_list(&self, team: TeamId) -> Result<Vec<SnapshotRecord>, StoreError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT s.build_id, s.template_id, s.sandbox_id, s.tag, s.created_at,
                    a.namespace, a.alias
             FROM snapshots s
             JOIN templates t ON t.id = s.template_id
             LEFT JOIN template_aliases a ON a.template_id = s.template_id
             WHERE s.team_id = $1 AND t.deleted_at IS NULL AND NOT EXISTS
               (SELECT 1 FROM snapshots n WHERE n.template_id = s.template_id
                AND n.tag = s.tag AND n.created_at > s.created_at)
             ORDER BY s.created_at DESC, s.build_id",
        )
        .bind(team.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list snapshots"))?;
        rows.into_iter().map(SnapshotRecord::try_from).collect()
    }
}

/// Tells of the source that it was captured.
async fn checkpointed(
    tx: &mut SqliteConnection,
    snapshot: &NewSnapshot,
    template: &TemplateId,
) -> Result<bool, StoreError> {
    let statement = format!("SELECT {SUBJECT} FROM sandboxes WHERE id = $1");
    let subject: Option<Subject> = sqlx::query_as(&statement)
        .bind(snapshot.sandbox_id.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(query(INSERT))?;
    let Some(subject) = subject else {
        return Ok(false);
    };
    let snapshot_id = format!("{template}:{}", snapshot.tag);
    let data = subject.with("snapshot_id", json!(snapshot_id))?;
    events::write(tx, &subject, EventKind::Checkpointed, snapshot.at, &data).await
}
