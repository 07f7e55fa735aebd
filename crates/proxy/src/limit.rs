//! How many requests may be in flight at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts requests in flight, up to an optional limit. One per run of a sandbox, so that
/// the count starts afresh with each.
#[derive(Debug, Default)]
pub struct ConnectionLimit {
    limit: Option<u32>,
    active: AtomicU32,
}

/// One request in flight; dropping it gives the place back.
#[derive(Debug)]
pub(crate) struct ConnectionPermit(Arc<ConnectionLimit>);

impl ConnectionLimit {
    /// Allows up to `limit` at once; `Some(0)` blocks everything, `None` nothing.
    #[must_use]
    pub fn new(limit: Option<u32>) -> Self {
        Self {
            limit,
            active: AtomicU32::new(0),
        }
    }

    /// How many are in flight now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Takes a place, or says what the limit is.
    pub(crate) fn acquire(self: &Arc<Self>) -> Result<ConnectionPermit, u32> {
        let limit = self.limit.unwrap_or(u32::MAX);
        let more = |active: u32| (active < limit).then(|| active + 1);
        match self
            .active
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
        {
            Ok(_) => Ok(ConnectionPermit(Arc::clone(self))),
            Err(_) => Err(limit),
        }
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_given_back() {
        let limit = Arc::new(ConnectionLimit::new(Some(2)));
        let first = limit.acquire().unwrap();
        let _second = limit.acquire().unwrap();
        assert_eq!(limit.acquire().unwrap_err(), 2);
        drop(first);
        assert!(limit.acquire().is_ok());
    }

    #[test]
    fn zero_blocks_and_none_does_not() {
        assert!(Arc::new(ConnectionLimit::new(Some(0))).acquire().is_err());
        let unlimited = Arc::new(ConnectionLimit::default());
        let held: Vec<_> = (0..300).map(|_| unlimited.acquire().unwrap()).collect();
        assert_eq!(unlimited.active(), 300);
        drop(held);
        assert_eq!(unlimited.active(), 0);
    }
}
