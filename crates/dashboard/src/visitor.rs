//! Whose request it is, and whether they may ask for that.

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderName, Method};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use warren_control::{Actor, AuthError, By, Caller};
use warren_types::TeamState;

use crate::App;
use crate::error::{PageError, Told};
use crate::routes::Access;
use crate::session::{Held, named};
use crate::trail;

/// Start of access tokens.
const TOKEN_PREFIX: &str = "sk_e2b_";
/// Slug of the first team, which is that of whoever runs the server.
const OPERATOR: &str = "default";
/// Longest form that a page sends.
const MAX_FORM: usize = 64 << 10;
/// Where scripts put the token that forms have in a field.
const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");
/// Where scripts put the team of the page that they run in.
const TEAM_HEADER: HeaderName = HeaderName::from_static("x-page-team");

/// Finds out for whom a session acts now.
pub(crate) async fn authenticate(app: &App, held: &Held) -> Result<Arc<Caller>, AuthError> {
    let (shown, team) = (held.credential.expose(), held.team.as_deref());
    if shown.starts_with(TOKEN_PREFIX) {
        return app.control.authenticate_token(shown, team).await;
    }
    if !app.is_admin_token(shown) {
        return app.control.authenticate_key(shown).await;
    }
    let team = match team {
        Some(team) => team.to_owned(),
        None => app.control.default_team().await?.id.to_string(),
    };
    let caller = app.control.caller_for_team(&team).await?;
    caller.ok_or(AuthError::NoMember)
}

/// A team that somebody signed in can act for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) id: String,
    pub(crate) name: String,
}

/// What every page of somebody signed in shows around its content.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) team: String,
    pub(crate) team_id: String,
    pub(crate) section: &'static str,
    pub(crate) csrf: String,
    /// Whether the machine is their business.
    pub(crate) is_operator: bool,
    /// Whether they are a person, who has access tokens.
    pub(crate) is_person: bool,
    pub(crate) is_read_only: bool,
    /// The teams they can act for, if these are several.
    pub(crate) choices: Vec<Choice>,
}

/// Whoever is signed in; pages without one lead to the sign-in.
#[derive(Debug)]
pub(crate) struct SignedIn {
    pub(crate) caller: Arc<Caller>,
    csrf: String,
    choices: Vec<Choice>,
    /// The address that the request came from.
    origin: Option<IpAddr>,
}

impl SignedIn {
    /// Whoever does what this request asks for, for the audit trail.
    pub(crate) fn by(&self) -> By {
        By {
            actor: self.caller.actor,
            request_id: None,
            origin: self.origin,
        }
    }

    /// Whether it is the administrator.
    pub(crate) fn is_admin(&self) -> bool {
        self.caller.actor == Actor::Admin
    }

    /// Whether the machine, and who else uses it, is their business.
    pub(crate) fn is_operator(&self) -> bool {
        self.is_admin() || self.caller.team.slug == OPERATOR
    }

    /// The surroundings of a page in a section.
    pub(crate) fn frame(&self, section: &'static str) -> Option<Frame> {
        let caller = &self.caller;
        Some(Frame {
            team: caller.team.name.clone(),
            team_id: caller.team.id.to_string(),
            section,
            csrf: self.csrf.clone(),
            is_operator: self.is_operator(),
            is_person: caller.user.is_some(),
            is_read_only: caller.is_read_only(),
            choices: self.choices.clone(),
        })
    }

    async fn find(app: &App, name: &str, with_choices: bool) -> Result<Self, Absence> {
        let held = app.sessions.get(name).ok_or(Absence::SignedOut)?;
        // Asked each time, so that a deleted key ends its sessions.
        let caller = match authenticate(app, &held).await {
            Ok(caller) => caller,
            Err(AuthError::Store(source)) => {
                return Err(Absence::Failed(PageError::Internal(Box::new(source))));
            }
            Err(AuthError::NoMember | AuthError::Banned) if held.team.is_some() => {
                app.sessions.choose(name, None);
                return Err(Absence::LeftTeam);
            }
            Err(_) => return Err(Absence::SignedOut),
        };
        let choices = if with_choices {
            choices(app, &caller).await.map_err(Absence::Failed)?
        } else {
            Vec::new()
        };
        Ok(Self {
            csrf: csrf(name, &caller.team.id.to_string()),
            caller,
            choices,
            origin: None,
        })
    }
}

/// Why nobody is there.
enum Absence {
    SignedOut,
    LeftTeam,
    Failed(PageError),
}

/// The teams to choose from; none where there is but one.
async fn choices(app: &App, caller: &Caller) -> Result<Vec<Choice>, PageError> {
    let mut teams = match (caller.user, caller.actor) {
        (Some(user), _) => app.control.memberships(user).await?,
        (None, Actor::Admin) => app.control.team_records().await?,
        _ => Vec::new(),
    };
    teams.retain(|team| team.state != TeamState::Banned || team.id == caller.team.id);
    if teams.len() < 2 {
        return Ok(Vec::new());
    }
    let choice = |team: warren_control::TeamRecord| Choice {
        id: team.id.to_string(),
        name: team.name,
    };
    Ok(teams.into_iter().map(choice).collect())
}

