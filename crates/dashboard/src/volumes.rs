//! Volumes and what is in them.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use warren_control::{Caller, Content, Entry, EntryKind, VolumeError, VolumePath, VolumeRecord};
use warren_types::VolumeId;

use crate::App;
use crate::error::{PageError, refused};
use crate::pages::{Answer, Nothing, back_to, detached, html};
use crate::session::{Frame, Posted, SignedIn};
use crate::view::{moment, size};

/// Entries of a directory that a page shows.
const MOST_ENTRIES: usize = 1000;
/// Longest part of a file that a page shows.
const PREVIEW: u64 = 64 << 10;

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

fn volume_id(text: &str) -> Result<VolumeId, PageError> {
    text.parse()
        .map_err(|_| PageError::NotFound("volume".to_owned()))
}

/// A volume of the caller's team, open.
async fn open(app: &App, caller: &Caller, id: &str) -> Result<(VolumeRecord, Content), PageError> {
    if caller.is_read_only() {
        return Err(PageError::Refused(
            "what is in volumes is not told to those who only read".to_owned(),
        ));
    }
    let view = app.control.volume_get(caller, volume_id(id)?).await?;
    let content = app
        .control
        .volume_content(id, view.token.expose())
        .await
        .map_err(refused)?;
    Ok((view.record, content))
}

fn told(error: VolumeError) -> PageError {
    match error {
        VolumeError::Host { .. } => refused(error),
        other => PageError::Refused(other.to_string()),
    }
}

#[derive(Debug)]
struct EntryRow {
    name: String,
    path: String,
    is_directory: bool,
    is_file: bool,
    size: String,
    mode: String,
    modified: String,
}

impl EntryRow {
    fn new(entry: &Entry) -> Self {
        let is_directory = entry.kind == EntryKind::Directory;
        Self {
            name: entry.name.clone(),
            path: entry.path.clone(),
            is_directory,
            is_file: entry.kind == EntryKind::File,
            size: if is_directory {
                String::new()
            } else {
                size(entry.size)
            },
            mode: format!("{:o}", entry.mode & 0o7777),
            modified: moment(entry.mtime),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Place {
    #[serde(default = "root")]
    path: String,
}

fn root() -> String {
    "/".to_owned()
}

#[derive(Template)]
#[template(path = "volume.html")]
struct VolumePage {
    frame: Option<Frame>,
    id: String,
    name: String,
    /// Names and paths from the root to here.
    crumbs: Vec<(String, String)>,
    entries: Vec<EntryRow>,
    is_cut: bool,
}

/// `GET /dashboard/volumes/{id}`
pub(crate) async fn browse(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(place): Query<Place>,
) -> Answer {
    let (record, content) = open(&app, &visitor.caller, &id).await?;
    let at = VolumePath::parse(&place.path).map_err(told)?;
    let mut crumbs = vec![(record.name.clone(), "/".to_owned())];
    let mut whole = String::new();
    for part in at.parts() {
        whole.push('/');
        whole.push_str(part);
        crumbs.push((part.clone(), whole.clone()));
    }
    let listed = app.control.on_content(move || content.list(&at, 1)).await;
    let mut entries = listed.map_err(told)?;
    let is_cut = entries.len() > MOST_ENTRIES;
    entries.sort_by(|a, b| {
        let is_file = |entry: &Entry| entry.kind != EntryKind::Directory;
        (is_file(a), &a.name).cmp(&(is_file(b), &b.name))
    });
    entries.truncate(MOST_ENTRIES);
    html(&VolumePage {
        frame: visitor.frame("volumes"),
        id,
        name: record.name,
        crumbs,
        entries: entries.iter().map(EntryRow::new).collect(),
        is_cut,
    })
}

#[derive(Template)]
#[template(path = "volume-file.html")]
struct FilePage {
    frame: Option<Frame>,
    id: String,
    volume: String,
    path: String,
    size: String,
    text: String,
    is_cut: bool,
}

/// `GET /dashboard/volumes/{id}/file`
pub(crate) async fn preview(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(place): Query<Place>,
) -> Answer {
    let (record, content) = open(&app, &visitor.caller, &id).await?;
    let at = VolumePath::parse(&place.path).map_err(told)?;
    let (file, length) = app
        .control
        .on_content(move || content.read(&at))
        .await
        .map_err(told)?;
    let mut bytes = Vec::new();
    app.control
        .content_file(file)
        .take(PREVIEW)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| PageError::Internal(Box::new(error)))?;
    html(&FilePage {
        frame: visitor.frame("volumes"),
        id,
        volume: record.name,
        path: place.path,
        size: size(length),
        text: String::from_utf8_lossy(&bytes).into_owned(),
        is_cut: length > PREVIEW,
    })
}

/// `GET /dashboard/volumes/{id}/download`. Sent as something to store, whatever it is.
pub(crate) async fn download(
    State(app): State<Arc<App>>,
    visitor: SignedIn,
    Path(id): Path<String>,
    Query(place): Query<Place>,
) -> Result<Response, PageError> {
    let (_, content) = open(&app, &visitor.caller, &id).await?;
    let at = VolumePath::parse(&place.path).map_err(told)?;
    let (pieces, length) = app
        .control
        .content_stream(content, at)
        .await
        .map_err(told)?;
    let body = Body::from_stream(pieces);
    let headers = [
        (
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
        (CONTENT_LENGTH, HeaderValue::from(length)),
    ];
    Ok((StatusCode::OK, headers, body).into_response())
}
