//! Connections: one that writes, a few that read, one that checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::Notify;

use crate::error::query;
use crate::migrate::MIGRATIONS;
use crate::{OpenError, StoreError};

/// How long a connection waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a query waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 3;
/// Size of the write-ahead log from which it is carried over into the database.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
/// What is kept of the log's file when it begins anew, so that its size tells how much
/// there is to carry over.
const KEPT_LOG_BYTES: &str = "1048576";

/// The database. Clones share its connections.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) writer: SqlitePool,
    pub(crate) reader: SqlitePool,
    log: Arc<PathBuf>,
    /// Told when deliveries were written.
    pub(crate) outbox: Arc<Notify>,
}

impl Store {
    /// Opens the database at `path`, making it if absent, and brings its schema up to date.
    ///
    /// # Errors
    /// [`OpenError`] when the file is no database, can't be written, or was made by a
    /// newer version.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let open = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let options = options(path);
        let writer = pool(1).connect_with(options.clone()).await.map_err(open)?;
        MIGRATIONS.run(&writer).await.map_err(|error| {
            let path = path.to_owned();
            match error {
                MigrateError::VersionMissing(schema) | MigrateError::VersionMismatch(schema) => {
                    OpenError::Newer { path, schema }
                }
                source => OpenError::Migrate { path, source },
            }
        })?;
        let reader = pool(READERS).connect_with(options).await.map_err(open)?;
        Ok(Self::of_pools(writer, reader, path))
    }

    /// A database over connections to it.
    pub(crate) fn of_pools(writer: SqlitePool, reader: SqlitePool, path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Self {
            writer,
            reader,
            log: Arc::new(PathBuf::from(log)),
            outbox: Arc::default(),
        }
    }

    /// Carries the write-ahead log over into the database once it has grown, without
    /// holding up readers or the writer. Call it now and then; commits never do it, so
    /// that none of them waits for the disk.
    ///
    /// # Errors
    /// [`StoreError::Query`] when the disk fails.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        let grown = tokio::fs::metadata(&*self.log)
            .await
            .is_ok_and(|log| log.len() >= CHECKPOINT_BYTES);
        if grown {
            sqlx::query("PRAGMA wal_checkpoint(PASSIVE)")
                .execute(&self.reader)
                .await
                .map_err(query("checkpoint the database"))?;
        }
        Ok(())
    }

    /// Closes all connections once their queries are done.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .min_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        .pragma("wal_autocheckpoint", "0")
        .pragma("journal_size_limit", KEPT_LOG_BYTES)
        .statement_cache_capacity(128)
        .optimize_on_close(false, None)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use sqlx::Row;
    use sqlx::migrate::Migrator;

    use super::*;

    /// Rows in each table of the first schema.
    const ROWS: &str = "
        INSERT INTO teams VALUES ('t', 'Team', 'team', 3, 1);
        INSERT INTO users VALUES ('u', 'a@b', 1);
        INSERT INTO team_members VALUES ('u', 't', 1);
        INSERT INTO api_keys VALUES ('k', 't', 'key', 'hash', 40, 'e2b_', 'abcd', 1);
        INSERT INTO access_tokens VALUES ('a', 'u', 'token', 'hash', 1);
        INSERT INTO templates VALUES ('p', 't', 1, 5, 6, 7, 8, NULL);
        INSERT INTO template_aliases VALUES ('', 'base', 'p', 1);
        INSERT INTO builds VALUES
            ('b', 'p', 'ready', '[]', '{}', 'user', NULL, 2, 512, 1024, 10, '0.6', 1, 2, 3);
        INSERT INTO template_tags VALUES ('p', 'default', 'b', 1);
        INSERT INTO sandboxes VALUES ('s', 't', 'p', 'b', 'base', 'running', 1, 2, NULL, NULL,
            2, 512, 1024, '{}', 1, 0, 1, NULL, 0, 0, NULL);
        INSERT INTO metrics VALUES ('s', 1, 2, 3.5, 4, 5, 6, 7, 8);
        INSERT INTO idempotency VALUES ('t', 'key', 'print', 'done', 201, '{}', 1);
    ";
    const TABLES: [&str; 12] = [
        "teams",
        "users",
        "team_members",
        "api_keys",
        "access_tokens",
        "templates",
        "template_aliases",
        "builds",
        "template_tags",
        "sandboxes",
        "metrics",
        "idempotency",
    ];

    fn first(count: usize) -> Migrator {
        let migrations = MIGRATIONS.migrations[..count].to_vec();
        Migrator {
            migrations: Cow::Owned(migrations),
            ..Migrator::DEFAULT
        }
    }

    async fn columns(pool: &SqlitePool, table: &str) -> Vec<String> {
        let text = format!("PRAGMA table_info({table})");
        let rows = sqlx::query(&text).fetch_all(pool).await.unwrap();
        rows.iter().map(|row| row.get("name")).collect()
    }

    /// What tables hold in these columns, as text.
    async fn content(pool: &SqlitePool, tables: &[(&str, Vec<String>)]) -> Vec<String> {
        let mut found = Vec::new();
        for (table, columns) in tables {
            let columns = columns.join(", ");
            let text = format!("SELECT json_group_array(json_array({columns})) FROM {table}");
            found.push(sqlx::query(&text).fetch_one(pool).await.unwrap().get(0));
        }
        found
    }

    #[tokio::test]
    async fn migrations_from_every_version_keep_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        for count in 1..=MIGRATIONS.migrations.len() {
            let path = dir.path().join(format!("{count}.db"));
            let old = pool(1).connect_with(options(&path)).await.unwrap();
            // The rows are of the first version, whatever was added since.
            first(1).run(&old).await.unwrap();
            sqlx::raw_sql(ROWS).execute(&old).await.unwrap();
            first(count).run(&old).await.unwrap();
            let mut tables = Vec::new();
            for table in TABLES {
                tables.push((table, columns(&old, table).await));
            }
            let before = content(&old, &tables).await;
            old.close().await;
            let store = Store::open(&path).await.unwrap();
            assert_eq!(content(&store.reader, &tables).await, before, "{count}");
            assert!(before.iter().all(|rows| rows.len() > 4), "{before:?}");
            store.close().await;
        }
    }

    #[tokio::test]
    async fn a_database_of_a_newer_version_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("warren.db");
        Store::open(&path).await.unwrap().close().await;
        let newer = pool(1).connect_with(options(&path)).await.unwrap();
        let rows = "INSERT INTO _sqlx_migrations
            SELECT 99990101, 'later', installed_on, 1, checksum, 0 FROM _sqlx_migrations LIMIT 1;
            CREATE TABLE later (x TEXT);";
        sqlx::raw_sql(rows).execute(&newer).await.unwrap();
        newer.close().await;
        let error = Store::open(&path).await.unwrap_err();
        let told = error.to_string();
        assert!(
            told.contains("schema 99990101") && told.contains("hint:"),
            "{told}"
        );
    }
}
