//! The content of volumes, for whoever shows the volume's token. Files stream both ways with
//! constant memory.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use warren_control::{
    Content, Entry, EntryKind, NewNode, Owner, VolumeError, VolumePath, VolumeTokenError,
};
use warren_service::Chain;
use warren_wire as wire;

use crate::auth;
use crate::extract::{Json, Query, json, no_content};
use crate::router::App;
use crate::trail::Told;

/// A client that sends nothing for as long has gone.
const IDLE: Duration = Duration::from_secs(60);
/// What is read of a body that is refused, and for how long.
const SHORT: usize = 256 * 1024;
const SHORT_LIMIT: Duration = Duration::from_secs(1);

/// An answer that is no success; its code is a word here.
#[derive(Debug)]
pub(crate) struct Refusal(StatusCode, String);

type Answer = Result<Response, Refusal>;

impl Refusal {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = %Chain(error), "a request for a volume failed");
        Self(
            StatusCode::INTERNAL_SERVER_ERROR,
            crate::error::INTERNAL.to_owned(),
        )
    }

    pub(crate) fn unauthorized() -> Self {
        Self(StatusCode::UNAUTHORIZED, "Unauthorized".to_owned())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = self.0.canonical_reason().unwrap_or("Error");
        let body = wire::VolumeContentErrorBody {
            code: code.to_lowercase().replace(' ', "_"),
            message: self.1,
        };
        let mut response = json(self.0, &body);
        response.extensions_mut().insert(Told(body.message));
        response
    }
}

impl From<VolumeError> for Refusal {
    fn from(error: VolumeError) -> Self {
        use VolumeError as E;
        let status = match &error {
            E::Host { .. } => return Self::internal(&error),
            E::Bucket(_) | E::Elsewhere(_) => crate::volumes::unavailable(&error),
            E::NoVolume | E::NoPath => StatusCode::NOT_FOUND,
            E::Exists | E::IsDirectory | E::NotDirectory => StatusCode::CONFLICT,
            E::Invalid(_) | E::TooMany(_) => StatusCode::BAD_REQUEST,
            E::Full => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self(status, error.to_string())
    }
}

impl From<VolumeTokenError> for Refusal {
    fn from(error: VolumeTokenError) -> Self {
        match &error {
            VolumeTokenError::Refused => Self::unauthorized(),
            VolumeTokenError::Host(
                cause @ (VolumeError::Bucket(_) | VolumeError::Elsewhere(_)),
            ) => Self(crate::volumes::unavailable(cause), cause.to_string()),
            _ => Self::internal(&error),
        }
    }
}

/// The volume whose token the request shows.
#[derive(Debug)]
pub(crate) struct Opened(Content);

impl FromRequestParts<Arc<App>> for Opened {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, app).await;
        let params = params.map_err(|_| Refusal::unauthorized())?;
        let id = params.iter().next().map(|(_, id)| id).unwrap_or_default();
        let token = auth::bearer(&parts.headers).ok().flatten();
        let token = token.ok_or_else(Refusal::unauthorized)?;
        Ok(Self(app.control.volume_content(id, token).await?))
    }
}

/// The path in the query.
#[derive(Debug)]
pub(crate) struct At(VolumePath);

impl FromRequestParts<Arc<App>> for At {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        let Ok(query) = Query::from_request_parts(parts, app).await;
        let text = query.filled("path");
        let text = text.ok_or_else(|| Refusal::bad("missing parameter path"))?;
        Ok(Self(VolumePath::parse(text)?))
    }
}

fn number(query: &Query, name: &str) -> Result<Option<u32>, Refusal> {
    let text = query.filled(name);
    text.map(str::parse)
        .transpose()
        .map_err(|_| Refusal::bad(format!("{name} must be a number that is not negative")))
}

fn new_node(query: &Query) -> Result<NewNode, Refusal> {
    let force = match query.filled("force") {
        None => false,
        Some(text) if text.eq_ignore_ascii_case("true") || text == "1" => true,
        Some(text) if text.eq_ignore_ascii_case("false") || text == "0" => false,
        Some(_) => return Err(Refusal::bad("force must be true or false")),
    };
    let owner = Owner {
        uid: number(query, "uid")?,
        gid: number(query, "gid")?,
        mode: number(query, "mode")?,
    };
    Ok(NewNode { owner, force })
}

fn stat(entry: Entry) -> wire::VolumeEntryStat {
    wire::VolumeEntryStat {
        name: entry.name,
        kind: match entry.kind {
            EntryKind::File => wire::VolumeEntryType::File,
            EntryKind::Directory => wire::VolumeEntryType::Directory,
            EntryKind::Symlink => wire::VolumeEntryType::Symlink,
            EntryKind::Other => wire::VolumeEntryType::Unknown,
        },
        path: entry.path,
        size: entry.size,
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        atime: entry.atime,
        mtime: entry.mtime,
        ctime: entry.ctime,
        target: entry.target,
    }
}

