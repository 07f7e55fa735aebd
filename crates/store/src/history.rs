//! How large the database is, keeping history below a size, and copies of it all.

use std::path::Path;

use sqlx::sqlite::SqliteConnectOptions;

use crate::error::query;
use crate::{Store, StoreError};

/// What a sample of a sandbox's figures takes, with its share of the indexes, in bytes.
const METRIC_BYTES: u64 = 180;
/// The same of an event or an audit entry, without its data.
const EVENT_BYTES: u64 = 600;
const AUDIT_BYTES: u64 = 500;
/// Rows whose data is measured to know how large those of a table are.
const MEASURED: u32 = 200;

/// A table that grows with time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// Figures of sandboxes.
    Metrics,
    /// Lifecycle events.
    Events,
    /// The audit trail.
    Audit,
}

impl History {
    fn table(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Events => "events",
            Self::Audit => "audit",
        }
    }

    fn row_bytes(self) -> u64 {
        match self {
            Self::Metrics => METRIC_BYTES,
            Self::Events => EVENT_BYTES,
            Self::Audit => AUDIT_BYTES,
        }
    }
}

/// How large things are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DatabaseSize {
    /// Bytes of the database.
    pub bytes: u64,
    /// Deliveries that are not over.
    pub deliveries: u64,
}

impl Store {
    /// How large the database is.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn size(&self) -> Result<DatabaseSize, StoreError> {
        let (bytes, deliveries): (i64, i64) = sqlx::query_as(
            "SELECT (SELECT page_count FROM pragma_page_count())
                      * (SELECT page_size FROM pragma_page_size()),
                    (SELECT COUNT(*) FROM deliveries WHERE state = 'pending')",
        )
        .fetch_one(&self.reader)
        .await
        .map_err(query("measure the database"))?;
        Ok(DatabaseSize {
            bytes: bytes.unsigned_abs(),
            deliveries: deliveries.unsigned_abs(),
        })
    }

    /// Forgets up to `limit` of the oldest rows of a table while it takes more than about
    /// `bytes`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn history_trim(
        &self,
        history: History,
        bytes: u64,
        limit: u32,
    ) -> Result<u64, StoreError> {
        const ACTION: &str = "keep history below its size";
        let table = history.table();
        // Rows are numbered in the order of writing and deleted in about the same, so that
        // the numbers tell how many there are without counting.
        let statement = format!("SELECT MIN(rowid), MAX(rowid) FROM {table}");
        let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(&statement)
            .fetch_one(&self.reader)
            .await
            .map_err(query(ACTION))?;
        let Some((first, last)) = first.zip(last) else {
            return Ok(0);
        };
        let mut row = history.row_bytes();
        if history != History::Metrics {
            let statement = format!(
                "SELECT CAST(COALESCE(AVG(LENGTH(data)), 0) AS BIGINT)
                 FROM (SELECT data FROM {table} ORDER BY rowid DESC LIMIT $1)"
            );
            let (data,): (i64,) = sqlx::query_as(&statement)
                .bind(i64::from(MEASURED))
                .fetch_one(&self.reader)
                .await
                .map_err(query(ACTION))?;
            row += data.unsigned_abs();
        }
        let kept = i64::try_from(bytes / row).unwrap_or(i64::MAX);
        let end = last.saturating_sub(kept);
        if end < first {
            return Ok(0);
        }
        let mut tx = self.writer.begin().await.map_err(query(ACTION))?;
        let old = format!("SELECT rowid FROM {table} WHERE rowid <= $1 ORDER BY rowid LIMIT $2");
        if history == History::Events {
            let statement = format!("DELETE FROM deliveries WHERE event_seq IN ({old})");
            sqlx::query(&statement)
                .bind(end)
                .bind(i64::from(limit))
                .execute(&mut *tx)
                .await
                .map_err(query(ACTION))?;
        }
        let statement = format!("DELETE FROM {table} WHERE rowid IN ({old})");
        let done = sqlx::query(&statement)
            .bind(end)
            .bind(i64::from(limit))
            .execute(&mut *tx)
            .await
            .map_err(query(ACTION))?;
        tx.commit().await.map_err(query(ACTION))?;
        Ok(done.rows_affected())
    }

    /// Opens a database for reading without bringing its schema up to date: that of a server
    /// that runs, perhaps of another version.
    ///
    /// # Errors
    /// [`StoreError`] when there is none or it can't be read.
    pub async fn open_as_is(path: &Path) -> Result<Self, StoreError> {
        const ACTION: &str = "open the database";
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(false)
            .busy_timeout(std::time::Duration::from_secs(30));
        let pool = sqlx::sqlite::SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(query(ACTION))?;
        Ok(Self::of_pools(pool.clone(), pool, path))
    }

    /// Writes a copy of the database as it is at this moment to a file that is not there
    /// yet, without holding up whoever writes to it.
    ///
    /// # Errors
    /// [`StoreError`] when the database or the disk fails.
    pub async fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        sqlx::query("VACUUM INTO $1")
            .bind(path.to_string_lossy().into_owned())
            .execute(&self.writer)
            .await
            .map_err(query("copy the database"))?;
        Ok(())
    }

    /// The layers that any ready build of a template needs.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn layers_of_builds(&self) -> Result<std::collections::BTreeSet<String>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT DISTINCT layer.value FROM builds b
             JOIN templates t ON t.id = b.template_id AND t.deleted_at IS NULL
             JOIN json_each(b.layers) AS layer
             WHERE b.status = 'ready'",
        )
        .fetch_all(&self.reader)
        .await
        .map_err(query("list layers of builds"))?;
        Ok(rows.into_iter().map(|(layer,)| layer).collect())
    }

    /// Fails the builds that are made from captures of sandboxes, which are gone, and takes
    /// the sandboxes for lost. Returns how many builds.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn forget_captures(&self, reason: &str) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "UPDATE builds SET status = 'error', reason = $1
             WHERE capture IS NOT NULL AND status = 'ready'",
        )
        .bind(reason)
        .execute(&self.writer)
        .await
        .map_err(query("forget captures"))?;
        Ok(done.rows_affected())
    }
}
