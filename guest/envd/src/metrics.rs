//! Use of the machine's resources.

use std::fs;
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::agent::lock;
use crate::cli::Limits;

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

/// Processor time in clock ticks, since some fixed moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct CpuTimes {
    busy: u64,
    total: u64,
}

/// Looks at what is in use. Where the host has set limits, the kernel tells of the whole
/// machine, and the figures are summed up from the processes of the sandbox.
#[derive(Debug)]
pub(crate) struct Meter {
    limits: Limits,
    started: Instant,
    last: Mutex<CpuTimes>,
}

impl Meter {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            started: Instant::now(),
            last: Mutex::default(),
        }
    }

    /// Percentage of all processors used since the last call, two decimals.
    fn used_since_last(&self, now: CpuTimes) -> f64 {
        let mut last = lock(&self.last);
        let busy = now.busy.saturating_sub(last.busy);
        let total = now.total.saturating_sub(last.total);
        *last = now;
        percentage(busy, total)
    }

    /// Looks.
    ///
    /// # Errors
    /// The root file system can't be asked.
    pub(crate) fn collect(&self) -> std::io::Result<Metrics> {
        let here = std::thread::available_parallelism().map_or(1, usize::from);
        let limit = |given: Option<NonZeroU32>| given.map(|n| n.get() as usize);
        let cpu_count = limit(self.limits.cpus).unwrap_or(here);
        let meminfo = || fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let (memory, cpu) = match self.limits.memory_mib {
            None => {
                let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
                (parse_meminfo(&meminfo()), parse_cpu(&stat))
            }
            Some(limit) => {
                let sum = sum_of_processes();
                let total = u64::from(limit.get()) * MIB;
                let used = sum.memory.saturating_add(shared_memory()).min(total);
                let ticks = rustix::param::clock_ticks_per_second();
                let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let times = CpuTimes {
                    busy: sum.ticks,
                    total: elapsed.saturating_mul(ticks) / 1000 * cpu_count as u64,
                };
                // Which pages the host keeps for the sandbox's files can't be seen from here.
                let cache = 0;
                (Memory { total, used, cache }, times)
            }
        };
        let disk = rustix::fs::statvfs("/")?;
        let total = disk.f_blocks.saturating_mul(disk.f_frsize);
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Ok(Metrics {
            ts: now.as_secs(),
            cpu_count,
            cpu_used_pct: self.used_since_last(cpu),
            mem_total: memory.total,
            mem_used: memory.used,
            mem_cache: memory.cache,
            mem_total_mib: memory.total / MIB,
            mem_used_mib: memory.used / MIB,
            disk_used: total.saturating_sub(free),
            disk_total: total,
        })
    }
}

/// What processes use together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    /// Bytes of their own.
    memory: u64,
    /// Processor time, that of waited-for children included.
    ticks: u64,
}

fn sum_of_processes() -> Sum {
    let page = rustix::param::page_size() as u64;
    let mut sum = Sum::default();
    let Ok(entries) = fs::read_dir("/proc") else {
        return sum;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process may be gone by now.
        let read = |file| fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        sum.memory += own_pages(&read("statm")).saturating_mul(page);
        sum.ticks += ticks(&read("stat"));
    }
    sum
}

/// Resident pages that are no file's, of `/proc/PID/statm`.
fn own_pages(statm: &str) -> u64 {
    let mut fields = statm.split_whitespace().map(|field| field.parse().ok());
    match (fields.nth(1).flatten(), fields.next().flatten()) {
        (Some(resident), Some(shared)) => u64::saturating_sub(resident, shared),
        _ => 0,
    }
}

/// User and system time of `/proc/PID/stat`, fields 14 to 17; the second is a name that may
/// hold anything.
fn ticks(stat: &str) -> u64 {
    let Some((_, rest)) = stat.rsplit_once(") ") else {
        return 0;
    };
    let fields = rest.split(' ').skip(11).take(4);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum()
}

fn shared_memory() -> u64 {
    let used = rustix::fs::statvfs("/dev/shm")
        .map(|fs| (fs.f_blocks - fs.f_bfree).saturating_mul(fs.f_frsize));
    used.unwrap_or(0)
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
    fn limits_bound_the_figures_and_processes_fill_them() {
        let limits = Limits {
            cpus: NonZeroU32::new(3),
            memory_mib: NonZeroU32::new(1 << 20),
        };
        let seen = Meter::new(limits).collect().unwrap();
        assert_eq!((seen.cpu_count, seen.mem_total_mib), (3, 1 << 20));
        assert!(seen.mem_used > 0 && seen.mem_used < seen.mem_total);
        assert_eq!(own_pages("9 70 20 1 0 5 0"), 50);
        assert_eq!(own_pages("9"), 0);
        let stat = "7 (a) b) S 1 7 7 0 -1 4 5 6 7 8 10 20 30 40 20 0";
        assert_eq!(ticks(stat), 100);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn processor_use_is_between_two_looks() {
        let meter = Meter::new(Limits::default());
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
