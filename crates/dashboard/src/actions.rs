//! What is done to a sandbox by hand.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use warren_control::Resume;

use crate::App;
use crate::error::{PageError, refused};
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::sandbox::sandbox_id;
use crate::visitor::{Frame, Posted};

/// Life of a sandbox that is resumed or copied here, in seconds.
const LIFE_S: i64 = 300;
/// Longest extension by a button, in seconds.
const MAX_EXTENSION: u64 = 24 * 3600;

fn page_of(id: &str) -> String {
    format!("/dashboard/sandboxes/{id}")
}

pub(crate) async fn kill(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, id) = (Arc::clone(&app.control), sandbox_id(&id)?);
    detached(
        &app,
        async move { control.kill(&visitor.caller, &id).await },
    )
    .await??;
    back_to("/dashboard")
}

#[derive(Deserialize)]
pub(crate) struct Extension {
    seconds: u64,
}

pub(crate) async fn extend(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, extension): Posted<Extension>,
) -> Answer {
    if extension.seconds > MAX_EXTENSION {
        return Err(PageError::Refused("that is too long".to_owned()));
    }
    let (control, sandbox) = (Arc::clone(&app.control), sandbox_id(&id)?);
    detached(&app, async move {
        control
            .set_timeout(&visitor.caller, &sandbox, extension.seconds)
            .await
    })
    .await??;
    back_to(&page_of(&id))
}

#[derive(Deserialize)]
pub(crate) struct Pausing {
    /// Only the files are kept.
    files_only: Option<String>,
}

pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, pausing): Posted<Pausing>,
) -> Answer {
    let (control, sandbox) = (Arc::clone(&app.control), sandbox_id(&id)?);
    let memory = pausing.files_only.is_none();
    detached(&app, async move {
        control
            .pause(&visitor.caller, &sandbox, memory, false)
            .await
    })
    .await??;
    back_to(&page_of(&id))
}

pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, sandbox) = (Arc::clone(&app.control), sandbox_id(&id)?);
    let request = Resume {
        timeout_s: LIFE_S,
        memory: true,
        auto_pause: None,
    };
    detached(&app, async move {
        control
            .connect(&visitor.caller, &sandbox, request, false)
            .await
    })
    .await??;
    back_to(&page_of(&id))
}

#[derive(Deserialize)]
pub(crate) struct Naming {
    #[serde(default)]
    name: String,
}

#[derive(Template)]
#[template(path = "made.html")]
struct MadePage {
    frame: Option<Frame>,
    sandbox: String,
    snapshot: String,
    names: Vec<String>,
}

pub(crate) async fn snapshot(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, naming): Posted<Naming>,
) -> Answer {
    let (control, sandbox) = (Arc::clone(&app.control), sandbox_id(&id)?);
    let caller = Arc::clone(&visitor.caller);
    let made = detached(&app, async move {
        let name = Some(naming.name.trim()).filter(|name| !name.is_empty());
        control.snapshot(&caller, &sandbox, name, true).await
    })
    .await??;
    html(&MadePage {
        frame: visitor.frame("sandboxes"),
        sandbox: id,
        snapshot: made.id,
        names: made.names,
    })
}

pub(crate) async fn fork(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, sandbox) = (Arc::clone(&app.control), sandbox_id(&id)?);
    let copies = detached(&app, async move {
        control.fork(&visitor.caller, &sandbox, 1, LIFE_S).await
    })
    .await??;
    let copy = copies.into_iter().next();
    let copy = copy.ok_or_else(|| PageError::Refused("no copy was made".to_owned()))?;
    let copy = copy.map_err(refused)?;
    back_to(&page_of(copy.record.id.as_str()))
}
