//! Public keys that open the team's sandboxes by SSH.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use warren_control::{SshKeyError, SshKeyRecord};

use crate::App;
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::view::minute;
use crate::visitor::{Frame, Posted, SignedIn};

const HERE: &str = "/dashboard/ssh-keys";

#[derive(Debug)]
struct KeyRow {
    id: String,
    name: String,
    kind: String,
    fingerprint: String,
    added: String,
    used: String,
}

impl KeyRow {
    fn new(key: SshKeyRecord) -> Self {
        let kind = key.public_key.split(' ').next().unwrap_or_default();
        Self {
            id: key.id.to_string(),
            kind: kind.to_owned(),
            name: key.name,
            fingerprint: key.fingerprint,
            added: minute(key.created_at),
            used: key.last_used_at.map_or_else(|| "never".to_owned(), minute),
        }
    }
}

#[derive(Template)]
#[template(path = "ssh-keys.html")]
struct SshKeysPage {
    frame: Option<Frame>,
    keys: Vec<KeyRow>,
}

/// `GET /dashboard/ssh-keys`
pub(crate) async fn list(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    let keys = app.control.ssh_key_list(&visitor.caller).await?;
    html(&SshKeysPage {
        frame: visitor.frame("team"),
        keys: keys.into_iter().map(KeyRow::new).collect(),
    })
}

#[derive(Deserialize)]
pub(crate) struct Addition {
    key: String,
    /// The key's comment if empty.
    #[serde(default)]
    name: String,
}

/// `POST /dashboard/ssh-keys`
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    Posted(visitor, addition): Posted<Addition>,
) -> Answer {
    let control = Arc::clone(&app.control);
    detached(&app, async move {
        let name = Some(addition.name.trim()).filter(|name| !name.is_empty());
        control
            .ssh_key_add(&visitor.caller, &addition.key, name)
            .await
    })
    .await??;
    back_to(HERE)
}

/// `POST /dashboard/ssh-keys/{id}/delete`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let id = id.parse().map_err(|_| SshKeyError::NotFound)?;
    detached(&app, async move {
        control.ssh_key_remove(&visitor.caller, id).await
    })
    .await??;
    back_to(HERE)
}
