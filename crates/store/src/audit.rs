//! The audit trail: who did what. Entries about teams, people and keys are written in the
//! transaction of the change; those about other requests before these are answered.

use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::{FromRow, QueryBuilder, Sqlite, SqliteConnection};
use warren_types::{ApiKeyId, AuditId, TeamId, UserId};

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

const WRITE: &str = "write audit entry";

/// Somebody who does something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Whoever has this API key.
    Key(ApiKeyId),
    /// A person, by an access token.
    User(UserId),
    /// Whoever has the administrator's token.
    Admin,
    /// A command on the server's machine.
    Local,
    /// The server itself.
    System,
    /// Whoever has a volume's token that does not say for whom it was made.
    Volume,
}

impl Actor {
    /// Its kind, as the trail names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::User(_) => "user",
            Self::Admin => "admin",
            Self::Local => "local",
            Self::System => "system",
            Self::Volume => "volume",
        }
    }

    /// Id of the key or person, if it is one.
    #[must_use]
    pub fn id(&self) -> Option<String> {
        match self {
            Self::Key(id) => Some(id.to_string()),
            Self::User(id) => Some(id.to_string()),
            Self::Admin | Self::Local | Self::System | Self::Volume => None,
        }
    }

    /// The actor of this kind and id, if there is one.
    #[must_use]
    pub fn parse(kind: &str, id: Option<&str>) -> Option<Self> {
        match (kind, id) {
            ("key", Some(id)) => id.parse().ok().map(Self::Key),
            ("user", Some(id)) => id.parse().ok().map(Self::User),
            ("admin", None) => Some(Self::Admin),
            ("local", None) => Some(Self::Local),
            ("system", None) => Some(Self::System),
            ("volume", None) => Some(Self::Volume),
            _ => None,
        }
    }
}

/// Who does something, and in which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// The id that the answer to the request bears.
    pub request_id: Option<String>,
    /// The address that the request came from, if it came over the network.
    pub origin: Option<IpAddr>,
}

impl By {
    /// The server itself.
    pub const SYSTEM: Self = Self {
        actor: Actor::System,
        request_id: None,
        origin: None,
    };
}

/// An entry to be written.
#[derive(Debug, Clone)]
pub struct NewAudit<'a> {
    /// Who did it.
    pub by: &'a By,
    /// The team that it concerns.
    pub team: Option<TeamId>,
    /// What was done.
    pub action: &'a str,
    /// To what: an id.
    pub target: Option<&'a str>,
    /// Status of the answer, if it is known by now.
    pub status: Option<u16>,
    /// Why it was refused, if it was.
    pub reason: Option<&'a str>,
    /// Further facts; never a secret.
    pub data: Value,
}

impl<'a> NewAudit<'a> {
    /// Something that was done.
    pub(crate) fn done(by: &'a By, action: &'a str, target: &'a str) -> Self {
        Self {
            by,
            team: None,
            action,
            target: Some(target),
            status: None,
            reason: None,
            data: Value::Object(serde_json::Map::new()),
        }
    }

    pub(crate) fn of(self, team: TeamId) -> Self {
        Self {
            team: Some(team),
            ..self
        }
    }

    pub(crate) fn with(self, data: Value) -> Self {
        Self { data, ..self }
    }
}

/// An entry of the trail.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditRecord {
    /// Its id.
    pub id: AuditId,
    /// Its place in the order of writing.
    pub seq: i64,
    /// When.
    pub at: Timestamp,
    /// The team that it concerns.
    pub team_id: Option<TeamId>,
    /// Who did it.
    pub actor: Actor,
    /// What was done.
    pub action: String,
    /// To what.
    pub target: Option<String>,
    /// Status of the answer, where there was one.
    pub status: Option<u16>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// The id that the answer bore.
    pub request_id: Option<String>,
    /// The address that the request came from.
    pub origin: Option<String>,
    /// Further facts.
    pub data: Value,
}

#[derive(FromRow)]
struct AuditRow {
    seq: i64,
    id: String,
    at: i64,
    team_id: Option<String>,
    actor: String,
    actor_id: Option<String>,
    action: String,
    target: Option<String>,
    status: Option<i64>,
    reason: Option<String>,
    request_id: Option<String>,
    origin: Option<String>,
    data: String,
}

impl TryFrom<AuditRow> for AuditRecord {
    type Error = StoreError;

