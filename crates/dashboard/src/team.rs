//! The team, its people and its keys.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use warren_control::KeyView;
use warren_types::{ApiKeyId, KeyScope, Role, UnknownWord};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::view::minute;
use crate::visitor::{Frame, Posted, SignedIn};

const HERE: &str = "/dashboard/team";
/// Longest life of a key made here, in days.
const MAX_DAYS: i64 = 3650;

#[derive(Debug)]
struct KeyRow {
    id: String,
    name: String,
    mask: String,
    scope: &'static str,
    made: String,
    by: String,
    used: String,
    expires: String,
}

impl KeyRow {
    fn new(key: &KeyView) -> Self {
        let record = &key.record;
        let or = |at: Option<Timestamp>, otherwise: &str| {
            at.map_or_else(|| otherwise.to_owned(), minute)
        };
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            mask: format!("e2b_{}…{}", record.mask_prefix, record.mask_suffix),
            scope: record.scope.as_str(),
            made: minute(record.created_at),
            by: key
                .created_by
                .as_ref()
                .map(|user| user.email.clone())
                .unwrap_or_default(),
            used: or(record.last_used_at, "never"),
            expires: or(record.expires_at, "never"),
        }
    }
}

#[derive(Template)]
#[template(path = "team.html")]
struct TeamPage {
    frame: Option<Frame>,
    /// Whether people can be put in here.
    admin: bool,
    id: String,
    name: String,
    slug: String,
    state: &'static str,
    limit: u32,
    hours: u64,
    role: &'static str,
    people: Vec<PersonRow>,
    roles: &'static [Role],
    keys: Vec<KeyRow>,
    made: Option<Made>,
}

#[derive(Debug)]
struct PersonRow {
    id: String,
    email: String,
    role: &'static str,
}

/// Something that is shown once.
#[derive(Debug)]
pub(crate) struct Made {
    /// A sentence that ends before "is shown only now".
    pub(crate) what: &'static str,
    pub(crate) value: String,
}

/// The page of the visitor's team.
pub(crate) async fn page(app: &App, visitor: &SignedIn, made: Option<Made>) -> Answer {
    let caller = &visitor.caller;
    let team = &caller.team;
    let keys = app.control.key_list(team.id).await?;
    let people = app.control.member_list(team.id).await?;
    html(&TeamPage {
        frame: visitor.frame("team"),
        admin: visitor.is_admin(),
        id: team.id.to_string(),
        name: team.name.clone(),
        slug: team.slug.clone(),
        state: team.state.as_str(),
        limit: team.max_sandboxes,
        hours: team.max_length.as_secs() / 3600,
        role: caller.role.as_str(),
        people: people
            .iter()
            .map(|one| PersonRow {
                id: one.user.id.to_string(),
                email: one.user.email.clone(),
                role: one.role.as_str(),
            })
            .collect(),
        roles: Role::ALL,
        keys: keys.iter().map(KeyRow::new).collect(),
        made,
    })
}

/// `GET /dashboard/team`
pub(crate) async fn team(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    page(&app, &visitor, None).await
}

#[derive(Deserialize)]
pub(crate) struct Creation {
    name: String,
    scope: String,
    /// Days that it works; empty for ever.
    #[serde(default)]
    days: String,
}

/// `POST /dashboard/keys`
pub(crate) async fn key_create(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let scope = scope_of(&creation.scope)?;
    let expires_at = in_days(&creation.days)?;
    let (control, caller, by) = (
        Arc::clone(&app.control),
        Arc::clone(&visitor.caller),
        visitor.by(),
    );
    let made = detached(&app, async move {
        let name = creation.name.trim();
        control
            .key_create_own(&caller, &by, name, Some(scope), expires_at)
            .await
    })
    .await??;
    let made = Made {
        what: "The key is made. It",
        value: made.clear.expose().to_owned(),
    };
    page(&app, &visitor, Some(made)).await
}

/// The scope that a form names.
pub(crate) fn scope_of(text: &str) -> Result<KeyScope, PageError> {
    text.parse()
        .map_err(|error: UnknownWord| PageError::Refused(error.to_string()))
}

/// The moment so many days ahead; none for an empty text.
pub(crate) fn in_days(text: &str) -> Result<Option<Timestamp>, PageError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let days = text
        .parse::<i64>()
        .ok()
        .filter(|days| (1..=MAX_DAYS).contains(days))
        .ok_or_else(|| PageError::Refused(format!("a key works for 1 to {MAX_DAYS} days")))?;
    Timestamp::now()
        .checked_add(SignedDuration::from_hours(24 * days))
        .map(Some)
        .map_err(|error| PageError::Internal(Box::new(error)))
}

fn key_id(text: &str) -> Result<ApiKeyId, PageError> {
    text.parse()
        .map_err(|_| PageError::NotFound("key".to_owned()))
}

#[derive(Deserialize)]
pub(crate) struct Naming {
    name: String,
}

/// `POST /dashboard/keys/{id}/rename`
pub(crate) async fn key_rename(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, naming): Posted<Naming>,
) -> Answer {
    let (control, by, id) = (Arc::clone(&app.control), visitor.by(), key_id(&id)?);
    detached(&app, async move {
        let name = naming.name.trim();
        control.key_rename_own(&visitor.caller, &by, id, name).await
    })
    .await??;
    back_to(HERE)
}

/// `POST /dashboard/keys/{id}/delete`
pub(crate) async fn key_delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, by, id) = (Arc::clone(&app.control), visitor.by(), key_id(&id)?);
    detached(&app, async move {
        control.key_delete_own(&visitor.caller, &by, id).await
    })
    .await??;
    back_to(HERE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_bounds() {
        assert!(in_days("1").unwrap() > Some(Timestamp::now()));
        assert_eq!(in_days(" ").unwrap(), None);
        for bad in ["0", "-1", "3651", "x", "1.5"] {
            assert!(in_days(bad).is_err(), "{bad}");
        }
    }
}
