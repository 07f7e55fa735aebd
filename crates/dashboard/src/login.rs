//! Signing in and out, and letting a program on the visitor's machine act for them.
//!
//! The second is the protocol of `auth login`: the program listens on a port of its own and
//! opens our page with the address in `next`; after a yes, the browser carries an access
//! token there. The token does not expire, so it is its own refresh token: refreshing finds
//! out whether it still works, and revoking deletes it.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Query, RawQuery, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{CONTENT_SECURITY_POLICY, HOST, ORIGIN, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use warren_control::AuthError;
use warren_service::{Chain, Secret};

use crate::App;
use crate::assets::policy;
use crate::error::PageError;
use crate::pages::{Answer, back_to, html};
use crate::session::{self, Held};
use crate::visitor::{Frame, Posted, SignedIn, authenticate, is_own_path};

/// Longest key that is looked at.
const MAX_KEY: usize = 512;
/// Longest address of a program.
const MAX_NEXT: usize = 512;
/// Name that programs have for us; it says nothing.
const CLIENT: &str = "warren";
const HOME: &str = "/dashboard";
const TOKEN_PATH: &str = "/dashboard/oauth/token";
const REVOKE_PATH: &str = "/dashboard/oauth/revoke";

#[derive(Template)]
#[template(path = "sign-in.html")]
struct SignInPage {
    message: Option<String>,
    then: String,
}

#[derive(Deserialize)]
pub(crate) struct Then {
    #[serde(default)]
    then: String,
}

pub(crate) async fn sign_in(Query(Then { then }): Query<Then>) -> Answer {
    html(&SignInPage {
        message: None,
        then,
    })
}

#[derive(Deserialize)]
pub(crate) struct Credentials {
    key: String,
    #[serde(default)]
    then: String,
}

/// Takes a key or an access token for a session. Text that is neither is refused like a
/// wrong one.
pub(crate) async fn signed_in(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Form(credentials): Form<Credentials>,
) -> Answer {
    let key = credentials.key.trim();
    let held = Held {
        credential: Secret::new(key.to_owned()),
        team: None,
    };
    let found = if key.len() > MAX_KEY {
        Err(AuthError::KeyFormat)
    } else {
        authenticate(&app, &held).await
    };
    match found {
        Ok(_) => {
            let name = app.sessions.begin(held.credential);
            let is_tls = own_url(&headers).is_some_and(|url| url.starts_with("https:"));
            let cookie = [(SET_COOKIE, session::cookie(Some(&name), is_tls))];
            let then = Some(credentials.then.as_str()).filter(|then| is_own_path(then));
            Ok((cookie, Redirect::to(then.unwrap_or(HOME))).into_response())
        }
        Err(AuthError::Store(source)) => Err(PageError::Internal(Box::new(source))),
        Err(error) => {
            tracing::info!(error = %Chain(&error), "a sign-in was refused");
            let page = SignInPage {
                message: Some(error.to_string()),
                then: credentials.then,
            };
            Ok((StatusCode::UNAUTHORIZED, html(&page)?).into_response())
        }
    }
}

pub(crate) async fn sign_out(State(app): State<Arc<App>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Some(name) = session::named(&parts) {
        app.sessions.end(name);
    }
    let cookie = [(SET_COOKIE, session::cookie(None, false))];
    (cookie, Redirect::to("/dashboard/sign-in")).into_response()
}

#[derive(Deserialize)]
pub(crate) struct Switch {
    team: String,
}

