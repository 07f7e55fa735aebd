//! Teams: made, listed, changed and deleted by the server's operator.

use jiff::Timestamp;
use warren_service::Chain;
use warren_store::{By, StoreError, TeamChange, TeamHoldings, TeamRecord};
use warren_types::{SandboxState, TeamId, TeamState};

use crate::keys::NewKey;
use crate::login::stand_in;
use crate::{Caller, Control, CreatedKey, KeysError, Team};

/// Slug of the team that a fresh server has.
const DEFAULT_TEAM: &str = "default";
/// Longest name or slug.
const MAX_NAME: usize = 64;

/// A team to be made.
#[derive(Debug, Clone, Default)]
pub struct NewTeam {
    /// What people call it.
    pub name: String,
    /// Namespace of its templates; made from the name if absent.
    pub slug: Option<String>,
    /// Sandboxes it may run at a time, where it differs from the server's default.
    pub max_sandboxes: Option<u32>,
}

/// A team with what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TeamView {
    /// What is recorded of it.
    pub record: TeamRecord,
    /// What it has.
    pub holdings: TeamHoldings,
    /// Whether it is the one that a fresh server has.
    pub is_default: bool,
}

/// What became of the sandboxes of a team that were to be ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// Ended.
    pub killed: u64,
    /// Still there.
    pub failed: u64,
}

/// Why a request about teams was refused.
#[derive(Debug, thiserror::Error)]
pub enum TeamsError {
    /// Unknown or deleted.
    #[error("Team not found")]
    NotFound,
    /// Empty or too long.
    #[error("validation error: name must have 1 to {MAX_NAME} characters")]
    Name,
    /// Not usable as a namespace.
    #[error(
        "validation error: slug must have 1 to {MAX_NAME} of a-z, 0-9 and -, and begin with a \
         letter or digit"
    )]
    Slug,
    /// Another team has it.
    #[error("a team with the slug '{0}' exists already")]
    SlugTaken(String),
    /// The server's own.
    #[error("the default team can't be deleted or shut out")]
    Default,
    /// It still has something.
    #[error(
        "the team still has {} sandboxes, {} templates and {} volumes",
        .0.sandboxes, .0.templates, .0.volumes
    )]
    InUse(TeamHoldings),
    /// The database failed.
    #[error("read or write teams")]
    Store(#[from] StoreError),
}

/// A name that can stand as the namespace of templates.
fn is_slug(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-')
}

/// What of a name can stand in a slug.
fn slug_of(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(MAX_NAME);
    slug.trim_end_matches('-').to_owned()
}

pub(crate) fn is_name(name: &str, max: usize) -> bool {
    !name.trim().is_empty() && name.chars().count() <= max && !name.chars().any(char::is_control)
}

impl Control {
    /// Makes sure that there is a team, and a key if it has none. Returns the key in clear
    /// if one was made: it can't be shown again.
    ///
    /// # Errors
    /// [`KeysError`] when the database fails.
    pub async fn bootstrap(&self) -> Result<Option<CreatedKey>, KeysError> {
        let team = self.default_team().await?;
        if !self.store.api_key_list(team.id).await?.is_empty() {
            return Ok(None);
        }
        let key = NewKey::named("default");
        self.key_create(&By::SYSTEM, team.id, key).await.map(Some)
    }

