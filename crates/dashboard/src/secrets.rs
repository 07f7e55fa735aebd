//! Secrets by name. Values go in and never come out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use serde::Deserialize;
use warren_service::Secret;

use crate::App;
use crate::pages::{Answer, PAGE, Paging, back_to, detached, html};
use crate::view::moment;
use crate::visitor::{Frame, Posted, SignedIn};

const HERE: &str = "/dashboard/secrets";

#[derive(Debug)]
struct SecretRow {
    name: String,
    version: i64,
    changed: String,
}

#[derive(Template)]
#[template(path = "secrets.html")]
struct SecretsPage {
    frame: Option<Frame>,
    secrets: Vec<SecretRow>,
    next: Option<String>,
}

/// `GET /dashboard/secrets`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Query(paging): Query<Paging>,
) -> Answer {
    let cursor = paging.after.filter(|after| !after.is_empty());
    let (secrets, next) = app
        .control
        .secret_list(&visitor.caller, Some(PAGE), cursor.as_deref())
        .await?;
    html(&SecretsPage {
        frame: visitor.frame("secrets"),
        secrets: secrets
            .into_iter()
            .map(|one| SecretRow {
                name: one.name,
                version: one.version,
                changed: moment(one.updated_at),
            })
            .collect(),
        next,
    })
}

#[derive(Deserialize)]
pub(crate) struct Creation {
    name: String,
    value: String,
}

/// `POST /dashboard/secrets`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let value = Secret::new(creation.value);
    detached(&app, async move {
        let name = creation.name.trim();
        let notes = std::collections::BTreeMap::new();
        control
            .secret_create(&visitor.caller, name, value, notes)
            .await
    })
    .await??;
    back_to(HERE)
}

/// `POST /dashboard/secrets/replace`
pub(crate) async fn replace(
    State(app): State<Arc<App>>,
    Posted(visitor, creation): Posted<Creation>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let value = Secret::new(creation.value);
    detached(&app, async move {
        let caller = &visitor.caller;
        control
            .secret_update(caller, &creation.name, value, None)
            .await
    })
    .await??;
    back_to(HERE)
}

#[derive(Deserialize)]
pub(crate) struct Named {
    name: String,
}

/// `POST /dashboard/secrets/delete`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Posted(visitor, named): Posted<Named>,
) -> Answer {
    let control = Arc::clone(&app.control);
    detached(&app, async move {
        control.secret_delete(&visitor.caller, &named.name).await
    })
    .await??;
    back_to(HERE)
}
