//! What can go wrong with the database.

use std::path::PathBuf;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be opened or is no database.
    #[error("open database {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A newer version, or another one, has changed the schema. Nothing was changed now.
    #[error(
        "the database {} is of another version of Warren (schema {schema}), which this one does not know\nhint: start that version or a newer one, or restore a backup from before it",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Number of the change of the schema.
        schema: i64,
    },
    /// The schema could not be brought up to date.
    #[error("migrate database {}", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: sqlx::migrate::MigrateError,
    },
}

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine refused or failed.
    #[error("{action}")]
    Query {
        /// What was being done.
        action: &'static str,
        /// The cause.
        #[source]
        source: sqlx::Error,
    },
    /// A stored value is not of its type: written by another version or by hand.
    #[error("read {field} of {record}: malformed value in the database")]
    Malformed {
        /// The column.
        field: &'static str,
        /// Id of the row.
        record: String,
    },
}

/// Names the action of a failed query.
pub(crate) fn query(action: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Query { action, source }
}

/// Names the field of a row that can't be read.
pub(crate) fn malformed(field: &'static str, record: &str) -> StoreError {
    StoreError::Malformed {
        field,
        record: record.to_owned(),
    }
}
