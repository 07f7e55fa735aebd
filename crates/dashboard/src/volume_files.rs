//! What is in volumes: browsed, shown, fetched, stored and removed.

use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_control::{
    Caller, Content, Entry, EntryKind, NewNode, Owner, VolumeError, VolumePath, VolumeRecord,
};

use crate::App;
use crate::error::{PageError, refused};
use crate::pages::{Answer, back_to, html};
use crate::view::{moment, size};
use crate::visitor::{Frame, Posted, Sent, SignedIn};
use crate::volumes::volume_id;

/// Entries of a directory that a page shows.
const MOST_ENTRIES: usize = 1000;
/// Longest part of a file that a page shows.
const PREVIEW: u64 = 64 << 10;
/// Longest time that an upload may stand still.
const IDLE: Duration = Duration::from_secs(60);
/// Whom new files belong to: the user of sandboxes.
const OWNER: Owner = Owner {
    uid: Some(1000),
    gid: Some(1000),
    mode: None,
};

/// A volume of the caller's team, open.
async fn open(app: &App, caller: &Caller, id: &str) -> Result<(VolumeRecord, Content), PageError> {
    if caller.is_read_only() {
        return Err(PageError::Forbidden(
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

/// The page of a directory.
fn page_of(id: &str, path: &str) -> String {
    // A path is text, so writing it as a query can't fail.
    let query = serde_urlencoded::to_string([("path", path)]).unwrap_or_default();
    format!("/dashboard/volumes/{id}?{query}")
}

#[derive(Template)]
#[template(path = "volume.html")]
struct VolumePage {
    frame: Option<Frame>,
    id: String,
    name: String,
    path: String,
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
        path: if whole.is_empty() { root() } else { whole },
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

/// `POST /dashboard/volumes/{id}/upload?path=`: the body is the file. It is there once it
/// is whole, in place of what had its name.
pub(crate) async fn upload(
    State(app): State<Arc<App>>,
    Sent(visitor): Sent,
    Path(id): Path<String>,
    Query(place): Query<Place>,
    request: Request,
) -> Answer {
    let (_, content) = open(&app, &visitor.caller, &id).await?;
    let at = VolumePath::parse(&place.path).map_err(told)?;
    let begin = move || {
        let new = NewNode {
            owner: OWNER,
            force: true,
        };
        let draft = content.write(&at, new)?;
        let file = draft.file()?;
        Ok((draft, file))
    };
    let (draft, file) = app.control.on_content(begin).await.map_err(told)?;
    let mut file = app.control.content_file(file);
    let mut body: Body = request.into_body();
    loop {
        let frame = tokio::time::timeout(IDLE, body.frame()).await;
        let frame = frame
            .map_err(|_| PageError::Refused("the upload does not go on".to_owned()))?
            .transpose()
            .map_err(|_| PageError::Refused("the upload was cut".to_owned()))?;
        let Some(frame) = frame else { break };
        if let Ok(bytes) = frame.into_data() {
            file.write_all(&bytes).await.map_err(unwritten)?;
        }
    }
    file.flush().await.map_err(unwritten)?;
    let published = app.control.on_content(move || draft.publish()).await;
    published.map_err(told)?;
    Ok(StatusCode::CREATED.into_response())
}

fn unwritten(error: std::io::Error) -> PageError {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => told(VolumeError::Full),
        K::FileTooLarge => PageError::Refused("the file is too large".to_owned()),
        _ => PageError::Internal(Box::new(error)),
    }
}

#[derive(Deserialize)]
pub(crate) struct Folder {
    /// The directory that it is made in.
    path: String,
    name: String,
}

/// `POST /dashboard/volumes/{id}/folder`
pub(crate) async fn make_folder(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, folder): Posted<Folder>,
) -> Answer {
    let (_, content) = open(&app, &visitor.caller, &id).await?;
    let name = folder.name.trim();
    if name.is_empty() || name.contains('/') {
        return Err(PageError::Refused(
            "a folder's name has no slash".to_owned(),
        ));
    }
    let at = VolumePath::parse(&format!("{}/{name}", folder.path)).map_err(told)?;
    let new = NewNode {
        owner: OWNER,
        force: false,
    };
    let made = app
        .control
        .on_content(move || content.make_directory(&at, new));
    made.await.map_err(told)?;
    back_to(&page_of(&id, &folder.path))
}

#[derive(Deserialize)]
pub(crate) struct Removal {
    path: String,
}

/// `POST /dashboard/volumes/{id}/remove`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Posted(visitor, removal): Posted<Removal>,
) -> Answer {
    let (_, content) = open(&app, &visitor.caller, &id).await?;
    let at = VolumePath::parse(&removal.path).map_err(told)?;
    let removed = app.control.on_content(move || content.remove(&at));
    removed.await.map_err(told)?;
    let parent = removal.path.trim_end_matches('/').rsplit_once('/');
    let parent = parent.map_or("", |(parent, _)| parent);
    back_to(&page_of(&id, if parent.is_empty() { "/" } else { parent }))
}
