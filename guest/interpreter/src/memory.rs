//! Whether the out-of-memory killer was at work.
//!
//! The sandbox's own counter is exact, but only where its control group is visible inside.
//! Else there is the machine's counter, which other sandboxes move too: it makes a cause
//! likely, not certain.

use std::fs;

/// Counters of the sandbox's own control group, as version 2 and version 1 have them.
const OWN: [(&str, &str); 3] = [
    ("/sys/fs/cgroup/memory.events", "oom_kill"),
    ("/sys/fs/cgroup/memory.events.local", "oom_kill"),
    ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"),
];
/// The machine's counter.
const MACHINE: (&str, &str) = ("/proc/vmstat", "oom_kill");

/// The counters at one time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OomCounters {
    own: Option<u64>,
    machine: Option<u64>,
}

/// How sure it is that memory ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutOfMemory {
    /// The sandbox's own counter says so.
    Certain,
    /// The machine's counter says so of some process.
    Likely,
    /// Nothing was killed for memory.
    No,
}

impl OomCounters {
    /// Reads the counters.
    #[must_use]
    pub(crate) fn now() -> Self {
        let read = |(path, key): &(&str, &str)| value(&fs::read_to_string(path).ok()?, key);
        Self {
            own: OWN.iter().find_map(read),
            machine: read(&MACHINE),
        }
    }

    /// Compares these counters with later ones.
    #[must_use]
    pub(crate) fn until(self, later: Self) -> OutOfMemory {
        match (self.own, later.own) {
            (Some(before), Some(after)) if after > before => OutOfMemory::Certain,
            (Some(_), Some(_)) => OutOfMemory::No,
            _ if later.machine > self.machine => OutOfMemory::Likely,
            _ => OutOfMemory::No,
        }
    }
}

fn value(text: &str, key: &str) -> Option<u64> {
    text.lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(name, _)| *name == key)
        .and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_whole_name() {
        assert_eq!(
            value("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(value("oom_group_kill 0\n", "oom_kill"), None);
    }

    #[test]
    fn the_own_counter_decides_where_it_is() {
        let at = |own, machine| OomCounters { own, machine };
        let before = at(Some(1), Some(1));
        assert_eq!(before.until(at(Some(2), Some(2))), OutOfMemory::Certain);
        assert_eq!(before.until(at(Some(1), Some(2))), OutOfMemory::No);
        assert_eq!(
            at(None, Some(1)).until(at(None, Some(2))),
            OutOfMemory::Likely
        );
        assert_eq!(at(None, Some(1)).until(at(None, Some(1))), OutOfMemory::No);
        assert_eq!(at(None, None).until(at(None, None)), OutOfMemory::No);
    }
}