/// `POST /dashboard/switch`: acts for another of the visitor's teams from now on. Leads to
/// the first page, since what the one before showed is of the other team.
pub(crate) async fn switch(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Posted(visitor, switch): Posted<Switch>,
) -> Answer {
    // Whoever shows a key has the team of that key and no other.
    if visitor.caller.user.is_none() && !visitor.is_admin() {
        let error = AuthError::NoMember;
        return Err(PageError::Forbidden(error.to_string()));
    }
    let name = session::named_in(&headers).unwrap_or_default();
    let held = app.sessions.get(name).map(|held| Held {
        team: Some(switch.team.clone()),
        ..held
    });
    let held = held.ok_or(PageError::SignedOut { then: None })?;
    match authenticate(&app, &held).await {
        Ok(caller) => app.sessions.choose(name, Some(caller.team.id.to_string())),
        Err(AuthError::Store(source)) => return Err(PageError::Internal(Box::new(source))),
        Err(error) => return Err(PageError::Forbidden(error.to_string())),
    }
    back_to(HOME)
}

/// `GET /api/cli`, where clients look for the page.
pub(crate) async fn program_entry(RawQuery(query): RawQuery) -> Redirect {
    let query = query.filter(|query| query.bytes().all(|byte| byte.is_ascii_graphic()));
    Redirect::to(&format!("/dashboard/cli?{}", query.unwrap_or_default()))
}

/// What a program, or the browser on its way back from it, says.
#[derive(Deserialize)]
pub(crate) struct Ask {
    #[serde(default)]
    next: String,
    state: Option<String>,
    email: Option<String>,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "program.html")]
struct ProgramPage {
    frame: Option<Frame>,
    next: String,
}

#[derive(Template)]
#[template(path = "program-done.html")]
struct DonePage {
    frame: Option<Frame>,
    email: Option<String>,
    problem: Option<String>,
}

/// Where a program on the visitor's own machine listens. Nothing else may get a token.
#[derive(Debug)]
struct Listener {
    url: String,
    origin: String,
}

impl Listener {
    fn read(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let port = authority.port_u16()?;
        let host = authority.host();
        let is_plain = authority.as_str() == format!("{host}:{port}")
            && text.len() <= MAX_NEXT
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        (uri.scheme_str() == Some("http") && is_here && is_plain).then(|| Self {
            url: text.to_owned(),
            origin: format!("http://{authority}"),
        })
    }

    /// Leads the browser there with an answer.
    fn answer(&self, answer: &impl Serialize) -> Answer {
        let query = serde_urlencoded::to_string(answer)
            .map_err(|error| PageError::Internal(Box::new(error)))?;
        let joint = if self.url.contains('?') { '&' } else { '?' };
        Ok(Redirect::to(&format!("{}{joint}{query}", self.url)).into_response())
    }
}

fn listener(text: &str) -> Result<Listener, PageError> {
    Listener::read(text).ok_or_else(|| {
        PageError::Refused("the program does not listen on this computer".to_owned())
    })
}

