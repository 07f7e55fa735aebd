//! Use of the machine's resources.

use std::fs;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::agent::lock;

const MIB: u64 = 1 << 20;

/// What `GET /metrics` answers.
#[derive(Debug, Serialize)]
pub(crate) struct Metrics {
    ts: u64,
    cpu_count: usize,
    cpu_used_pct: f64,
    mem_total: u64,
    mem_used: u64,
    mem_cache: u64,
    mem_total_mib: u64,
    mem_used_mib: u64,
    disk_used: u64,
    disk_total: u64,
}

/// Processor time since boot in clock ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    total: u64,
}

/// Remembers the last look at the processors.
#[derive(Debug, Default)]
pub(crate) struct CpuMeter(Mutex<CpuTimes>);

impl CpuMeter {
    /// Percentage of all processors used since the last call, two decimals.
    fn used_since_last(&self, now: CpuTimes) -> f64 {
        let mut last = lock(&self.0);
        let busy = now.busy.saturating_sub(last.busy);
        let total = now.total.saturating_sub(last.total);
        *last = now;
        percentage(busy, total)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a percentage needs no more precision than a double has"
)]
fn percentage(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    let percent = part as f64 / whole as f64 * 100.0;
    (percent.clamp(0.0, 100.0) * 100.0).round() / 100.0
}

/// Looks at the machine.
///
/// # Errors
/// The root file system can't be asked.
pub(crate) fn collect(meter: &CpuMeter) -> std::io::Result<Metrics> {
    let memory = parse_meminfo(&fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let cpu = parse_cpu(&fs::read_to_string("/proc/stat").unwrap_or_default());
    let disk = rustix::fs::statvfs("/")?;
    let total = disk.f_blocks.saturating_mul(disk.f_frsize);
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Metrics {
        ts: now.as_secs(),
        cpu_count: std::thread::available_parallelism().map_or(1, usize::from),
        cpu_used_pct: meter.used_since_last(cpu),
        mem_total: memory.total,
        mem_used: memory.used,
        mem_cache: memory.cache,
        mem_total_mib: memory.total / MIB,
        mem_used_mib: memory.used / MIB,
        disk_used: total.saturating_sub(free),
        disk_total: total,
    })
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    used: u64,
    cache: u64,
}

fn parse_meminfo(text: &str) -> Memory {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.strip_prefix(':')?.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0)
            .saturating_mul(1024)
    };
    let (total, free) = (value("MemTotal"), value("MemFree"));
    let cache = value("Cached") + value("SReclaimable");
    let used = total
        .saturating_sub(free)
        .saturating_sub(cache)
        .saturating_sub(value("Buffers"));
    Memory { total, used, cache }
}

fn parse_cpu(text: &str) -> CpuTimes {
    let line = text.lines().next().unwrap_or_default();
    // Guest time, the ninth and tenth, is part of user time already.
    let times: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    let total: u64 = times.iter().sum();
    let idle: u64 = times.iter().skip(3).take(2).sum();
    CpuTimes {
        busy: total - idle,
        total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_excludes_caches() {
        let memory = parse_meminfo(
            "MemTotal: 1000 kB\nMemFree: 400 kB\nBuffers: 50 kB\nCached: 100 kB\nSReclaimable: 10 kB\n",
        );
        assert_eq!(memory.total, 1000 * 1024);
        assert_eq!(memory.cache, 110 * 1024);
        assert_eq!(memory.used, 440 * 1024);
    }

    #[test]
    fn processor_use_is_between_two_looks() {
        let meter = CpuMeter::default();
        let first = parse_cpu("cpu  10 0 10 70 10 0 0 0 5 5\n");
        assert_eq!(
            first,
            CpuTimes {
                busy: 20,
                total: 100
            }
        );
        meter.used_since_last(first);
        let second = CpuTimes {
            busy: 53,
            total: 200,
        };
        assert!((meter.used_since_last(second) - 33.0).abs() < f64::EPSILON);
        assert!(meter.used_since_last(second).abs() < f64::EPSILON);
    }
}
