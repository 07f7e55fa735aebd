//! What teams and API keys may have, and what of it they have.

use warren_store::{By, LiveSandbox, SandboxRecord, StoreError, TeamRecord};
use warren_types::{ApiKeyId, Budget, Resources, TeamId, Usage};

use crate::quota::{Claim, Subject};
use crate::{Caller, Control};

/// A limit that a sandbox would exceed. Its first words are those that clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverBudget {
    /// Too many at a time.
    #[error(
        "you have reached the maximum number of concurrent E2B sandboxes ({limit}){}",
        advice(*of_key)
    )]
    Sandboxes {
        /// How many may run.
        limit: u32,
        /// Whether it is the key's limit and not the team's.
        of_key: bool,
    },
    /// Too many CPUs together.
    #[error(
        "you have reached the maximum of {limit} CPUs of concurrent E2B sandboxes{}",
        advice(*of_key)
    )]
    Cpus {
        /// How many they may have together.
        limit: u32,
        /// Whether it is the key's limit and not the team's.
        of_key: bool,
    },
    /// Too much memory together.
    #[error(
        "you have reached the maximum of {limit} MiB of memory of concurrent E2B sandboxes{}",
        advice(*of_key)
    )]
    Memory {
        /// MiB that they may have together.
        limit: u32,
        /// Whether it is the key's limit and not the team's.
        of_key: bool,
    },
    /// Too much disk together.
    #[error(
        "you have reached the maximum of {limit} MiB of disk of E2B sandboxes, paused ones \
         included{}",
        advice(*of_key)
    )]
    Disk {
        /// MiB that they may have together.
        limit: u32,
        /// Whether it is the key's limit and not the team's.
        of_key: bool,
    },
}

fn advice(of_key: bool) -> &'static str {
    if of_key {
        " of this API key. Kill or wait for a sandbox to end, or raise the limit of the key."
    } else {
        ". Kill or wait for a sandbox to end, or raise the limit of your team."
    }
}

/// Limits of a team or an API key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitsView {
    /// Those of its own.
    pub own: Budget,
    /// Those in force: its own, else the server's defaults.
    pub limits: Budget,
    /// What is in use or reserved.
    pub used: Usage,
}

/// Limits that a caller is under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallerLimits {
    /// Those of the team.
    pub team: LimitsView,
    /// Those of the key that was shown.
    pub key: Option<LimitsView>,
}

impl Control {
    /// Reads all limits that are kept, and what of them sandboxes take that have not ended.
    /// Called before serving, or alone where limits are all that is asked for.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn load_limits(&self) -> Result<(), StoreError> {
        self.load_budgets().await?;
        for row in self.store.sandbox_list_all_live().await? {
            self.adopt_claim(&row);
        }
        Ok(())
    }

    pub(crate) fn adopt_claim(&self, row: &LiveSandbox) {
        let claim = Claim {
            team: row.team_id,
            key: row.key_id,
            cpus: row.cpu_count,
            memory_mib: row.memory_mib,
            disk_mib: row.disk_mib,
        };
        self.quota.adopt(claim, row.id.clone(), row.revision);
    }

    pub(crate) async fn load_budgets(&self) -> Result<(), StoreError> {
        for (team, budget) in self.store.team_limits_list().await? {
            self.quota.set_own(Subject::Team(team), budget);
        }
        for (key, budget) in self.store.key_limits_list().await? {
            self.quota.set_own(Subject::Key(key), budget);
        }
        Ok(())
    }

    /// Takes over how many sandboxes a team may have of its own.
    pub(crate) fn note_team(&self, team: &TeamRecord) {
        let subject = Subject::Team(team.id);
        let budget = Budget {
            sandboxes: team.max_sandboxes,
            ..self.quota.own(subject)
        };
        self.quota.set_own(subject, budget);
    }

    fn limits_of(&self, subject: Subject) -> LimitsView {
        LimitsView {
            own: self.quota.own(subject),
            limits: self.quota.budget(subject),
            used: self.quota.used(subject),
        }
    }

    /// The limits that a caller is under, and what of them is used.
    #[must_use]
    pub fn limits(&self, caller: &Caller) -> CallerLimits {
        CallerLimits {
            team: self.limits_of(Subject::Team(caller.team.id)),
            key: caller.key.map(|key| self.limits_of(Subject::Key(key))),
        }
    }

    /// Requests that a caller's team, and then its key, may send in a minute.
    #[must_use]
    pub fn requests_per_minute(&self, caller: &Caller) -> (Option<u32>, Option<u32>) {
        let of = |subject| self.quota.budget(subject).requests_per_minute;
        let key = caller.key.and_then(|key| of(Subject::Key(key)));
        (of(Subject::Team(caller.team.id)), key)
    }

    /// Limits of a team, or `None` if there is no such team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_limits(&self, team: TeamId) -> Result<Option<LimitsView>, StoreError> {
        let known = self.store.team_get(team).await?.is_some();
        Ok(known.then(|| self.limits_of(Subject::Team(team))))
    }

    /// Replaces the limits that a team has of its own; they count at once. Sandboxes beyond
    /// a new limit live on. Returns the limits, or `None` if there is no such team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn team_limits_set(
        &self,
        by: &By,
        team: TeamId,
        to: Budget,
    ) -> Result<Option<LimitsView>, StoreError> {
        if !self.store.team_limits_set(by, team, &to).await? {
            return Ok(None);
        }
        self.quota.set_own(Subject::Team(team), to);
        self.keys.clear();
        Ok(Some(self.limits_of(Subject::Team(team))))
    }

    /// Limits of an API key, or `None` if the team has no such key.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_limits(
        &self,
        team: TeamId,
        key: ApiKeyId,
    ) -> Result<Option<LimitsView>, StoreError> {
        let known = self.store.api_key_is_of(team, key).await?;
        Ok(known.then(|| self.limits_of(Subject::Key(key))))
    }

    /// Replaces the limits that an API key has of its own, as
    /// [`team_limits_set`](Self::team_limits_set) does those of a team.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn key_limits_set(
        &self,
        by: &By,
        team: TeamId,
        key: ApiKeyId,
        to: Budget,
    ) -> Result<Option<LimitsView>, StoreError> {
        if !self.store.key_limits_set(by, team, key, &to).await? {
            return Ok(None);
        }
        self.quota.set_own(Subject::Key(key), to);
        Ok(Some(self.limits_of(Subject::Key(key))))
    }

    /// The most sandboxes that a caller may have at a time.
    pub(crate) fn max_sandboxes(&self, caller: &Caller) -> u32 {
        let view = self.limits(caller);
        let team = view.team.limits.sandboxes;
        let key = view.key.and_then(|key| key.limits.sandboxes);
        team.into_iter().chain(key).min().unwrap_or(u32::MAX)
    }
}

/// What a new sandbox of the caller counts with.
pub(crate) fn claim(caller: &Caller, resources: &Resources) -> Claim {
    Claim {
        team: caller.team.id,
        key: caller.key,
        cpus: resources.cpu_count,
        memory_mib: resources.memory_mib,
        disk_mib: resources.disk_mib,
    }
}

/// What a sandbox that is there counts with.
pub(crate) fn claim_of(record: &SandboxRecord) -> Claim {
    Claim {
        team: record.team_id,
        key: record.key_id,
        cpus: record.cpu_count,
        memory_mib: record.memory_mib,
        disk_mib: record.disk_mib,
    }
}
