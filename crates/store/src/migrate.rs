//! The schema's versions, embedded in the program.

/// All migrations, in order.
pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