/// `GET /dashboard/cli`: asks whether the program may act for the visitor, and afterwards
/// tells how it went.
pub(crate) async fn program(
    Query(ask): Query<Ask>,
    visitor: Result<SignedIn, PageError>,
) -> Answer {
    match ask.state.as_deref() {
        None => {}
        Some("success") => {
            return html(&DonePage {
                frame: None,
                email: ask.email,
                problem: None,
            });
        }
        Some(_) => {
            return html(&DonePage {
                frame: None,
                email: None,
                problem: Some(ask.error.unwrap_or_default()),
            });
        }
    }
    let visitor = visitor?;
    let next = listener(&ask.next)?;
    let page = ProgramPage {
        frame: visitor.frame(""),
        next: next.url,
    };
    // Browsers hold where a form leads on to against this as well.
    let policy = HeaderValue::try_from(policy(&format!("'self' {}", next.origin), ""))
        .map_err(|error| PageError::Internal(Box::new(error)))?;
    Ok(([(CONTENT_SECURITY_POLICY, policy)], html(&page)?).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Decision {
    next: String,
    allow: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    email: String,
    access_token: String,
    refresh_token: String,
    token_endpoint: String,
    revoke_endpoint: String,
    client_id: &'static str,
}

/// `POST /dashboard/cli`
pub(crate) async fn program_decided(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    Posted(visitor, decision): Posted<Decision>,
) -> Answer {
    let next = listener(&decision.next)?;
    if !decision.allow {
        return next.answer(&[("error", "The sign-in was refused in the browser")]);
    }
    let base = own_url(&headers)
        .ok_or_else(|| PageError::Refused("the request names no host".to_owned()))?;
    let login = app.control.program_login(&visitor.caller).await?;
    let token = login.token.expose();
    next.answer(&Granted {
        email: login.email,
        access_token: token.to_owned(),
        refresh_token: token.to_owned(),
        token_endpoint: format!("{base}{TOKEN_PATH}"),
        revoke_endpoint: format!("{base}{REVOKE_PATH}"),
        client_id: CLIENT,
    })
}

/// The server as the browser sees it. The origin of a form was compared with the host.
fn own_url(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    match text(ORIGIN) {
        Some(origin) => Some(origin.to_owned()),
        None => text(HOST).map(|host| format!("http://{host}")),
    }
}

#[derive(Deserialize)]
pub(crate) struct Exchange {
    #[serde(default)]
    grant_type: String,
    #[serde(default)]
    refresh_token: String,
}

#[derive(Serialize)]
struct OAuthRefusal {
    error: &'static str,
    error_description: &'static str,
}

fn oauth_refusal(error: &'static str, error_description: &'static str) -> Response {
    let body = OAuthRefusal {
        error,
        error_description,
    };
    (StatusCode::BAD_REQUEST, axum::Json(body)).into_response()
}

#[derive(Serialize)]
struct FreshTokens {
    access_token: String,
    refresh_token: String,
    token_type: &'static str,
}

/// `POST /dashboard/oauth/token`
pub(crate) async fn token(
    State(app): State<Arc<App>>,
    Form(exchange): Form<Exchange>,
) -> Result<Response, PageError> {
    if exchange.grant_type != "refresh_token" {
        return Ok(oauth_refusal(
            "unsupported_grant_type",
            "only refresh_token is known",
        ));
    }
    match app
        .control
        .authenticate_token(&exchange.refresh_token, None)
        .await
    {
        Ok(_) => Ok(axum::Json(FreshTokens {
            access_token: exchange.refresh_token.clone(),
            refresh_token: exchange.refresh_token,
            token_type: "bearer",
        })
        .into_response()),
        Err(AuthError::Store(source)) => Err(PageError::Internal(Box::new(source))),
        Err(_) => Ok(oauth_refusal("invalid_grant", "the sign-in has ended")),
    }
}

#[derive(Deserialize)]
pub(crate) struct Revocation {
    #[serde(default)]
    token: String,
}

/// `POST /dashboard/oauth/revoke`. A token that does not work is revoked already.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    Form(revocation): Form<Revocation>,
) -> Result<StatusCode, PageError> {
    let revoked = app.control.program_logout(&revocation.token).await;
    revoked.map_err(|error| PageError::Internal(Box::new(error)))?;
    Ok(StatusCode::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_to_this_computer_only() {
        let read = |text| Listener::read(text).map(|one| one.origin);
        assert_eq!(
            read("http://localhost:4000/x?y=1").as_deref(),
            Some("http://localhost:4000")
        );
        assert!(read("http://127.0.0.1:1").is_some() && read("http://[::1]:80/").is_some());
        for other in [
            "",
            "/x",
            "localhost:4000",
            "http://localhost",
            "https://localhost:4000",
            "http://evil.example:80",
            "http://localhost:80@evil.example:80",
            "http://user@localhost:80",
            "http://localhost.evil.example:80",
            "javascript:alert(1)",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn answers_are_added_to_the_address() {
        let answer = |next: &str| {
            let response = Listener::read(next).unwrap().answer(&[("error", "a b&c")]);
            let response = response.unwrap();
            response.headers()["location"].to_str().unwrap().to_owned()
        };
        assert_eq!(
            answer("http://localhost:1"),
            "http://localhost:1?error=a+b%26c"
        );
        assert_eq!(
            answer("http://localhost:1/p?q=1"),
            "http://localhost:1/p?q=1&error=a+b%26c"
        );
    }
}