fn shown(status: StatusCode, entry: Entry) -> Response {
    json(status, &stat(entry))
}

/// `GET /volumecontent/{volumeID}/path`
pub(crate) async fn path(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
) -> Answer {
    let entry = app.control.on_content(move || content.stat(&at)).await?;
    Ok(shown(StatusCode::OK, entry))
}

/// `PATCH /volumecontent/{volumeID}/path`
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
    body: Result<Json<wire::VolumeEntryChange>, crate::error::ApiError>,
) -> Answer {
    let Json(body) = body.map_err(|error| Refusal::bad(error.message().to_owned()))?;
    let owner = Owner {
        uid: body.uid,
        gid: body.gid,
        mode: body.mode,
    };
    let work = move || content.set_owner(&at, owner);
    let entry = app.control.on_content(work).await?;
    Ok(shown(StatusCode::OK, entry))
}

/// `DELETE /volumecontent/{volumeID}/path`
pub(crate) async fn remove(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
) -> Answer {
    app.control.on_content(move || content.remove(&at)).await?;
    Ok(no_content())
}

/// `GET /volumecontent/{volumeID}/dir`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
    query: Query,
) -> Answer {
    let depth = number(&query, "depth")?.unwrap_or(1);
    if depth == 0 {
        return Err(Refusal::bad("depth must be at least 1"));
    }
    let work = move || content.list(&at, depth);
    let entries = app.control.on_content(work).await?;
    let entries: Vec<_> = entries.into_iter().map(stat).collect();
    Ok(json(StatusCode::OK, &entries))
}

/// `POST /volumecontent/{volumeID}/dir`
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
    query: Query,
) -> Answer {
    let new = new_node(&query)?;
    let work = move || content.make_directory(&at, new);
    let entry = app.control.on_content(work).await?;
    Ok(shown(StatusCode::CREATED, entry))
}

/// `GET /volumecontent/{volumeID}/file`
pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
) -> Answer {
    let (pieces, size) = app.control.content_stream(content, at).await?;
    let mut response = Response::new(Body::from_stream(pieces));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    Ok(response)
}

/// `PUT /volumecontent/{volumeID}/file`
pub(crate) async fn write(
    State(app): State<Arc<App>>,
    Opened(content): Opened,
    At(at): At,
    query: Query,
    request: Request,
) -> Answer {
    let new = new_node(&query)?;
    let begin = move || {
        let draft = content.write(&at, new)?;
        let file = draft.file()?;
        Ok((draft, file))
    };
    let begun = app.control.on_content(begin).await;
    let announced = length(request.headers());
    let mut body: Body = request.into_body();
    let (draft, file) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            finish_short(&mut body).await;
            return Err(error.into());
        }
    };
    let mut file = app.control.content_file(file);
    let mut received = 0u64;
    loop {
        let frame = tokio::time::timeout(IDLE, body.frame()).await;
        let frame = frame.map_err(|_| {
            let text = "the upload does not go on";
            Refusal(StatusCode::REQUEST_TIMEOUT, text.to_owned())
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            tracing::debug!(%error, "an upload to a volume was cut");
            Refusal::bad("the upload was cut")
        })?;
        if let Ok(bytes) = frame.into_data() {
            received = received.saturating_add(bytes.len() as u64);
            file.write_all(&bytes)
                .await
                .map_err(|error| unwritten(&error))?;
        }
    }
    file.flush().await.map_err(|error| unwritten(&error))?;
    if announced.is_some_and(|length| length != received) {
        return Err(Refusal::bad("the upload was cut"));
    }
    let entry = app.control.on_content(move || draft.publish()).await?;
    Ok(shown(StatusCode::CREATED, entry))
}

/// Reads the rest of a short body: the connection of a request that is answered before can't
/// be used again, which a client finds out with its next request.
async fn finish_short(body: &mut Body) {
    let read = async {
        let mut left = SHORT;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, bytes::Bytes::len);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // One that does not come in time is long enough.
    let _late = tokio::time::timeout(SHORT_LIMIT, read).await;
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

fn unwritten(error: &std::io::Error) -> Refusal {
    use std::io::ErrorKind as K;
    match error.kind() {
        K::StorageFull | K::QuotaExceeded => VolumeError::Full.into(),
        K::FileTooLarge => Refusal(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        _ => Refusal::internal(error),
    }
}
