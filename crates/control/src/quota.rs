//! How much teams and API keys have of what they may. A create reserves its share before it
//! starts, so that creates at the same moment can't exceed a limit together.
//!
//! A running sandbox counts with everything, a paused one with its disk only. A sandbox that
//! was made with a key counts against the key's budget and the team's, for as long as it
//! lives and whoever resumes it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use warren_types::{ApiKeyId, Budget, SandboxId, TeamId, Usage};

use crate::OverBudget;

/// Whose budget it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Team(TeamId),
    Key(ApiKeyId),
}

/// Whom a sandbox counts for, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) team: TeamId,
    pub(crate) key: Option<ApiKeyId>,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) disk_mib: u32,
}

impl Claim {
    fn subjects(&self) -> impl Iterator<Item = Subject> + use<> {
        std::iter::once(Subject::Team(self.team)).chain(self.key.map(Subject::Key))
    }

    /// What a run of it uses beside its disk.
    fn run(&self) -> Usage {
        Usage {
            sandboxes: 1,
            cpus: self.cpus.into(),
            memory_mib: self.memory_mib.into(),
            disk_mib: 0,
        }
    }

    fn disk(&self) -> Usage {
        Usage {
            disk_mib: self.disk_mib.into(),
            ..Usage::default()
        }
    }

    fn whole(&self) -> Usage {
        sum(self.run(), self.disk())
    }
}

/// Sandboxes that count against limits.
#[derive(Default)]
pub(crate) struct Quota {
    table: Mutex<Table>,
}

impl fmt::Debug for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quota").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Table {
    default_team: Budget,
    default_key: Budget,
    own: HashMap<Subject, Budget>,
    used: HashMap<Subject, Usage>,
    live: HashMap<SandboxId, Holding>,
}

/// What a sandbox that exists counts with.
#[derive(Debug, Clone, Copy)]
struct Holding {
    claim: Claim,
    /// Of the last run or pause that is known of.
    revision: u64,
    runs: bool,
}

impl Table {
    fn budget(&self, subject: Subject) -> Budget {
        let default = match subject {
            Subject::Team(_) => self.default_team,
            Subject::Key(_) => self.default_key,
        };
        self.own
            .get(&subject)
            .copied()
            .unwrap_or_default()
            .or(default)
    }

    fn check(&self, subject: Subject, ask: Usage, limit: Budget) -> Result<(), OverBudget> {
        let used = self.used.get(&subject).copied().unwrap_or_default();
        over(
            sum(used, ask),
            ask,
            limit,
            matches!(subject, Subject::Key(_)),
        )
    }

    fn take(&mut self, claim: &Claim, what: Usage) {
        for subject in claim.subjects() {
            let used = self.used.entry(subject).or_default();
            *used = sum(*used, what);
        }
    }

    fn give_back(&mut self, claim: &Claim, what: Usage) {
        for subject in claim.subjects() {
            if let Some(used) = self.used.get_mut(&subject) {
                *used = difference(*used, what);
                if *used == Usage::default() {
                    self.used.remove(&subject);
                }
            }
        }
    }

    /// Has a sandbox count as running, of which `held` is reserved already.
    fn hold(&mut self, id: SandboxId, claim: Claim, revision: u64, held: Usage) {
        let before = self.live.get(&id).copied();
        // Word of a run that a later pause is known of changes nothing.
        let runs = before.is_none_or(|before| before.runs || before.revision <= revision);
        let after = Holding {
            // Whose it is can't change.
            claim: before.map_or(claim, |before| before.claim),
            revision: revision.max(before.map_or(0, |before| before.revision)),
            runs,
        };
        if let Some(before) = before {
            self.give_back(&before.claim, before.counts());
        }
        self.give_back(&claim, held);
        self.take(&after.claim, after.counts());
        self.live.insert(id, after);
    }
}

impl Holding {
    fn counts(&self) -> Usage {
        if self.runs {
            self.claim.whole()
        } else {
            self.claim.disk()
        }
    }
}

/// The first limit that `total` exceeds, of what is asked for at all.
fn over(total: Usage, ask: Usage, limit: Budget, of_key: bool) -> Result<(), OverBudget> {
    let exceeded = |total: u64, ask: u64, limit: Option<u32>| {
        limit.filter(|limit| ask > 0 && total > u64::from(*limit))
    };
    if let Some(limit) = exceeded(total.sandboxes, ask.sandboxes, limit.sandboxes) {
        return Err(OverBudget::Sandboxes { limit, of_key });
    }
    if let Some(limit) = exceeded(total.cpus, ask.cpus, limit.cpus) {
        return Err(OverBudget::Cpus { limit, of_key });
    }
    if let Some(limit) = exceeded(total.memory_mib, ask.memory_mib, limit.memory_mib) {
        return Err(OverBudget::Memory { limit, of_key });
    }
    if let Some(limit) = exceeded(total.disk_mib, ask.disk_mib, limit.disk_mib) {
        return Err(OverBudget::Disk { limit, of_key });
    }
    Ok(())
}

