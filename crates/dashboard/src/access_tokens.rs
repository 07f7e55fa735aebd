//! The access tokens of a person.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use warren_control::{KeysError, NewKey};
use warren_types::UserId;

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::team::{in_days, scope_of};
use crate::view::minute;
use crate::visitor::{Frame, Posted, SignedIn};

#[derive(Debug)]
struct TokenRow {
    id: String,
    name: String,
    mask: String,
    scope: &'static str,
    made: String,
    used: String,
    expires: String,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Option<Frame>,
    tokens: Vec<TokenRow>,
    /// Shown once.
    made: Option<String>,
}

fn person(visitor: &SignedIn) -> Result<UserId, PageError> {
    let nobody = || {
        let text = "access tokens are of people; you are signed in with a key of the team";
        PageError::Forbidden(text.to_owned())
    };
    visitor.caller.user.ok_or_else(nobody)
}

async fn page(app: &App, visitor: &SignedIn, made: Option<String>) -> Answer {
    let tokens = app.control.token_list(person(visitor)?).await?;
    let never = || "never".to_owned();
    html(&TokensPage {
        frame: visitor.frame("team"),
        tokens: tokens
            .into_iter()
            .map(|one| TokenRow {
                id: one.id.to_string(),
                mask: format!("sk_e2b_{}…{}", one.mask_prefix, one.mask_suffix),
                scope: one.scope.as_str(),
                made: minute(one.created_at),
                used: one.last_used_at.map_or_else(never, minute),
                expires: one.expires_at.map_or_else(never, minute),
                name: one.name,
            })
            .collect(),
        made,
    })
}

/// `GET /dashboard/tokens`
pub(crate) async fn list(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
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

/// `POST /dashboard/tokens`. It works no longer than what the visitor is signed in with.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let (user, by, control) = (person(&visitor)?, visitor.by(), Arc::clone(&app.control));
    let wanted = in_days(&creation.days)?;
    let new = NewKey {
        scope: scope_of(&creation.scope)?,
        expires_at: match (wanted, visitor.caller.expires_at) {
            (Some(wanted), Some(own)) => Some(wanted.min(own)),
            (wanted, own) => wanted.or(own),
        },
        ..NewKey::named(creation.name.trim())
    };
    let made = detached(
        &app,
        async move { control.token_create(&by, user, new).await },
    );
    let made = made.await??;
    page(&app, &visitor, Some(made.clear.expose().to_owned())).await
}

/// `POST /dashboard/tokens/{id}/delete`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (user, by, control) = (person(&visitor)?, visitor.by(), Arc::clone(&app.control));
    let id = id.parse().map_err(|_| KeysError::NoToken)?;
    detached(
        &app,
        async move { control.token_delete(&by, user, id).await },
    )
    .await??;
    back_to("/dashboard/tokens")
}
