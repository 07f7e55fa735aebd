//! Times as the database keeps them.

use jiff::Timestamp;

use crate::StoreError;
use crate::error::malformed;

/// Microseconds since the epoch; what is below is cut.
pub(crate) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// The time that `micros` stands for.
pub(crate) fn timestamp(
    micros: i64,
    field: &'static str,
    record: &str,
) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|_| malformed(field, record))
}