    /// The team that a fresh server has; made if absent.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn default_team(&self) -> Result<Team, StoreError> {
        if let Some(known) = self.store.team_by_slug(DEFAULT_TEAM).await? {
            return Ok(self.team(known));
        }
        let record = TeamRecord {
            id: TeamId::random(),
            name: DEFAULT_TEAM.to_owned(),
            slug: DEFAULT_TEAM.to_owned(),
            max_sandboxes: None,
            state: TeamState::Active,
            created_at: Timestamp::now(),
        };
        self.store.team_insert(&By::SYSTEM, &record).await?;
        // Another process may have been faster; its team counts.
        let kept = self.store.team_by_slug(DEFAULT_TEAM).await?;
        Ok(self.team(kept.unwrap_or(record)))
    }

    /// Makes a team.
    ///
    /// # Errors
    /// [`TeamsError`]
    pub async fn team_create(&self, by: &By, new: NewTeam) -> Result<TeamRecord, TeamsError> {
        if !is_name(&new.name, MAX_NAME) {
            return Err(TeamsError::Name);
        }
        let slug = new.slug.unwrap_or_else(|| slug_of(&new.name));
        if !is_slug(&slug) {
            return Err(TeamsError::Slug);
        }
        let record = TeamRecord {
            id: TeamId::random(),
            name: new.name,
            slug,
            max_sandboxes: new.max_sandboxes,
            state: TeamState::Active,
            created_at: Timestamp::now(),
        };
        if self.store.team_insert(by, &record).await? {
            self.note_team(&record);
            Ok(record)
        } else {
            Err(TeamsError::SlugTaken(record.slug))
        }
    }

    /// The team that an id or a slug names.
    ///
    /// # Errors
    /// [`TeamsError::NotFound`]; [`TeamsError::Store`].
    pub async fn team_find(&self, text: &str) -> Result<TeamRecord, TeamsError> {
        let found = match text.parse() {
            Ok(id) => self.store.team_get(id).await?,
            Err(_) => self.store.team_by_slug(text).await?,
        };
        found.ok_or(TeamsError::NotFound)
    }

    /// All teams, oldest first.
    ///
    /// # Errors
    /// [`TeamsError::Store`]
    pub async fn team_list(&self) -> Result<Vec<TeamView>, TeamsError> {
        let mut teams = Vec::new();
        for record in self.store.team_list().await? {
            teams.push(self.team_view(record).await?);
        }
        Ok(teams)
    }

    /// All teams without what they have, oldest first.
    ///
    /// # Errors
    /// [`TeamsError::Store`]
    pub async fn team_records(&self) -> Result<Vec<TeamRecord>, TeamsError> {
        Ok(self.store.team_list().await?)
    }

    /// A team with what it has.
    ///
    /// # Errors
    /// [`TeamsError::Store`]
    pub async fn team_view(&self, record: TeamRecord) -> Result<TeamView, TeamsError> {
        Ok(TeamView {
            holdings: self.store.team_holdings(record.id).await?,
            is_default: record.slug == DEFAULT_TEAM,
            record,
        })
    }

    /// Changes a team; in force for the next request of its keys.
    ///
    /// # Errors
    /// [`TeamsError`]
    pub async fn team_update(
        &self,
        by: &By,
        id: TeamId,
        change: TeamChange,
    ) -> Result<TeamRecord, TeamsError> {
        if let Some(name) = &change.name
            && !is_name(name, MAX_NAME)
        {
            return Err(TeamsError::Name);
        }
        let record = self.store.team_get(id).await?.ok_or(TeamsError::NotFound)?;
        let shuts_out = change.state.is_some_and(|state| state != TeamState::Active);
        if shuts_out && record.slug == DEFAULT_TEAM {
            return Err(TeamsError::Default);
        }
        let changed = self.store.team_update(by, id, &change).await;
        self.keys.clear();
        if !changed? {
            return Err(TeamsError::NotFound);
        }
        let record = self.store.team_get(id).await?.ok_or(TeamsError::NotFound)?;
        self.note_team(&record);
        Ok(record)
    }

    /// Sets how many sandboxes a team may run at a time; `None` for the server's default.
    ///
    /// # Errors
    /// [`TeamsError`]
    pub async fn team_set_max_sandboxes(
        &self,
        by: &By,
        team: TeamId,
        max: Option<u32>,
    ) -> Result<(), TeamsError> {
        let change = TeamChange {
            max_sandboxes: Some(max),
            ..TeamChange::default()
        };
        self.team_update(by, team, change).await?;
        Ok(())
    }

    /// Deletes a team with its keys, places of people and webhooks. One that has anything
    /// else is refused unless `force` is set: then its sandboxes, builds, templates and
    /// volumes go first. Must run to its end once begun.
    ///
    /// # Errors
    /// [`TeamsError`]
    pub async fn team_delete(&self, by: &By, id: TeamId, force: bool) -> Result<(), TeamsError> {
        let record = self.store.team_get(id).await?.ok_or(TeamsError::NotFound)?;
        if record.slug == DEFAULT_TEAM {
            return Err(TeamsError::Default);
        }
        let stand_in = stand_in(&record.slug);
        if force {
            self.team_empty(&self.administrator(record)).await?;
        }
        let now = Timestamp::now();
        let deleted = self.store.team_delete(by, id, &stand_in, now).await;
        self.keys.clear();
        if deleted? {
            return Ok(());
        }
        Err(TeamsError::InUse(self.store.team_holdings(id).await?))
    }

    /// Ends and deletes all that a team has, as far as it goes.
    async fn team_empty(&self, caller: &Caller) -> Result<(), TeamsError> {
        let id = caller.team.id;
        self.builds_cancel(id).await?;
        self.kill_all(caller, true).await?;
        for summary in self.store.template_list(id).await? {
            let template = summary.template.id.to_string();
            if let Err(error) = self.template_delete(caller, &template).await {
                tracing::warn!(template, error = %Chain(&error), "a template was not deleted");
            }
        }
        for volume in self.store.volume_list(id).await? {
            if let Err(error) = self.volume_delete(caller, volume.id).await {
                tracing::warn!(volume = %volume.id, error = %Chain(&error), "a volume was not deleted");
            }
        }
        Ok(())
    }

    /// Ends the running sandboxes of a team; what is paused stays. Must run to its end once
    /// begun.
    ///
    /// # Errors
    /// [`TeamsError`]
    pub async fn team_kill(&self, id: TeamId) -> Result<Swept, TeamsError> {
        let record = self.store.team_get(id).await?.ok_or(TeamsError::NotFound)?;
        self.kill_all(&self.administrator(record), false).await
    }

    async fn kill_all(&self, caller: &Caller, paused: bool) -> Result<Swept, TeamsError> {
        let mut swept = Swept::default();
        for sandbox in self.store.sandbox_list_live(caller.team.id).await? {
            if sandbox.state == SandboxState::Paused && !paused {
                continue;
            }
            match self.kill(caller, &sandbox.id).await {
                Ok(()) => swept.killed += 1,
                Err(error) => {
                    tracing::warn!(
                        sandbox_id = %sandbox.id, error = %Chain(&error),
                        "a sandbox was not ended"
                    );
                    swept.failed += 1;
                }
            }
        }
        Ok(swept)
    }

    /// Sandboxes that run or start, by team.
    #[must_use]
    pub fn running_counts(&self) -> std::collections::BTreeMap<TeamId, u32> {
        self.quota.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_is_made_from_the_name() {
        for (name, slug) in [
            ("Acme", "acme"),
            ("Acme & Söhne GmbH", "acme-s-hne-gmbh"),
            ("--x--", "x"),
            ("日本", ""),
        ] {
            assert_eq!(slug_of(name), slug);
        }
        for bad in ["", "-a", "A", "a/b", "a b", "é", &"a".repeat(65)] {
            assert!(!is_slug(bad), "{bad}");
        }
        assert!(is_slug("a-1"));
    }
}
