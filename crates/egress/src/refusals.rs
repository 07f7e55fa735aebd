//! Lines about refused connections, as many as a log can bear.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Gate;

/// Lines that a sandbox may have at once.
const BURST: u32 = 50;
/// Time in which it gets one more.
const REFILL: Duration = Duration::from_millis(500);
/// Sandboxes that are counted; beyond it, those that are quiet are forgotten.
const PEERS: usize = 4096;

#[derive(Debug)]
struct Bucket {
    left: u32,
    at: Instant,
    dropped: u64,
}

/// Writes refusals into the logs of sandboxes.
#[derive(Debug, Clone)]
pub(crate) struct Refusals {
    gate: Arc<dyn Gate>,
    buckets: Arc<Mutex<HashMap<IpAddr, Bucket>>>,
}

impl Refusals {
    pub(crate) fn new(gate: Arc<dyn Gate>) -> Self {
        Self {
            gate,
            buckets: Arc::default(),
        }
    }

    /// Writes that something was refused, unless there were too many such lines.
    pub(crate) fn tell(&self, peer: IpAddr, what: &str) {
        let Some(dropped) = self.take(peer, Instant::now()) else {
            return;
        };
        let mut line = format!("egress refused: {what}");
        if dropped > 0 {
            line.push_str(&format!(" (and {dropped} more before it)"));
        }
        self.gate.log(peer, &line);
    }

    /// Takes a place for a line and gives the number of those left out since the last one.
    fn take(&self, peer: IpAddr, now: Instant) -> Option<u64> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= PEERS {
            buckets.retain(|_, bucket| now.duration_since(bucket.at) < REFILL * BURST);
        }
        let bucket = buckets.entry(peer).or_insert(Bucket {
            left: BURST,
            at: now,
            dropped: 0,
        });
        let refills = now.duration_since(bucket.at).as_millis() / REFILL.as_millis();
        if let Ok(refills @ 1..) = u32::try_from(refills) {
            bucket.left = bucket.left.saturating_add(refills).min(BURST);
            bucket.at = now;
        }
        match bucket.left.checked_sub(1) {
            Some(left) => {
                bucket.left = left;
                Some(std::mem::take(&mut bucket.dropped))
            }
            None => {
                bucket.dropped += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::broker::tests::TestGate;

    #[test]
    fn lines_are_bounded_and_the_rest_is_counted() {
        let refusals = Refusals::new(Arc::new(TestGate::default()));
        let (peer, start) = (IpAddr::V4(Ipv4Addr::LOCALHOST), Instant::now());
        for _ in 0..BURST {
            assert_eq!(refusals.take(peer, start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(refusals.take(peer, start), None);
        }
        let other = IpAddr::V4(Ipv4Addr::BROADCAST);
        assert_eq!(refusals.take(other, start), Some(0));
        assert_eq!(refusals.take(peer, start + REFILL), Some(7));
        assert_eq!(refusals.take(peer, start + REFILL), None);
        let much_later = start + REFILL * 1000;
        assert_eq!(refusals.take(peer, much_later), Some(1));
    }
}
