//! Connections: one that writes, a few that read, one that checkpoints.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sqlx::SqlitePool;
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
        MIGRATIONS
            .run(&writer)
            .await
            .map_err(|source| OpenError::Migrate {
                path: path.to_owned(),
                source,
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
