//! How many sandboxes a team has. A create reserves its place before it starts, so that
//! creates at the same moment can't exceed the limit together.

use std::collections::{BTreeMap, HashMap};
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
    /// With the revision of the run that holds the place.
    live: HashMap<SandboxId, (TeamId, u64)>,
}

impl Used {
    /// Notes that a sandbox holds a place. Returns whether it held one before.
    fn hold(&mut self, team: TeamId, id: SandboxId, revision: u64) -> bool {
        let before = self.live.get(&id).map(|(_, held)| *held);
        let revision = revision.max(before.unwrap_or_default());
        self.live.insert(id, (team, revision));
        before.is_some()
    }

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

    /// Counts a sandbox that exists already, in the run of this revision.
    pub(crate) fn adopt(&self, team: TeamId, id: SandboxId, revision: u64) {
        let mut used = self.lock();
        if !used.hold(team, id, revision) {
            *used.by_team.entry(team).or_default() += 1;
        }
    }

    /// Frees the place of a sandbox that ended. Harmless when repeated.
    pub(crate) fn release(&self, id: &SandboxId) {
        self.release_run(id, u64::MAX);
    }

    /// Frees the place of a sandbox that was paused, unless a later run holds it.
    pub(crate) fn release_run(&self, id: &SandboxId, revision: u64) {
        let mut used = self.lock();
        let Some((team, held)) = used.live.get(id).copied() else {
            return;
        };
        if held <= revision {
            used.live.remove(id);
            used.give_back(team);
        }
    }

    /// How many places each team holds; teams without any are left out.
    pub(crate) fn counts(&self) -> BTreeMap<TeamId, u32> {
        let used = self.lock();
        used.by_team
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(team, count)| (*team, *count))
            .collect()
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
    /// Hands the place over to the sandbox, whose run of this revision keeps it until
    /// [`release`](Quota::release). One that has a place already takes no second.
    pub(crate) fn keep(mut self, id: SandboxId, revision: u64) {
        self.kept = true;
        let mut used = self.quota.lock();
        if used.hold(self.team, id, revision) {
            used.give_back(self.team);
        }
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
        first.keep(id.clone(), 0);
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
        quota.adopt(team, id.clone(), 0);
        quota.adopt(team, id, 0);
        assert_eq!(quota.count(team), 1);
    }

    #[test]
    fn a_late_word_of_a_pause_does_not_take_the_place_of_the_next_run() {
        let (quota, team, id) = (
            Arc::new(Quota::default()),
            TeamId::random(),
            SandboxId::random(),
        );
        quota.reserve(team, 1).unwrap().keep(id.clone(), 0);
        quota.release_run(&id, 1);
        assert_eq!(quota.count(team), 0);
        quota.reserve(team, 1).unwrap().keep(id.clone(), 2);
        quota.release_run(&id, 1);
        assert_eq!(quota.count(team), 1);
        quota.reserve(team, 2).unwrap().keep(id.clone(), 2);
        assert_eq!(quota.count(team), 1, "no second place");
        quota.release_run(&id, 3);
        assert_eq!(quota.count(team), 0);
    }
}
