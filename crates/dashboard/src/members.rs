//! People of a team, put in and taken out by the administrator.

use std::sync::Arc;

use axum::extract::{Path, State};
use serde::Deserialize;
use warren_control::{NewKey, UsersError};
use warren_types::{Role, UnknownWord, UserId};

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, Nothing, back_to, detached};
use crate::team;
use crate::visitor::Posted;

const HERE: &str = "/dashboard/team";

#[derive(Deserialize)]
pub(crate) struct Place {
    email: String,
    role: String,
}

/// `POST /dashboard/team/members`: gives a person a role in the team. Whoever is not known
/// yet is added, with an access token that is shown once.
pub(crate) async fn set(
    State(app): State<Arc<App>>,
    Posted(visitor, place): Posted<Place>,
) -> Answer {
    let role: Role = place
        .role
        .parse()
        .map_err(|error: UnknownWord| PageError::Refused(error.to_string()))?;
    let (control, by, team) = (
        Arc::clone(&app.control),
        visitor.by(),
        visitor.caller.team.id,
    );
    let work = async move {
        let email = place.email.trim();
        let (user, token) = match control.user_find(email).await {
            Ok(known) => (known, None),
            Err(UsersError::NotFound) => {
                let added = control.user_create(&by, email).await?;
                let new = NewKey::named("first");
                let token = control.token_create(&by, added.id, new).await?;
                (added, Some(token.clear))
            }
            Err(error) => return Err(error.into()),
        };
        control
            .member_set(&by, team, user.id, role, token.is_some())
            .await?;
        Ok::<_, PageError>(token)
    };
    match detached(&app, work).await?? {
        Some(token) => {
            let made = team::Made {
                what: "The person is added. Their access token",
                value: token.expose().to_owned(),
            };
            team::page(&app, &visitor, Some(made)).await
        }
        None => back_to(HERE),
    }
}

/// `POST /dashboard/team/members/{id}/remove`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, by, team) = (
        Arc::clone(&app.control),
        visitor.by(),
        visitor.caller.team.id,
    );
    let user: UserId = id.parse().map_err(|_| UsersError::NoMember)?;
    detached(
        &app,
        async move { control.member_remove(&by, team, user).await },
    )
    .await??;
    back_to(HERE)
}
