//! Volumes.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, State};
use serde::Deserialize;
use warren_types::VolumeId;

use crate::App;
use crate::error::PageError;
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::view::moment;
use crate::visitor::{Frame, Posted, SignedIn};

#[derive(Debug)]
struct VolumeRow {
    id: String,
    name: String,
    created: String,
}

#[derive(Template)]
#[template(path = "volumes.html")]
struct VolumesPage {
    frame: Option<Frame>,
    volumes: Vec<VolumeRow>,
}

/// `GET /dashboard/volumes`
pub(crate) async fn list(State(app): State<Arc<App>>, visitor: SignedIn) -> Answer {
    let volumes = app.control.volume_list(&visitor.caller).await?;
    html(&VolumesPage {
        frame: visitor.frame("volumes"),
        volumes: volumes
            .into_iter()
            .map(|one| VolumeRow {
                id: one.id.to_string(),
                name: one.name,
                created: moment(one.created_at),
            })
            .collect(),
    })
}

#[derive(Deserialize)]
pub(crate) struct Naming {
    name: String,
}

/// `POST /dashboard/volumes`
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Posted(visitor, naming): Posted<Naming>,
) -> Answer {
    let control = Arc::clone(&app.control);
    let name = naming.name.trim().to_owned();
    detached(&app, async move {
        control.volume_create(&visitor.caller, name).await
    })
    .await??;
    back_to("/dashboard/volumes")
}

/// `POST /dashboard/volumes/{id}/delete`
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, Nothing {}): Posted<Nothing>,
) -> Answer {
    let (control, id) = (Arc::clone(&app.control), volume_id(&id)?);
    detached(&app, async move {
        control.volume_delete(&visitor.caller, id).await
    })
    .await??;
    back_to("/dashboard/volumes")
}

pub(crate) fn volume_id(text: &str) -> Result<VolumeId, PageError> {
    text.parse()
        .map_err(|_| PageError::NotFound("volume".to_owned()))
}
