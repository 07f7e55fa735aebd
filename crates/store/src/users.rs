//! People, and the teams that they are in.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{FromRow, SqliteConnection};
use warren_types::{Role, TeamId, UserId};

use crate::audit::{self, By, NewAudit};
use crate::error::{malformed, query};
use crate::teams::TeamRow;
use crate::time::{micros, timestamp};
use crate::{Store, StoreError, TeamRecord};

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    /// Their id.
    pub id: UserId,
    /// Their address, by which people know them.
    pub email: String,
    /// When they were added.
    pub created_at: Timestamp,
}

/// A person's place in a team, seen from the person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// The team.
    pub team: TeamRecord,
    /// What the person may do in it.
    pub role: Role,
    /// Whether it is the one meant when none is named.
    pub is_default: bool,
}

/// A person's place in a team, seen from the team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The person.
    pub user: UserRecord,
    /// What they may do in the team.
    pub role: Role,
}

#[derive(FromRow)]
struct UserRow {
    id: String,
    email: String,
    created_at: i64,
}

impl TryFrom<UserRow> for UserRecord {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.parse().map_err(|_| malformed("id", &row.id))?,
            created_at: timestamp(row.created_at, "created_at", &row.id)?,
            email: row.email,
        })
    }
}

#[derive(FromRow)]
struct MembershipRow {
    #[sqlx(flatten)]
    team: TeamRow,
    role: String,
}

#[derive(FromRow)]
struct MemberRow {
    #[sqlx(flatten)]
    user: UserRow,
    role: String,
}

/// Makes the oldest of a person's teams the default one, if none is.
async fn keep_default(
    tx: &mut SqliteConnection,
    user: &str,
    action: &'static str,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE team_members SET is_default = 1
         WHERE user_id = $1
           AND NOT EXISTS (SELECT 1 FROM team_members WHERE user_id = $1 AND is_default = 1)
           AND team_id = (SELECT t.id FROM teams t JOIN team_members m ON m.team_id = t.id
                          WHERE m.user_id = $1 ORDER BY t.created_at, t.id LIMIT 1)",
    )
    .bind(user)
    .execute(tx)
    .await
    .map_err(query(action))?;
    Ok(())
}

impl Store {
    /// Adds a person. Returns whether the address was new.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_insert(&self, by: &By, user: &UserRecord) -> Result<bool, StoreError> {
        const ACTION: &str = "add user";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let id = user.id.to_string();
        let done = sqlx::query(
            "INSERT INTO users (id, email, created_at) VALUES ($1, $2, $3)
             ON CONFLICT (email) DO NOTHING",
        )
        .bind(&id)
        .bind(&user.email)
        .bind(micros(user.created_at))
        .execute(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        let entry = NewAudit::done(by, "user.create", &id);
        audit::write(&mut tx, &entry.with(json!({ "email": user.email }))).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }

