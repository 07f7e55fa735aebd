//! What the administrator does: teams, people, their keys and tokens, the audit trail.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use warren_control::{
    AuditError, AuditQuery, AuditRecord, NewKey, NewTeam, TeamChange, TeamRecord, TeamView,
    TeamsError, UserRecord, UserView, UsersError,
};
use warren_types::KeyScope;
use warren_wire as wire;

use crate::auth::Doer;
use crate::error::ApiError;
use crate::extract::{Json, PathPair, PathText, Query, detached, json, no_content};
use crate::keys::{created_key, created_token, key_id, shown_key, shown_token, token_id};
use crate::list::with_next;
use crate::router::App;

type Answer = Result<Response, ApiError>;

impl From<TeamsError> for ApiError {
    fn from(error: TeamsError) -> Self {
        use TeamsError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::NotFound => StatusCode::NOT_FOUND,
            E::Name | E::Slug => StatusCode::BAD_REQUEST,
            E::SlugTaken(_) | E::Default | E::InUse(_) => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<UsersError> for ApiError {
    fn from(error: UsersError) -> Self {
        use UsersError as E;
        let status = match &error {
            E::Store(_) => return Self::internal(&error),
            E::NotFound | E::NoTeam | E::NoMember => StatusCode::NOT_FOUND,
            E::Email => StatusCode::BAD_REQUEST,
            E::Taken(_) => StatusCode::CONFLICT,
        };
        Self::new(status, error.to_string())
    }
}

impl From<AuditError> for ApiError {
    fn from(error: AuditError) -> Self {
        match &error {
            AuditError::Store(_) => Self::internal(&error),
            _ => Self::bad_request(error.to_string()),
        }
    }
}

fn shown_team(view: TeamView) -> wire::AdminTeam {
    let team = view.record;
    wire::AdminTeam {
        team_id: team.id.to_string(),
        name: team.name,
        slug: team.slug,
        max_sandboxes: team.max_sandboxes,
        state: team.state,
        is_default: view.is_default,
        created_at: team.created_at,
        sandboxes: view.holdings.sandboxes,
        templates: view.holdings.templates,
        volumes: view.holdings.volumes,
    }
}

fn shown_user(view: UserView) -> wire::AdminUser {
    let teams = view.teams.into_iter().map(|membership| wire::UserTeam {
        team_id: membership.team.id.to_string(),
        slug: membership.team.slug,
        role: membership.role,
        is_default: membership.is_default,
    });
    wire::AdminUser {
        id: view.record.id.to_string(),
        email: view.record.email,
        created_at: view.record.created_at,
        teams: teams.collect(),
    }
}

/// An entry of the audit trail as it is told.
pub(crate) fn shown_entry(entry: AuditRecord) -> wire::AuditEntry {
    wire::AuditEntry {
        id: entry.id.to_string(),
        timestamp: entry.at,
        team_id: entry.team_id.map(|team| team.to_string()),
        actor: entry.actor.kind().to_owned(),
        actor_id: entry.actor.id(),
        action: entry.action,
        target: entry.target,
        status: entry.status,
        reason: entry.reason,
        request_id: entry.request_id,
        origin: entry.origin,
        data: entry.data,
    }
}

async fn team(app: &App, text: &str) -> Result<TeamRecord, ApiError> {
    Ok(app.control.team_find(text).await?)
}

async fn user(app: &App, text: &str) -> Result<UserRecord, ApiError> {
    Ok(app.control.user_find(text).await?)
}

/// `GET /admin/teams`
pub(crate) async fn teams(State(app): State<Arc<App>>) -> Answer {
    let teams = app.control.team_list().await?;
    let teams: Vec<wire::AdminTeam> = teams.into_iter().map(shown_team).collect();
    Ok(json(StatusCode::OK, &teams))
}

/// `POST /admin/teams`
pub(crate) async fn team_create(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    Json(body): Json<wire::NewTeam>,
) -> Answer {
    let new = NewTeam {
        name: body.name,
        slug: body.slug,
        max_sandboxes: body.max_sandboxes.filter(|max| *max > 0),
    };
    let record = app.control.team_create(&by, new).await?;
    let view = app.control.team_view(record).await?;
    Ok(json(StatusCode::CREATED, &shown_team(view)))
}

/// `GET /admin/teams/{teamID}`
pub(crate) async fn team_get(State(app): State<Arc<App>>, PathText(id): PathText) -> Answer {
    let record = team(&app, &id).await?;
    let view = app.control.team_view(record).await?;
    Ok(json(StatusCode::OK, &shown_team(view)))
}

/// `PATCH /admin/teams/{teamID}`
pub(crate) async fn team_update(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathText(id): PathText,
    Json(body): Json<wire::AdminTeamChange>,
) -> Answer {
    let id = team(&app, &id).await?.id;
    let change = TeamChange {
        name: body.name,
        max_sandboxes: body
            .max_sandboxes
            .map(|max| Some(max).filter(|max| *max > 0)),
        state: body.state,
    };
    let record = app.control.team_update(&by, id, change).await?;
    let view = app.control.team_view(record).await?;
    Ok(json(StatusCode::OK, &shown_team(view)))
}

/// `DELETE /admin/teams/{teamID}`
pub(crate) async fn team_delete(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathText(id): PathText,
    query: Query,
) -> Answer {
    let id = team(&app, &id).await?.id;
    let force = query.text("force") == Some("true");
    let control = Arc::clone(&app.control);
    let work = async move { control.team_delete(&by, id, force).await };
    detached(&app.control, work).await??;
    Ok(no_content())
}

/// `POST /admin/teams/{teamID}/sandboxes/kill`
pub(crate) async fn kill_all(State(app): State<Arc<App>>, PathText(id): PathText) -> Answer {
    let id = team(&app, &id).await?.id;
    let control = Arc::clone(&app.control);
    let work = async move { control.team_kill(id).await };
    let swept = detached(&app.control, work).await??;
    let body = wire::KilledSandboxes {
        killed_count: swept.killed,
        failed_count: swept.failed,
    };
    Ok(json(StatusCode::OK, &body))
}

/// `GET /admin/sandboxes/running-counts`
pub(crate) async fn running_counts(State(app): State<Arc<App>>) -> Answer {
    Ok(json(StatusCode::OK, &app.control.running_counts()))
}

/// `GET /admin/teams/{teamID}/api-keys`
pub(crate) async fn keys(State(app): State<Arc<App>>, PathText(id): PathText) -> Answer {
    let id = team(&app, &id).await?.id;
    let keys = app.control.key_list(id).await?;
    let keys: Vec<wire::TeamApiKey> = keys.into_iter().map(shown_key).collect();
    Ok(json(StatusCode::OK, &keys))
}

/// `POST /admin/teams/{teamID}/api-keys`
pub(crate) async fn key_create(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathText(id): PathText,
    Json(body): Json<wire::NewApiKey>,
) -> Answer {
    let id = team(&app, &id).await?.id;
    let new = NewKey {
        name: body.name,
        scope: body.scope.unwrap_or(KeyScope::Full),
        expires_at: body.expires_at,
        created_by: None,
    };
    Ok(created_key(app.control.key_create(&by, id, new).await?))
}

/// `PATCH /admin/teams/{teamID}/api-keys/{apiKeyID}`
pub(crate) async fn key_rename(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathPair(id, key): PathPair,
    Json(body): Json<wire::Rename>,
) -> Answer {
    let (id, key) = (team(&app, &id).await?.id, key_id(&key)?);
    let renamed = app.control.key_rename(&by, id, key, &body.name).await?;
    Ok(json(StatusCode::OK, &shown_key(renamed)))
}

/// `DELETE /admin/teams/{teamID}/api-keys/{apiKeyID}`
pub(crate) async fn key_delete(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathPair(id, key): PathPair,
) -> Answer {
    let (id, key) = (team(&app, &id).await?.id, key_id(&key)?);
    app.control.key_delete(&by, id, key).await?;
    Ok(no_content())
}

/// `GET /admin/users`
pub(crate) async fn users(State(app): State<Arc<App>>) -> Answer {
    let users = app.control.user_list().await?;
    let users: Vec<wire::AdminUser> = users.into_iter().map(shown_user).collect();
    Ok(json(StatusCode::OK, &users))
}

/// `POST /admin/users`
pub(crate) async fn user_create(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    Json(body): Json<wire::NewUser>,
) -> Answer {
    let record = app.control.user_create(&by, &body.email).await?;
    let view = UserView {
        record,
        teams: Vec::new(),
    };
    Ok(json(StatusCode::CREATED, &shown_user(view)))
}

/// `DELETE /admin/users/{userID}`
pub(crate) async fn user_delete(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathText(id): PathText,
) -> Answer {
    let id = user(&app, &id).await?.id;
    app.control.user_delete(&by, id).await?;
    Ok(no_content())
}

/// `GET /admin/teams/{teamID}/members`
pub(crate) async fn members(State(app): State<Arc<App>>, PathText(id): PathText) -> Answer {
    let id = team(&app, &id).await?.id;
    let members = app.control.member_list(id).await?;
    let shown = members.into_iter().map(|member| wire::TeamMember {
        id: member.user.id.to_string(),
        email: member.user.email,
        role: member.role,
    });
    Ok(json(StatusCode::OK, &shown.collect::<Vec<_>>()))
}

/// `PUT /admin/teams/{teamID}/members/{userID}`
pub(crate) async fn member_set(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathPair(id, member): PathPair,
    Json(body): Json<wire::NewMember>,
) -> Answer {
    let (id, member) = (team(&app, &id).await?.id, user(&app, &member).await?.id);
    let (role, default) = (body.role, body.make_default);
    let set = app.control.member_set(&by, id, member, role, default);
    set.await?;
    Ok(no_content())
}

/// `DELETE /admin/teams/{teamID}/members/{userID}`
pub(crate) async fn member_remove(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathPair(id, member): PathPair,
) -> Answer {
    let (id, member) = (team(&app, &id).await?.id, user(&app, &member).await?.id);
    app.control.member_remove(&by, id, member).await?;
    Ok(no_content())
}

/// `GET /admin/users/{userID}/access-tokens`
pub(crate) async fn tokens(State(app): State<Arc<App>>, PathText(id): PathText) -> Answer {
    let id = user(&app, &id).await?.id;
    let tokens = app.control.token_list(id).await?;
    let tokens: Vec<wire::AccessToken> = tokens.into_iter().map(shown_token).collect();
    Ok(json(StatusCode::OK, &tokens))
}

/// `POST /admin/users/{userID}/access-tokens`
pub(crate) async fn token_create(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathText(id): PathText,
    Json(body): Json<wire::NewApiKey>,
) -> Answer {
    let id = user(&app, &id).await?.id;
    let new = NewKey {
        name: body.name,
        scope: body.scope.unwrap_or(KeyScope::Full),
        expires_at: body.expires_at,
        created_by: None,
    };
    Ok(created_token(app.control.token_create(&by, id, new).await?))
}

/// `DELETE /admin/users/{userID}/access-tokens/{accessTokenID}`
pub(crate) async fn token_delete(
    State(app): State<Arc<App>>,
    Doer(by): Doer,
    PathPair(id, token): PathPair,
) -> Answer {
    let (id, token) = (user(&app, &id).await?.id, token_id(&token)?);
    app.control.token_delete(&by, id, token).await?;
    Ok(no_content())
}

/// `GET /admin/audit`
pub(crate) async fn audit(State(app): State<Arc<App>>, query: Query) -> Answer {
    let team_id = match query.filled("team") {
        Some(text) => Some(team(&app, text).await?.id),
        None => None,
    };
    let text = |name: &str| query.filled(name).map(str::to_owned);
    let since = query.filled("since").map(str::parse).transpose();
    let wanted = AuditQuery {
        team: team_id,
        target: text("target"),
        request_id: text("requestID"),
        action: text("action"),
        actor: text("actor"),
        since: since.map_err(|_| ApiError::validation("since must be a time"))?,
        refused: query.text("refused") == Some("true"),
        next_token: text("nextToken"),
        limit: query.integer("limit")?,
    };
    let (entries, next) = app.control.audit_list(wanted).await?;
    let entries: Vec<wire::AuditEntry> = entries.into_iter().map(shown_entry).collect();
    Ok(with_next(json(StatusCode::OK, &entries), next.as_deref()))
}