fn sum(a: Usage, b: Usage) -> Usage {
    Usage {
        sandboxes: a.sandboxes + b.sandboxes,
        cpus: a.cpus + b.cpus,
        memory_mib: a.memory_mib + b.memory_mib,
        disk_mib: a.disk_mib + b.disk_mib,
    }
}

fn difference(a: Usage, b: Usage) -> Usage {
    Usage {
        sandboxes: a.sandboxes.saturating_sub(b.sandboxes),
        cpus: a.cpus.saturating_sub(b.cpus),
        memory_mib: a.memory_mib.saturating_sub(b.memory_mib),
        disk_mib: a.disk_mib.saturating_sub(b.disk_mib),
    }
}

impl Quota {
    /// Budgets of those that have none of their own.
    pub(crate) fn new(team: Budget, key: Budget) -> Self {
        Self {
            table: Mutex::new(Table {
                default_team: team,
                default_key: key,
                ..Table::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the limits that differ from the default ones. What is over a new limit already
    /// stays; nothing is added to it.
    pub(crate) fn set_own(&self, subject: Subject, budget: Budget) {
        let mut table = self.lock();
        if budget == Budget::default() {
            table.own.remove(&subject);
        } else {
            table.own.insert(subject, budget);
        }
    }

    /// The limits that differ from the default ones.
    pub(crate) fn own(&self, subject: Subject) -> Budget {
        self.lock().own.get(&subject).copied().unwrap_or_default()
    }

    /// The limits in force.
    pub(crate) fn budget(&self, subject: Subject) -> Budget {
        self.lock().budget(subject)
    }

    /// What is in use or reserved.
    pub(crate) fn used(&self, subject: Subject) -> Usage {
        self.lock().used.get(&subject).copied().unwrap_or_default()
    }

    /// Takes what a new sandbox needs, or tells which limit that would exceed.
    pub(crate) fn reserve(self: &Arc<Self>, claim: Claim) -> Result<Reservation, OverBudget> {
        self.reserve_part(claim, claim.whole())
    }

    /// Takes what a run of a paused sandbox needs, whose disk counts already.
    pub(crate) fn reserve_run(self: &Arc<Self>, claim: Claim) -> Result<Reservation, OverBudget> {
        self.reserve_part(claim, claim.run())
    }

    fn reserve_part(self: &Arc<Self>, claim: Claim, ask: Usage) -> Result<Reservation, OverBudget> {
        let mut table = self.lock();
        for subject in claim.subjects() {
            table.check(subject, ask, table.budget(subject))?;
        }
        table.take(&claim, ask);
        drop(table);
        Ok(Reservation {
            quota: Arc::clone(self),
            claim,
            held: ask,
        })
    }

    /// Counts a sandbox that exists already, in the run of this revision.
    pub(crate) fn adopt(&self, claim: Claim, id: SandboxId, revision: u64) {
        self.lock().hold(id, claim, revision, Usage::default());
    }

    /// Frees all that a sandbox counts with that ended. Harmless when repeated.
    pub(crate) fn release(&self, id: &SandboxId) {
        let mut table = self.lock();
        if let Some(holding) = table.live.remove(id) {
            table.give_back(&holding.claim, holding.counts());
        }
    }

    /// Frees what the run of a sandbox took that was paused, unless a later run has begun.
    pub(crate) fn release_run(&self, id: &SandboxId, revision: u64) {
        let mut table = self.lock();
        let Some(holding) = table.live.get_mut(id) else {
            return;
        };
        if holding.revision > revision {
            return;
        }
        holding.revision = revision;
        if std::mem::take(&mut holding.runs) {
            let claim = holding.claim;
            table.give_back(&claim, claim.run());
        }
    }

    /// How many places each team holds; teams without any are left out.
    pub(crate) fn counts(&self) -> BTreeMap<TeamId, u32> {
        let table = self.lock();
        let counts = table.used.iter().filter_map(|(subject, used)| {
            let Subject::Team(team) = subject else {
                return None;
            };
            let count = u32::try_from(used.sandboxes).unwrap_or(u32::MAX);
            (count > 0).then_some((*team, count))
        });
        counts.collect()
    }
}

/// A share taken for a sandbox that is starting; given back when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    quota: Arc<Quota>,
    claim: Claim,
    held: Usage,
}

impl Reservation {
    /// Hands the share over to the sandbox, whose run of this revision keeps it until
    /// [`release`](Quota::release). One that runs already takes no second.
    pub(crate) fn keep(mut self, id: SandboxId, revision: u64) {
        let held = std::mem::take(&mut self.held);
        self.quota.lock().hold(id, self.claim, revision, held);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held != Usage::default() {
            self.quota.lock().give_back(&self.claim, self.held);
        }
    }
}

#[cfg(test)]
mod tests;