    fn try_from(row: AuditRow) -> Result<Self, StoreError> {
        let bad = |field| malformed(field, &row.id);
        let team_id = row.team_id.as_deref().map(str::parse).transpose();
        Ok(Self {
            id: row.id.parse().map_err(|_| bad("id"))?,
            seq: row.seq,
            at: timestamp(row.at, "at", &row.id)?,
            team_id: team_id.map_err(|_| bad("team_id"))?,
            actor: Actor::parse(&row.actor, row.actor_id.as_deref()).ok_or_else(|| bad("actor"))?,
            status: match row.status {
                Some(status) => Some(u16::try_from(status).map_err(|_| bad("status"))?),
                None => None,
            },
            data: serde_json::from_str(&row.data).map_err(|_| bad("data"))?,
            action: row.action,
            target: row.target,
            reason: row.reason,
            request_id: row.request_id,
            origin: row.origin,
        })
    }
}

/// Which entries are wanted. What is absent does not matter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Of this team.
    pub team: Option<TeamId>,
    /// About this target.
    pub target: Option<String>,
    /// Of this request.
    pub request_id: Option<String>,
    /// What was done begins like this.
    pub action: Option<String>,
    /// Done by this kind of actor.
    pub actor: Option<String>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Only what was refused.
    pub refused: bool,
    /// Written before the entry of this place: newest first, so this is the next page.
    pub before: Option<i64>,
    /// At most this many.
    pub limit: u32,
}

/// Writes an entry as a part of a transaction.
pub(crate) async fn write(
    tx: &mut SqliteConnection,
    entry: &NewAudit<'_>,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO audit
         (id, at, team_id, actor, actor_id, action, target, status, reason, request_id, data,
          origin)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(AuditId::random().to_string())
    .bind(micros(Timestamp::now()))
    .bind(entry.team.map(|team| team.to_string()))
    .bind(entry.by.actor.kind())
    .bind(entry.by.actor.id())
    .bind(entry.action)
    .bind(entry.target)
    .bind(entry.status.map(i64::from))
    .bind(entry.reason)
    .bind(&entry.by.request_id)
    .bind(entry.data.to_string())
    .bind(entry.by.origin.map(|origin| origin.to_string()))
    .execute(tx)
    .await
    .map_err(query(WRITE))?;
    Ok(())
}

impl Store {
    /// Adds an entry.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_insert(&self, entry: &NewAudit<'_>) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(query(WRITE))?;
        write(&mut connection, entry).await
    }

    /// Entries of the trail, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_list(&self, filter: &AuditFilter) -> Result<Vec<AuditRecord>, StoreError> {
        let mut select = QueryBuilder::<Sqlite>::new("SELECT * FROM audit WHERE 1 = 1");
        if let Some(team) = filter.team {
            select.push(" AND team_id = ").push_bind(team.to_string());
        }
        if let Some(target) = &filter.target {
            select.push(" AND target = ").push_bind(target.clone());
        }
        if let Some(request) = &filter.request_id {
            select.push(" AND request_id = ").push_bind(request.clone());
        }
        if let Some(action) = &filter.action {
            select.push(" AND substr(action, 1, length(");
            select.push_bind(action.clone()).push(")) = ");
            select.push_bind(action.clone());
        }
        if let Some(actor) = &filter.actor {
            select.push(" AND actor = ").push_bind(actor.clone());
        }
        if let Some(since) = filter.since {
            select.push(" AND at >= ").push_bind(micros(since));
        }
        if filter.refused {
            select.push(" AND status >= 400");
        }
        if let Some(before) = filter.before {
            select.push(" AND seq < ").push_bind(before);
        }
        select.push(" ORDER BY seq DESC LIMIT ");
        select.push_bind(i64::from(filter.limit));
        let rows: Vec<AuditRow> = select
            .build_query_as()
            .fetch_all(&self.reader)
            .await
            .map_err(query("list audit entries"))?;
        rows.into_iter().map(AuditRecord::try_from).collect()
    }

    /// Forgets up to `limit` entries before `before`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn audit_purge(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM audit WHERE seq IN
             (SELECT seq FROM audit WHERE at < $1 ORDER BY at LIMIT $2)",
        )
        .bind(micros(before))
        .bind(i64::from(limit))
        .execute(&self.writer)
        .await
        .map_err(query("forget audit entries"))?;
        Ok(done.rows_affected())
    }
}
