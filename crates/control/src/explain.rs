//! Why something is as it is: what became of a sandbox, a build or a request, in words.

use jiff::Timestamp;
use warren_cluster::LogQuery;
use warren_store::{
    Actor, AuditFilter, AuditRecord, BuildRecord, BuildStatus, EventFilter, EventRecord,
    SandboxRecord, StoreError,
};
use warren_types::{EndReason, LogEntry, SandboxEnd, SandboxId, SandboxState, TeamId};

use crate::{BuildEntry, Control, TeamsError};

/// Entries of each kind at most.
const MOST: u32 = 50;

/// What is known of an id.
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// Sentences that say it all, the first the most important.
    pub summary: Vec<String>,
    /// What befell the sandbox, oldest first.
    pub events: Vec<EventRecord>,
    /// Who did or wanted what with it, oldest first.
    pub trail: Vec<AuditRecord>,
    /// The last lines of its log.
    pub log: Vec<LogEntry>,
}

impl Explanation {
    /// What was refused of what the trail has.
    fn refusals(&self) -> Vec<String> {
        let refused = self.trail.iter().filter(|entry| is_refusal(entry));
        refused.map(of_request).collect()
    }
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// Nothing is known by this id, or it is forgotten.
    #[error("nothing is known of '{0}', or it is past what is kept")]
    Unknown(String),
    /// The database failed.
    #[error("look for what is known")]
    Store(#[from] StoreError),
}

impl Control {
    /// Says what became of a sandbox, a build, or the request that was answered with this
    /// id; of a team, what was refused to it lately; of anything else, who did what with it.
    /// With `of` only of what is this team's.
    ///
    /// # Errors
    /// [`ExplainError`]
    pub async fn explain(&self, id: &str, of: Option<TeamId>) -> Result<Explanation, ExplainError> {
        let is_shown = |team: TeamId| of.is_none_or(|of| of == team);
        let filter = AuditFilter {
            team: of,
            limit: MOST,
            ..AuditFilter::default()
        };
        let by_target = AuditFilter {
            target: Some(id.to_owned()),
            ..filter.clone()
        };
        let mut trail = self.store.audit_list(&by_target).await?;
        if trail.is_empty() {
            let by_request = AuditFilter {
                request_id: Some(id.to_owned()),
                ..filter
            };
            trail = self.store.audit_list(&by_request).await?;
        }
        trail.reverse();
        let mut told = Explanation {
            trail,
            ..Explanation::default()
        };
        if let Ok(sandbox) = SandboxId::from_client(id)
            && let Some(record) = self.store.sandbox_find(&sandbox).await?
            && is_shown(record.team_id)
        {
            self.explain_sandbox(record, &mut told).await?;
        } else if let Ok(build) = id.parse()
            && let Some((record, team)) = self.store.build_get(build).await?
            && is_shown(team)
        {
            told.summary.push(of_build(&record));
            told.summary.extend(told.refusals());
            let lines = self.build_log_end(build, MOST as usize).await;
            told.log = lines.into_iter().map(log_entry).collect();
        } else if let Some(team) = self.team_named(id).await?
            && is_shown(team)
        {
            return Ok(self.refusals(team).await?);
        } else {
            told.summary.extend(told.trail.iter().map(of_request));
        }
        if told.summary.is_empty() {
            return Err(ExplainError::Unknown(id.to_owned()));
        }
        Ok(told)
    }

