//! How many sandboxes a team has. A create reserves its place before it starts, so that
//! creates at the same moment can't exceed the limit together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_types::{SandboxId, TeamId};

/// Sandboxes that count against limits.
#[derive(Debug, Default)]
pub(crate) struct Quota {
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    by_team: HashMap<TeamId, u32>,
    live: HashMap<SandboxId, TeamId>,
}

impl Used {
    fn give_back(&mut self, team: TeamId) {
        if let Some(count) = self.by_team.get_mut(&team) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_team.remove(&team);
            }
        }
    }
}

impl Quota {
    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, or returns `None` if the team has as many as it may.
    pub(crate) fn reserve(self: &Arc<Self>, team: TeamId, limit: u32) -> Option<Reservation> {
        let mut used = self.lock();
        let count = used.by_team.entry(team).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        drop(used);
        Some(Reservation {
            quota: Arc::clone(self),
            team,
            kept: false,
        })
    }

    /// Counts a sandbox that exists already.
    pub(crate) fn adopt(&self, team: TeamId, id: SandboxId) {
        let mut used = self.lock();
        if used.live.insert(id, team).is_none() {
            *used.by_team.entry(team).or_default() += 1;
        }
    }

    /// Frees the place of a sandbox that ended. Harmless when repeated.
    pub(crate) fn release(&self, id: &SandboxId) {
        let mut used = self.lock();
        if let Some(team) = used.live.remove(id) {
            used.give_back(team);
        }
    }

    #[cfg(test)]
    fn count(&self, team: TeamId) -> u32 {
        self.lock().by_team.get(&team).copied().unwrap_or_default()
    }
}

/// A place taken for a sandbox that is starting; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    quota: Arc<Quota>,
    team: TeamId,
    kept: bool,
}

impl Reservation {
    /// Hands the place over to the sandbox, which keeps it until
    /// [`release`](Quota::release).
    pub(crate) fn keep(mut self, id: SandboxId) {
        self.kept = true;
        self.quota.lock().live.insert(id, self.team);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.kept {
            self.quota.lock().give_back(self.team);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_freed_by_a_failed_start_and_by_the_end() {
        let (quota, team) = (Arc::new(Quota::default()), TeamId::random());
        let first = quota.reserve(team, 2).unwrap();
        let second = quota.reserve(team, 2).unwrap();
        assert!(quota.reserve(team, 2).is_none());
        drop(second);
        let id = SandboxId::random();
        first.keep(id.clone());
        assert_eq!(quota.count(team), 1);
        quota.release(&id);
        quota.release(&id);
        assert_eq!(quota.count(team), 0);
    }

    #[test]
    fn teams_do_not_share_places() {
        let quota = Arc::new(Quota::default());
        let (a, b) = (TeamId::random(), TeamId::random());
        let _place = quota.reserve(a, 1).unwrap();
        assert!(quota.reserve(a, 1).is_none());
        assert!(quota.reserve(b, 1).is_some());
    }

    #[test]
    fn adopting_twice_counts_once() {
        let (quota, team, id) = (
            Arc::new(Quota::default()),
            TeamId::random(),
            SandboxId::random(),
        );
        quota.adopt(team, id.clone());
        quota.adopt(team, id);
        assert_eq!(quota.count(team), 1);
    }
}
