//! From two cumulative readings to one point.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use warren_runtime::Usage;
use warren_types::{MetricsPoint, Resources};

const MIB: u64 = 1024 * 1024;

/// The previous reading of a sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading {
    pub(crate) taken: Instant,
    pub(crate) cpu_micros: u64,
}

/// Makes a point from a new reading and the one before it. Without one before it, the
/// CPU share is 0.
pub(crate) fn point(
    at: Timestamp,
    usage: &Usage,
    resources: &Resources,
    elapsed: Option<(Duration, u64)>,
) -> MetricsPoint {
    let cpu_used_pct = elapsed.map_or(0.0, |(wall, cpu_before)| {
        let spent = usage.cpu_micros.saturating_sub(cpu_before) as f64;
        let available = wall.as_micros() as f64 * f64::from(resources.cpu_count.max(1));
        if available > 0.0 {
            (spent / available * 10_000.0).round().clamp(0.0, 10_000.0) / 100.0
        } else {
            0.0
        }
    });
    MetricsPoint {
        at,
        cpu_count: resources.cpu_count,
        cpu_used_pct,
        mem_used: usage.memory_used,
        mem_total: u64::from(resources.memory_mib) * MIB,
        mem_cache: usage.memory_cache,
        disk_used: usage.disk_used,
        disk_total: u64::from(resources.disk_mib) * MIB,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_share_is_over_all_cpus_and_never_above_100() {
        let resources = Resources {
            cpu_count: 2,
            ..Resources::default()
        };
        let usage = Usage {
            cpu_micros: 1_500_000,
            ..Usage::default()
        };
        let at = Timestamp::UNIX_EPOCH;
        let second = Duration::from_secs(1);
        assert_eq!(
            point(at, &usage, &resources, Some((second, 500_000))).cpu_used_pct,
            50.0
        );
        assert_eq!(point(at, &usage, &resources, None).cpu_used_pct, 0.0);
        let busy = Usage {
            cpu_micros: 9_000_000,
            ..Usage::default()
        };
        assert_eq!(
            point(at, &busy, &resources, Some((second, 0))).cpu_used_pct,
            100.0
        );
        // A counter that went backwards (a new cgroup) is not a negative share.
        assert_eq!(
            point(at, &usage, &resources, Some((second, 9_000_000))).cpu_used_pct,
            0.0
        );
    }
}
