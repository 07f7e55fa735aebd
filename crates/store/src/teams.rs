//! Teams, and the people in them.

use jiff::Timestamp;
use sqlx::FromRow;
use warren_types::{TeamId, UserId};

use crate::error::{malformed, query};
use crate::time::{micros, timestamp};
use crate::{Store, StoreError};

/// A team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamRecord {
    /// Its id.
    pub id: TeamId,
    /// What people call it.
    pub name: String,
    /// Namespace of its templates.
    pub slug: String,
    /// Sandboxes it may run at a time, where it differs from the server's default.
    pub max_sandboxes: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A person's place in a team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The team.
    pub team: TeamRecord,
    /// Whether it is the one meant when none is named.
    pub is_default: bool,
}

#[derive(FromRow)]
pub(crate) struct TeamRow {
    id: String,
    name: String,
    slug: String,
    max_sandboxes: Option<i64>,
    created_at: i64,
}

impl TryFrom<TeamRow> for TeamRecord {
    type Error = StoreError;

    fn try_from(row: TeamRow) -> Result<Self, StoreError> {
        let max_sandboxes = match row.max_sandboxes {
            None => None,
            Some(max) => Some(u32::try_from(max).map_err(|_| malformed("max_sandboxes", &row.id))?),
        };
        Ok(Self {
            id: row.id.parse().map_err(|_| malformed("id", &row.id))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            name: row.name,
            slug: row.slug,
            max_sandboxes,
        })
    }
}

impl Store {
    /// Adds a team. Does nothing if one of this slug exists.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_insert(&self, team: &TeamRecord) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO teams (id, name, slug, max_sandboxes, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (slug) DO NOTHING",
        )
        .bind(team.id.to_string())
        .bind(&team.name)
        .bind(&team.slug)
        .bind(team.max_sandboxes.map(i64::from))
        .bind(micros(team.created_at))
        .execute(&self.writer)
        .await
        .map_err(query("add team"))?;
        Ok(())
    }

    /// The team of this id.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_get(&self, id: TeamId) -> Result<Option<TeamRecord>, StoreError> {
        let row: Option<TeamRow> = sqlx::query_as("SELECT * FROM teams WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("read team"))?;
        row.map(TeamRecord::try_from).transpose()
    }

    /// The team of this slug.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_by_slug(&self, slug: &str) -> Result<Option<TeamRecord>, StoreError> {
        let row: Option<TeamRow> = sqlx::query_as("SELECT * FROM teams WHERE slug = $1")
            .bind(slug)
            .fetch_optional(&self.reader)
            .await
            .map_err(query("read team"))?;
        row.map(TeamRecord::try_from).transpose()
    }

    /// Sets how many sandboxes the team may run at a time; `None` for the default.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_set_max_sandboxes(
        &self,
        id: TeamId,
        max: Option<u32>,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE teams SET max_sandboxes = $2 WHERE id = $1")
            .bind(id.to_string())
            .bind(max.map(i64::from))
            .execute(&self.writer)
            .await
            .map_err(query("set limit of team"))?;
        Ok(())
    }

    /// Adds a person and puts them in a team, as their default one. The id of a known
    /// person is kept and returned.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_join(
        &self,
        email: &str,
        team: TeamId,
        at: Timestamp,
    ) -> Result<UserId, StoreError> {
        let action = "add user";
        let mut tx = self.writer.begin().await.map_err(query(action))?;
        sqlx::query(
            "INSERT INTO users (id, email, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (email) DO NOTHING",
        )
        .bind(UserId::random().to_string())
        .bind(email)
        .bind(micros(at))
        .execute(&mut *tx)
        .await
        .map_err(query(action))?;
        let (id,): (String,) = sqlx::query_as("SELECT id FROM users WHERE email = $1")
            .bind(email)
            .fetch_one(&mut *tx)
            .await
            .map_err(query(action))?;
        sqlx::query("UPDATE team_members SET is_default = 0 WHERE user_id = $1")
            .bind(&id)
            .execute(&mut *tx)
            .await
            .map_err(query(action))?;
        sqlx::query(
            "INSERT INTO team_members (user_id, team_id, is_default) VALUES ($1, $2, 1)
             ON CONFLICT (user_id, team_id) DO UPDATE SET is_default = 1",
        )
        .bind(&id)
        .bind(team.to_string())
        .execute(&mut *tx)
        .await
        .map_err(query(action))?;
        tx.commit().await.map_err(query(action))?;
        id.parse().map_err(|_| malformed("id", &id))
    }

    /// The teams that a person is in, the default one first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn membership_list(&self, user: UserId) -> Result<Vec<Membership>, StoreError> {
        let rows: Vec<TeamRow> = sqlx::query_as(
            "SELECT t.* FROM teams t JOIN team_members m ON m.team_id = t.id
             WHERE m.user_id = $1 ORDER BY m.is_default DESC, t.created_at, t.id",
        )
        .bind(user.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list teams of user"))?;
        // `user_join` keeps exactly one default, and it sorts first.
        rows.into_iter()
            .enumerate()
            .map(|(index, row)| {
                Ok(Membership {
                    team: row.try_into()?,
                    is_default: index == 0,
                })
            })
            .collect()
    }
}
