//! Whether the out-of-memory killer was at work.
//!
//! The machine's counter can be read at any time, but other sandboxes move it too. The
//! sandbox's own is with the host, and exact. Together they tell: the killer was at work
//! while the cell ran, and in this sandbox since its kernel started. Where the host does not
//! answer, memory is the likely cause, not the certain one.

use std::fs;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use warren_service::Tasks;

use crate::fetch::{self, FetchError};
use crate::log;

/// The machine's counter.
const MACHINE: (&str, &str) = ("/proc/vmstat", "oom_kill");

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

/// The machine's counter now.
pub(crate) fn machine() -> Option<u64> {
    value(&fs::read_to_string(MACHINE.0).ok()?, MACHINE.1)
}

/// The sandbox's own counter, as its host tells it.
#[derive(Debug)]
pub(crate) struct OomMeter {
    host: String,
    known: Mutex<Option<u64>>,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(rename = "oomKills")]
    oom_kills: u64,
}

impl OomMeter {
    /// Makes a meter that asks the host's service at `host`.
    pub(crate) fn new(host: String) -> Self {
        Self {
            host,
            known: Mutex::default(),
        }
    }

    /// The count that is known, without asking.
    pub(crate) fn known(&self) -> Option<u64> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the host for the count.
    ///
    /// # Errors
    /// The host does not answer.
    pub(crate) async fn ask(&self, tasks: &Tasks) -> Result<u64, FetchError> {
        let answer: Answer = fetch::get(&self.host, "/me/memory", None, tasks).await?;
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(answer.oom_kills);
        Ok(answer.oom_kills)
    }

    /// Whether memory ran out since the machine's counter and the sandbox's own were these.
    pub(crate) async fn since(
        &self,
        machine_before: Option<u64>,
        own_before: Option<u64>,
        tasks: &Tasks,
    ) -> OutOfMemory {
        if machine() <= machine_before {
            return OutOfMemory::No;
        }
        match self.ask(tasks).await {
            Ok(own) if has_moved(own_before, own) => OutOfMemory::Certain,
            Ok(_) => OutOfMemory::No,
            Err(error) => {
                log::warn("the sandbox's memory", &error);
                OutOfMemory::Likely
            }
        }
    }
}

/// Whether a counter has counted. It starts at 0 with every sandbox, and anew with one that
/// was restored.
fn has_moved(before: Option<u64>, now: u64) -> bool {
    let before = before.unwrap_or_default();
    now > if now < before { 0 } else { before }
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
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(value(text, "oom_kill"), Some(3));
        assert_eq!(value("oom_group_kill 0\n", "oom_kill"), None);
    }

    #[test]
    fn a_counter_moves_from_what_was_known_and_anew_after_a_restore() {
        assert!(has_moved(None, 1));
        assert!(!has_moved(None, 0));
        assert!(has_moved(Some(1), 2));
        assert!(!has_moved(Some(2), 2));
        assert!(has_moved(Some(5), 1));
        assert!(!has_moved(Some(5), 0));
    }
}