    /// All people, oldest first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_list(&self) -> Result<Vec<UserRecord>, StoreError> {
        let rows: Vec<UserRow> = sqlx::query_as("SELECT * FROM users ORDER BY created_at, id")
            .fetch_all(&self.reader)
            .await
            .map_err(query("list users"))?;
        rows.into_iter().map(UserRecord::try_from).collect()
    }

    /// The person of this id.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_get(&self, id: UserId) -> Result<Option<UserRecord>, StoreError> {
        let row: Option<UserRow> = sqlx::query_as("SELECT * FROM users WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(&self.reader)
            .await
            .map_err(query("read user"))?;
        row.map(UserRecord::try_from).transpose()
    }

    /// The person of this address.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_by_email(&self, email: &str) -> Result<Option<UserRecord>, StoreError> {
        let row: Option<UserRow> = sqlx::query_as("SELECT * FROM users WHERE email = $1")
            .bind(email)
            .fetch_optional(&self.reader)
            .await
            .map_err(query("read user"))?;
        row.map(UserRecord::try_from).transpose()
    }

    /// Deletes a person with their access tokens and places in teams. Keys that they made
    /// stay: they are the team's. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn user_delete(&self, by: &By, id: UserId) -> Result<bool, StoreError> {
        const ACTION: &str = "delete user";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let text = id.to_string();
        for statement in [
            "DELETE FROM access_tokens WHERE user_id = $1",
            "DELETE FROM team_members WHERE user_id = $1",
            "UPDATE api_keys SET created_by = NULL WHERE created_by = $1",
        ] {
            sqlx::query(statement)
                .bind(&text)
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        let email: Option<(String,)> =
            sqlx::query_as("DELETE FROM users WHERE id = $1 RETURNING email")
                .bind(&text)
                .fetch_optional(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        let Some((email,)) = email else {
            return Ok(false);
        };
        let entry = NewAudit::done(by, "user.delete", &text);
        audit::write(&mut tx, &entry.with(json!({ "email": email }))).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }

    /// Puts a person in a team, or changes what they may do in it. The first team of a
    /// person is their default one; `make_default` makes this one it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn member_set(
        &self,
        by: &By,
        team: TeamId,
        user: UserId,
        role: Role,
        make_default: bool,
    ) -> Result<(), StoreError> {
        const ACTION: &str = "set member of team";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let id = user.to_string();
        sqlx::query(
            "INSERT INTO team_members (user_id, team_id, is_default, role)
             VALUES ($1, $2, 0, $3)
             ON CONFLICT (user_id, team_id) DO UPDATE SET role = $3",
        )
        .bind(&id)
        .bind(team.to_string())
        .bind(role.as_str())
        .execute(&mut *tx)
        .await
        .map_err(query(ACTION))?;
        if make_default {
            sqlx::query("UPDATE team_members SET is_default = (team_id = $2) WHERE user_id = $1")
                .bind(&id)
                .bind(team.to_string())
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        keep_default(&mut tx, &id, ACTION).await?;
        let entry = NewAudit::done(by, "member.set", &id).of(team);
        audit::write(&mut tx, &entry.with(json!({ "role": role }))).await?;
        tx.commit().await.map_err(query(ACTION))
    }

    /// Takes a person out of a team. Returns whether they were in it.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn member_remove(
        &self,
        by: &By,
        team: TeamId,
        user: UserId,
    ) -> Result<bool, StoreError> {
        const ACTION: &str = "remove member of team";
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let id = user.to_string();
        let done = sqlx::query("DELETE FROM team_members WHERE user_id = $1 AND team_id = $2")
            .bind(&id)
            .bind(team.to_string())
            .execute(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        keep_default(&mut tx, &id, ACTION).await?;
        let entry = NewAudit::done(by, "member.remove", &id).of(team);
        audit::write(&mut tx, &entry).await?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(true)
    }

    /// The people of a team, by address.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn member_list(&self, team: TeamId) -> Result<Vec<Member>, StoreError> {
        let rows: Vec<MemberRow> = sqlx::query_as(
            "SELECT u.*, m.role FROM users u JOIN team_members m ON m.user_id = u.id
             WHERE m.team_id = $1 ORDER BY u.email",
        )
        .bind(team.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list members of team"))?;
        rows.into_iter()
            .map(|row| {
                let role = row.role.parse();
                Ok(Member {
                    role: role.map_err(|_| malformed("role", &row.user.id))?,
                    user: row.user.try_into()?,
                })
            })
            .collect()
    }

    /// The teams that a person is in, the default one first.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn membership_list(&self, user: UserId) -> Result<Vec<Membership>, StoreError> {
        let rows: Vec<MembershipRow> = sqlx::query_as(
            "SELECT t.*, m.role FROM teams t JOIN team_members m ON m.team_id = t.id
             WHERE m.user_id = $1 AND t.deleted_at IS NULL
             ORDER BY m.is_default DESC, t.created_at, t.id",
        )
        .bind(user.to_string())
        .fetch_all(&self.reader)
        .await
        .map_err(query("list teams of user"))?;
        // There is one default at most, and it sorts first.
        rows.into_iter()
            .enumerate()
            .map(|(index, row)| {
                let team: TeamRecord = row.team.try_into()?;
                let role = row.role.parse();
                Ok(Membership {
                    role: role.map_err(|_| malformed("role", &user.to_string()))?,
                    team,
                    is_default: index == 0,
                })
            })
            .collect()
    }
}
