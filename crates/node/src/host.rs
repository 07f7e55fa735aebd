//! What machine this is, as the kernel tells it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use warren_cluster::{DiskFacts, HostFacts, HugePages};

/// Asks the kernel about the machine.
#[derive(Debug)]
pub(crate) struct Host {
    data_dir: PathBuf,
    /// Time that the processors were busy and that passed in all, when last asked.
    last: Mutex<(u64, u64)>,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A number of `meminfo`, as it stands there.
fn field(meminfo: &str, name: &str) -> u64 {
    let lines = meminfo.lines();
    let found = lines.filter_map(|line| line.split_once(':'));
    let value = found.into_iter().find(|(key, _)| *key == name);
    let number = value.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

/// Busy and passed time of all processors, in ticks.
fn ticks(stat: &str) -> (u64, u64) {
    let line = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        // What guests take is part of the first two.
        .take(8)
        .filter_map(|number| number.parse().ok())
        .collect();
    let idle: u64 = numbers.iter().skip(3).take(2).sum();
    let total: u64 = numbers.iter().sum();
    (total - idle, total)
}

fn cpu(cpuinfo: &str) -> [String; 3] {
    ["cpu family", "model", "model name"].map(|name| {
        let pairs = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        let found = pairs.into_iter().find(|(key, _)| key.trim() == name);
        found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    })
}

/// Mount point, kind and device of the file system that a path is on.
fn mount_of(mountinfo: &str, path: &Path) -> Option<(String, String, String)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let point = left.split(' ').nth(4)?.replace("\\040", " ");
        let mut right = right.split(' ');
        Some((point, right.next()?.to_owned(), right.next()?.to_owned()))
    });
    mounts
        .filter(|(point, ..)| path.starts_with(point))
        // Of equal ones the later hides the earlier.
        .max_by_key(|(point, ..)| point.len())
}

impl Host {
    /// For a server that keeps its data here.
    pub(crate) fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            last: Mutex::default(),
        }
    }

    /// What machine this is and how much of it is in use now.
    pub(crate) fn facts(&self) -> HostFacts {
        let meminfo = read("/proc/meminfo");
        let kib = |name: &str| field(&meminfo, name) * 1024;
        let total = kib("MemTotal");
        let pages = field(&meminfo, "HugePages_Total");
        HostFacts {
            name: read("/proc/sys/kernel/hostname").trim().to_owned(),
            cpu_count: std::thread::available_parallelism()
                .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
            cpu_percent: self.cpu_percent(),
            cpu: cpu(&read("/proc/cpuinfo")),
            memory_used: total.saturating_sub(kib("MemAvailable")),
            memory_total: total,
            huge_pages: HugePages {
                total: pages,
                used: pages.saturating_sub(field(&meminfo, "HugePages_Free")),
                reserved: field(&meminfo, "HugePages_Rsvd"),
                size: kib("Hugepagesize"),
            },
            disks: self.disk().into_iter().collect(),
        }
    }

    fn cpu_percent(&self) -> u32 {
        let (busy, total) = ticks(&read("/proc/stat"));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (was_busy, was_total) = std::mem::replace(&mut *last, (busy, total));
        let passed = total.saturating_sub(was_total).max(1);
        let share = busy.saturating_sub(was_busy).min(passed) * 100 / passed;
        u32::try_from(share).unwrap_or(100)
    }

    fn disk(&self) -> Option<DiskFacts> {
        let told = rustix::fs::statvfs(&self.data_dir).ok()?;
        let mountinfo = read("/proc/self/mountinfo");
        let (mount_point, kind, device) = mount_of(&mountinfo, &self.data_dir)?;
        let blocks = told.f_blocks.saturating_sub(told.f_bfree);
        Some(DiskFacts {
            mount_point,
            device,
            kind,
            used: blocks.saturating_mul(told.f_frsize),
            total: told.f_blocks.saturating_mul(told.f_frsize),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_words_are_read() {
        let stat = "cpu  10 0 20 60 10 0 0 0 5 5\ncpu0 1 1 1 1\n";
        assert_eq!(ticks(stat), (30, 100));
        let meminfo = "MemTotal:  10 kB\nHugePages_Total:       3\n";
        assert_eq!(field(meminfo, "MemTotal"), 10);
        assert_eq!(field(meminfo, "HugePages_Total"), 3);
        assert_eq!(field(meminfo, "MemFree"), 0);
        let info = "processor\t: 0\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: X Y\n";
        assert_eq!(cpu(info), ["6", "85", "X Y"]);
    }

    #[test]
    fn the_innermost_mount_counts() {
        let info = "1 0 8:1 / / rw - ext4 /dev/a rw\n\
                    2 1 8:2 / /var/my\\040lib rw shared:1 - xfs /dev/b rw\n";
        let found = mount_of(info, Path::new("/var/my lib/warren")).unwrap();
        let expected = ("/var/my lib", "xfs", "/dev/b");
        assert_eq!(
            (found.0.as_str(), found.1.as_str(), found.2.as_str()),
            expected
        );
        assert_eq!(mount_of(info, Path::new("/var/my")).unwrap().0, "/");
    }

    #[test]
    fn this_machine_has_processors_and_memory() {
        let facts = Host::new(std::env::temp_dir()).facts();
        assert!(facts.cpu_count > 0 && facts.memory_total > facts.memory_used);
        assert!(facts.disks[0].total > 0);
        assert!(facts.cpu_percent <= 100);
    }
}