/// What forms of a session bear: known to its pages, and not to other sites. That of another
/// team differs, so that a page left open does nothing to a team that it does not show.
fn csrf(session: &str, team: &str) -> String {
    hex::encode(Sha256::digest(format!("form:{session}:{team}")))
}

impl FromRequestParts<Arc<App>> for SignedIn {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, PageError> {
        let signed_out = || PageError::SignedOut {
            then: (parts.method == Method::GET)
                .then(|| parts.uri.path_and_query().map(ToString::to_string))
                .flatten(),
        };
        // A route that is not in the table is taken for the strictest.
        let access = parts.extensions.get::<Access>().copied();
        let access = access.unwrap_or(Access::Operate);
        let name = named(parts).ok_or_else(signed_out)?;
        let found = Self::find(app, name, access != Access::Part).await;
        let mut visitor = found.map_err(|absence| match absence {
            Absence::SignedOut => signed_out(),
            Absence::LeftTeam => PageError::LeftTeam,
            Absence::Failed(error) => error,
        })?;
        visitor.origin = trail::origin(parts);
        let page_team = parts.headers.get(TEAM_HEADER);
        let team = visitor.caller.team.id.to_string();
        if page_team.is_some_and(|shown| *shown != team) {
            return Err(PageError::OtherTeam);
        }
        let allowed = match access {
            Access::Open | Access::Page | Access::Part | Access::Own => Ok(()),
            Access::Change => visitor.caller.require_write(false),
            Access::Deletion => visitor.caller.require_write(true),
            Access::Operate if visitor.is_admin() => Ok(()),
            Access::Operate => {
                return Err(PageError::Forbidden(
                    "that is for the administrator; sign in with the token in the file \
                     admin-token of the server's data directory"
                        .to_owned(),
                ));
            }
        };
        allowed.map_err(|error| PageError::Forbidden(error.to_string()))?;
        Ok(visitor)
    }
}

/// Somebody signed in whose script showed the token of their forms, for bodies that are no
/// forms.
#[derive(Debug)]
pub(crate) struct Sent(pub(crate) SignedIn);

impl FromRequestParts<Arc<App>> for Sent {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, PageError> {
        let visitor = SignedIn::from_request_parts(parts, app).await?;
        visitor.check(shown(parts).unwrap_or_default())?;
        Ok(Self(visitor))
    }
}

impl SignedIn {
    fn check(&self, shown: &str) -> Result<(), PageError> {
        // Both are digests, so that how long this takes tells nothing of use.
        if Sha256::digest(shown) == Sha256::digest(&self.csrf) {
            Ok(())
        } else {
            Err(PageError::Forged)
        }
    }
}

fn shown(parts: &Parts) -> Option<&str> {
    let header = parts.headers.get(CSRF_HEADER);
    header.and_then(|value| value.to_str().ok())
}

/// A form that a page of ours sent, and who sent it.
#[derive(Debug)]
pub(crate) struct Posted<T>(pub(crate) SignedIn, pub(crate) T);

#[derive(Deserialize)]
struct Marked {
    #[serde(default)]
    csrf: String,
}

impl<T: DeserializeOwned> FromRequest<Arc<App>> for Posted<T> {
    type Rejection = PageError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, PageError> {
        let (mut parts, body) = request.into_parts();
        let visitor = SignedIn::from_request_parts(&mut parts, app).await?;
        let body: Bytes = axum::body::to_bytes(body, MAX_FORM)
            .await
            .map_err(|_| PageError::Refused("the form is too long".to_owned()))?;
        match shown(&parts) {
            Some(shown) => visitor.check(shown)?,
            None => visitor.check(&read::<Marked>(&body)?.csrf)?,
        }
        Ok(Self(visitor, read(&body)?))
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, PageError> {
    serde_urlencoded::from_bytes(body)
        .map_err(|error| PageError::Refused(format!("the form can't be read: {error}")))
}

/// A path of ours that a sign-in leads back to.
pub(crate) fn is_own_path(path: &str) -> bool {
    let rest = path.strip_prefix("/dashboard");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
        && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Puts pages that tell of an error into the surroundings of other pages.
pub(crate) async fn frame_errors(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let name = named(&parts).map(str::to_owned);
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let told = response.extensions_mut().remove::<Told>();
    if let (Some(told), Some(name)) = (told, name)
        && let Ok(visitor) = SignedIn::find(&app, &name, true).await
    {
        return told.page(response.status(), visitor.frame(""));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_in_leads_back_to_pages_of_ours_only() {
        for own in ["/dashboard", "/dashboard/usage", "/dashboard?state=paused"] {
            assert!(is_own_path(own), "{own}");
        }
        for other in [
            "",
            "/",
            "//x",
            "/dashboards",
            "https://x/dashboard",
            "/dashboard/\n",
        ] {
            assert!(!is_own_path(other), "{other}");
        }
    }

    #[test]
    fn forms_of_two_sessions_and_of_two_teams_differ() {
        assert_ne!(csrf("a", "t"), csrf("b", "t"));
        assert_ne!(csrf("a", "t"), csrf("a", "u"));
        assert_eq!(csrf("a", "t"), csrf("a", "t"));
    }
}
