//! Who did what in the team.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use warren_control::{Actor, AuditQuery, AuditRecord};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, PAGE, html};
use crate::view::moment;
use crate::visitor::{Frame, SignedIn};

/// Kinds of actors that can be chosen.
const ACTORS: [&str; 5] = ["key", "user", "admin", "local", "system"];

#[derive(Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    action: String,
    #[serde(default)]
    target: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    after: String,
}

#[derive(Debug)]
struct AuditRow {
    at: String,
    who: String,
    action: String,
    target: String,
    outcome: String,
    is_refused: bool,
}

/// Names of those who appear in a team's trail.
#[derive(Debug, Default)]
struct Names(HashMap<String, String>);

impl Names {
    async fn of(app: &App, visitor: &SignedIn) -> Result<Self, PageError> {
        let team = visitor.caller.team.id;
        let keys = app.control.key_list(team).await?;
        let mut names: HashMap<_, _> = keys
            .into_iter()
            .map(|key| (key.record.id.to_string(), key.record.name))
            .collect();
        let people = app.control.member_list(team).await?;
        names.extend(
            people
                .into_iter()
                .map(|one| (one.user.id.to_string(), one.user.email)),
        );
        Ok(Self(names))
    }

    fn who(&self, actor: &Actor) -> String {
        let named = |kind: &str, id: String| match self.0.get(&id) {
            Some(name) if kind.is_empty() => name.clone(),
            Some(name) => format!("{kind} {name}"),
            None => format!("{kind} {id}").trim_start().to_owned(),
        };
        match actor {
            Actor::Key(id) => named("key", id.to_string()),
            Actor::User(id) => named("", id.to_string()),
            Actor::Admin => "the administrator".to_owned(),
            Actor::Local => "a command on the server".to_owned(),
            Actor::System => "the server".to_owned(),
            Actor::Volume => "a volume's token".to_owned(),
        }
    }

    fn row(&self, entry: AuditRecord) -> AuditRow {
        let is_refused = entry.status.is_some_and(|status| status >= 400);
        let mut outcome = entry.status.map_or_else(String::new, |s| s.to_string());
        if let Some(reason) = entry.reason {
            outcome = format!("{outcome} {reason}").trim_start().to_owned();
        }
        AuditRow {
            at: moment(entry.at),
            who: self.who(&entry.actor),
            action: entry.action,
            target: entry.target.unwrap_or_default(),
            outcome,
            is_refused,
        }
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Option<Frame>,
    action: String,
    target: String,
    actor: String,
    actors: [&'static str; 5],
    entries: Vec<AuditRow>,
    /// Where the page of older entries is.
    next: Option<String>,
}

/// `GET /dashboard/audit`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(filter): Query<Filter>,
) -> Answer {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let query = AuditQuery {
        team: Some(visitor.caller.team.id),
        action: given(&filter.action),
        target: given(&filter.target),
        actor: given(&filter.actor),
        next_token: given(&filter.after),
        limit: Some(PAGE),
        ..AuditQuery::default()
    };
    let (entries, next) = app.control.audit_list(query).await?;
    let names = Names::of(&app, &visitor).await?;
    let older = |token: String| {
        serde_urlencoded::to_string([
            ("action", filter.action.as_str()),
            ("target", &filter.target),
            ("actor", &filter.actor),
            ("after", &token),
        ])
        .map_err(|error| PageError::Internal(Box::new(error)))
    };
    let next = next.map(older).transpose()?;
    html(&AuditPage {
        frame: visitor.frame("team"),
        entries: entries.into_iter().map(|one| names.row(one)).collect(),
        action: filter.action,
        target: filter.target,
        actor: filter.actor,
        actors: ACTORS,
        next,
    })
}

#[cfg(test)]
mod tests {
    use warren_types::{ApiKeyId, UserId};

    use super::*;

    #[test]
    fn those_who_are_gone_keep_their_id() {
        let (key, user) = (ApiKeyId::random(), UserId::random());
        let names = Names([(key.to_string(), "ci".to_owned())].into());
        assert_eq!(names.who(&Actor::Key(key)), "key ci");
        assert_eq!(names.who(&Actor::User(user)), user.to_string());
        assert_eq!(names.who(&Actor::Admin), "the administrator");
    }
}