    async fn team_named(&self, text: &str) -> Result<Option<TeamId>, StoreError> {
        match self.team_find(text).await {
            Ok(team) => Ok(Some(team.id)),
            Err(TeamsError::Store(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// What was refused to a team lately, and why.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn refusals(&self, team: TeamId) -> Result<Explanation, StoreError> {
        let filter = AuditFilter {
            team: Some(team),
            refused: true,
            limit: MOST,
            ..AuditFilter::default()
        };
        let mut trail = self.store.audit_list(&filter).await?;
        let mut summary: Vec<String> = trail.iter().map(of_request).collect();
        if summary.is_empty() {
            summary.push("Nothing that is remembered was refused to this team.".to_owned());
        }
        trail.reverse();
        Ok(Explanation {
            summary,
            trail,
            ..Explanation::default()
        })
    }

    async fn explain_sandbox(
        &self,
        record: SandboxRecord,
        told: &mut Explanation,
    ) -> Result<(), StoreError> {
        let record = &match record.ended_at {
            None => self.now(record.clone()).await.unwrap_or(record),
            Some(_) => record,
        };
        let team = self.store.team_get(record.team_id).await?;
        let team = team.map_or_else(|| record.team_id.to_string(), |team| team.slug);
        told.summary.extend(of_sandbox(record, &team));
        if record.end_reason == Some(EndReason::Killed)
            && let Some(kill) = told.trail.iter().rev().find(|entry| is_kill(entry))
        {
            let who = self.who(&kill.actor, record).await?;
            told.summary
                .push(format!("{who} asked for that at {}.", kill.at));
        }
        told.summary.extend(told.refusals());
        told.events = self
            .store
            .event_list(&EventFilter {
                team: record.team_id,
                sandbox: Some(record.id.clone()),
                kinds: Vec::new(),
                ascending: false,
                offset: 0,
                limit: MOST,
            })
            .await?;
        told.events.reverse();
        let query = LogQuery {
            from: None,
            limit: MOST as usize,
            backward: true,
            min_level: None,
            until: None,
            logger: None,
            search: None,
        };
        // A node that keeps nothing of it any more has nothing to add.
        told.log = self.node.logs(&record.id, query).await.unwrap_or_default();
        told.log.reverse();
        Ok(())
    }

    /// Somebody of the trail, for people.
    async fn who(&self, actor: &Actor, record: &SandboxRecord) -> Result<String, StoreError> {
        Ok(match actor {
            Actor::Key(id) => {
                let keys = self.store.api_key_list(record.team_id).await?;
                let known = keys.into_iter().find(|key| key.id == *id);
                let name = known.map_or_else(|| "deleted since".to_owned(), |key| key.name);
                format!("API key {id} ({name})")
            }
            Actor::User(id) => match self.store.user_get(*id).await? {
                Some(user) => user.email,
                None => format!("user {id}, deleted since,"),
            },
            Actor::Admin => "The administrator".to_owned(),
            Actor::Local => "A command on the server's machine".to_owned(),
            Actor::System => "The server".to_owned(),
            Actor::Volume => "Whoever has the volume's token".to_owned(),
        })
    }
}

fn is_kill(entry: &AuditRecord) -> bool {
    entry.action == "DELETE /sandboxes/{sandboxID}" && entry.status.is_some_and(|s| s < 300)
}

fn is_refusal(entry: &AuditRecord) -> bool {
    entry.status.is_some_and(|status| status >= 400)
}

fn lived(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn of_sandbox(record: &SandboxRecord, team: &str) -> Vec<String> {
    let id = &record.id;
    let mut told = Vec::new();
    match record.ended_at.zip(record.end_reason) {
        Some((at, reason)) => {
            let end = SandboxEnd {
                reason,
                at,
                memory_peak: record.memory_peak,
            };
            told.push(format!("Sandbox {id} {} at {at}.", end.explain()));
            told.push(format!(
                "Its last run began at {} and took {}.",
                record.started_at,
                lived(record.started_at, at)
            ));
            told.extend(advice(record, reason));
        }
        None if record.state == SandboxState::Paused => {
            told.push(format!("Sandbox {id} is paused since {}.", record.end_at));
            if let Some(note) = record.pause.as_ref().and_then(|pause| pause.note.as_ref()) {
                told.push(format!("Less of it was kept than was asked for: {note}."));
            }
        }
        None => {
            let what = if record.auto_pause {
                "is paused"
            } else {
                "ends"
            };
            told.push(format!(
                "Sandbox {id} runs; it {what} at {}.",
                record.end_at
            ));
        }
    }
    told.push(format!(
        "Team {team}, template {} (build {}), {} CPUs, {} MiB of memory, {} MiB of disk, asked \
         for {} s.",
        record
            .alias
            .as_deref()
            .unwrap_or(record.template_id.as_str()),
        record.build_id,
        record.cpu_count,
        record.memory_mib,
        record.disk_mib,
        record.timeout_s,
    ));
    told
}

/// What can be done about an end that nobody wanted.
fn advice(record: &SandboxRecord, reason: EndReason) -> Option<String> {
    Some(match reason {
        EndReason::OutOfMemory => format!(
            "It had {} MiB; build its template with more memory.",
            record.memory_mib
        ),
        EndReason::TimedOut => format!(
            "It was made for {} s; a longer time-out, set_timeout or pausing at time-out keeps \
             it.",
            record.timeout_s
        ),
        EndReason::Crashed => "The end of its log and the kernel's log may tell more.".to_owned(),
        EndReason::Killed
        | EndReason::HostRestarted
        | EndReason::Evicted
        | EndReason::StartFailed => return None,
    })
}

fn log_entry(line: BuildEntry) -> LogEntry {
    LogEntry {
        timestamp: line.timestamp,
        level: line.level,
        message: line.message,
        fields: line
            .step
            .map(|step| ("step".to_owned(), step))
            .into_iter()
            .collect(),
    }
}

fn of_build(record: &BuildRecord) -> String {
    let (id, template) = (record.id, &record.template_id);
    match (record.status, &record.reason) {
        (BuildStatus::Error, Some(reason)) => {
            let step = reason.step.as_ref().map(|step| format!(" in step {step}"));
            format!(
                "Build {id} of template {template} failed{}: {}",
                step.unwrap_or_default(),
                reason.message
            )
        }
        (status, _) => format!(
            "Build {id} of template {template} is {} since {}.",
            status.as_str(),
            record.updated_at
        ),
    }
}

fn of_request(entry: &AuditRecord) -> String {
    let target = entry.target.as_ref().map(|target| format!(" ({target})"));
    let target = target.unwrap_or_default();
    match entry.status.filter(|_| is_refusal(entry)) {
        Some(status) => format!(
            "{}{target} was refused at {} with {status}: {}",
            entry.action,
            entry.at,
            entry.reason.as_deref().unwrap_or("no reason is known")
        ),
        None => format!("{}{target} was done at {}.", entry.action, entry.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_say_them() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(lived(at(5), at(5)), "0 s");
        assert_eq!(lived(at(0), at(125)), "2 min 5 s");
        assert_eq!(lived(at(0), at(7260)), "2 h 1 min");
        assert_eq!(lived(at(9), at(1)), "0 s");
    }
}
