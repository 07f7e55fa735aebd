//! `GET /files`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use warren_service::Tasks;

use super::encoding::{Coding, Compressor, negotiate};
use super::range::{self, Part, Ranges};
use super::{disposition, http_date, mime};
use crate::agent::Agent;
use crate::auth::{self, header};
use crate::filesystem::is_missing;
use crate::paths::{self, base_name};
use crate::query::Query;
use crate::reply::{self, Body, RestError};

/// Bytes per read.
const CHUNK: usize = 256 << 10;
/// Most bytes of a virtual file.
const MAX_VIRTUAL: u64 = 64 << 10;

/// A file that is ready to be sent.
struct Opened {
    file: File,
    size: u64,
    modified: i64,
    /// The first bytes: all of a small file.
    start: Bytes,
}

/// Serves a download whose caller is authorised.
///
/// # Errors
/// As the contract has it.
pub(crate) async fn download(
    agent: &Arc<Agent>,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Response<Body>, RestError> {
    let user = auth::rest_user(agent, query.get("username"))?;
    let given = query.get("path").unwrap_or_default();
    let workdir = agent.default_workdir();
    let path = paths::resolve(given, &user.home, workdir.as_deref()).map_err(|e| {
        RestError::bad_request(format!("error expanding and resolving path '{given}': {e}"))
    })?;
    let at = path.clone();
    let opened = agent
        .tasks
        .spawn_blocking(move || open(&at))
        .await
        .map_err(|e| RestError::internal(format!("error opening file '{path}': {e}")))??;

    let accepted = negotiate(header(headers, ACCEPT_ENCODING.as_str())).ok_or_else(|| {
        RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "error parsing Accept-Encoding: no acceptable encoding found, supported: [gzip]",
        )
    })?;
    let conditional = [RANGE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE]
        .iter()
        .any(|name| headers.contains_key(name));
    if conditional && !accepted.identity {
        return Err(RestError::new(
            StatusCode::NOT_ACCEPTABLE,
            "identity encoding not acceptable for Range or conditional request",
        ));
    }
    let name = base_name(&path);
    let mut response = if accepted.best == Coding::Gzip && !conditional {
        compressed(&agent.tasks, opened, name)
    } else {
        plain(&agent.tasks, headers, opened, name)?
    };
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    set(headers, CONTENT_DISPOSITION, &disposition::inline(name));
    Ok(response)
}

fn open(path: &str) -> Result<Opened, RestError> {
    let failed = |e: io::Error| {
        if is_missing(&e) {
            let message = format!("path '{path}' does not exist");
            RestError::new(StatusCode::NOT_FOUND, message)
        } else {
            RestError::internal(format!("error opening file '{path}': {e}"))
        }
    };
    let meta = fs::metadata(path).map_err(failed)?;
    if meta.is_dir() {
        return Err(RestError::bad_request(format!(
            "path '{path}' is a directory"
        )));
    }
    if !meta.is_file() {
        let message = format!("error opening file '{path}': not a regular file");
        return Err(RestError::internal(message));
    }
    let mut file = File::open(path).map_err(failed)?;
    let limit = match meta.len() {
        0 => MAX_VIRTUAL,
        len => len.min(CHUNK as u64),
    };
    let mut start = Vec::new();
    // Virtual files tell their length only when they are read.
    Read::by_ref(&mut file)
        .take(limit)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let size = match meta.len() {
        0 => start.len() as u64,
        // A file that shrinks while we look at it is as long as what we got.
        len if len <= CHUNK as u64 => start.len() as u64,
        len => len,
    };
    Ok(Opened {
        file,
        size,
        modified: meta.mtime(),
        start: start.into(),
    })
}

fn compressed(tasks: &Tasks, opened: Opened, name: &str) -> Response<Body> {
    let pieces = Pieces::new(tasks, opened, Vec::new()).whole();
    let body = reply::streaming(stream::unfold(
        Some((pieces, Some(Compressor::default()))),
        |state| async {
            let (mut pieces, mut compressor) = state?;
            loop {
                let result = pieces.next_compressed(&mut compressor).await;
                match result {
                    Ok(Some(piece)) if piece.is_empty() => {}
                    Ok(Some(piece)) => return Some((Ok(piece), Some((pieces, compressor)))),
                    Ok(None) => return None,
                    Err(e) => return Some((Err(e), None)),
                }
            }
        },
    ));
    let mut response = reply::with_body(StatusCode::OK, body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let kind = mime::by_extension(name).unwrap_or(mime::OCTET_STREAM);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn plain(
    tasks: &Tasks,
    request: &HeaderMap,
    opened: Opened,
    name: &str,
) -> Result<Response<Body>, RestError> {
    let modified = http_date::format(opened.modified);
    let kind = mime::by_extension(name).unwrap_or_else(|| mime::sniff(&opened.start));
    let size = opened.size;
    if not_modified(request, opened.modified) {
        let mut response = reply::empty(StatusCode::NOT_MODIFIED);
        set(response.headers_mut(), LAST_MODIFIED, &modified);
        return Ok(response);
    }
    let wanted = match header(request, RANGE.as_str()) {
        Some(value) if range_applies(request, opened.modified) => range::parse(value, size),
        _ => Ranges::Whole,
    };
    let mut response = match wanted {
        Ranges::Whole => {
            let body = Pieces::new(tasks, opened, Vec::new()).whole().into_body();
            let mut response = reply::with_body(StatusCode::OK, body);
            set_kind_and_length(&mut response, kind, size);
            response
        }
        Ranges::Unsatisfiable => {
            let status = StatusCode::RANGE_NOT_SATISFIABLE;
            let error = RestError::new(status, "invalid range: failed to overlap");
            let mut response = error.into_response();
            let headers = response.headers_mut();
            set(headers, CONTENT_RANGE, &format!("bytes */{size}"));
            response
        }
        Ranges::Parts(parts) => partial(tasks, opened, &parts, kind),
    };
    let headers = response.headers_mut();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, LAST_MODIFIED, &modified);
    Ok(response)
}

fn set_kind_and_length(response: &mut Response<Body>, kind: &str, length: u64) {
    let headers = response.headers_mut();
    set(headers, CONTENT_TYPE, kind);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
}

fn partial(tasks: &Tasks, opened: Opened, parts: &[Part], kind: &str) -> Response<Body> {
    let size = opened.size;
    let range = |part: &Part| format!("bytes {}-{}/{size}", part.start, part.start + part.len - 1);
    if let [part] = parts {
        let segments = vec![Segment::File(*part)];
        let body = Pieces::new(tasks, opened, segments).into_body();
        let mut response = reply::with_body(StatusCode::PARTIAL_CONTENT, body);
        set_kind_and_length(&mut response, kind, part.len);
        set(response.headers_mut(), CONTENT_RANGE, &range(part));
        return response;
    }
    let boundary = format!("{:032x}", rand::random::<u128>());
    let mut segments = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let lead = if at == 0 { "" } else { "\r\n" };
        let head = format!(
            "{lead}--{boundary}\r\nContent-Range: {}\r\nContent-Type: {kind}\r\n\r\n",
            range(part)
        );
        segments.push(Segment::Bytes(head.into()));
        segments.push(Segment::File(*part));
    }
    segments.push(Segment::Bytes(format!("\r\n--{boundary}--\r\n").into()));
    let length = segments.iter().map(Segment::len).sum();
    let body = Pieces::new(tasks, opened, segments).into_body();
    let mut response = reply::with_body(StatusCode::PARTIAL_CONTENT, body);
    let kind = format!("multipart/byteranges; boundary={boundary}");
    set_kind_and_length(&mut response, &kind, length);
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Values are made of checked parts; one that is none after all is left out.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn not_modified(headers: &HeaderMap, modified: i64) -> bool {
    if let Some(value) = header(headers, IF_NONE_MATCH.as_str()) {
        // We have no entity tags, so only the wildcard can match.
        return value.trim() == "*";
    }
    header(headers, IF_MODIFIED_SINCE.as_str())
        .and_then(http_date::parse)
        .is_some_and(|since| modified <= since)
}

fn range_applies(headers: &HeaderMap, modified: i64) -> bool {
    match header(headers, IF_RANGE.as_str()) {
        None => true,
        Some(value) => http_date::parse(value) == Some(modified),
    }
}

/// A part of an answer.
enum Segment {
    Bytes(Bytes),
    File(Part),
}

impl Segment {
    fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(part) => part.len,
        }
    }
}

/// Delivers the segments of an answer piece by piece.
struct Pieces {
    tasks: Tasks,
    file: Arc<File>,
    start: Bytes,
    size: u64,
    /// Last first.
    segments: Vec<Segment>,
    /// Where pieces are read into. Its memory is used again once a piece was sent: fresh
    /// memory for each would cost as much as the copy.
    buffer: BytesMut,
}

impl Pieces {
    fn new(tasks: &Tasks, opened: Opened, mut segments: Vec<Segment>) -> Self {
        segments.reverse();
        Self {
            tasks: tasks.clone(),
            file: Arc::new(opened.file),
            start: opened.start,
            size: opened.size,
            segments,
            buffer: BytesMut::new(),
        }
    }

    fn whole(mut self) -> Self {
        let (start, len) = (0, self.size);
        if len > 0 {
            self.segments = vec![Segment::File(Part { start, len })];
        }
        self
    }

    fn into_body(mut self) -> Body {
        // Small files are in memory already.
        if let [Segment::File(part)] = self.segments[..]
            && let Some(bytes) = self.in_start(part)
            && bytes.len() as u64 == part.len
        {
            return reply::full(bytes);
        }
        if self.segments.is_empty() {
            return reply::full(Bytes::new());
        }
        self.segments.shrink_to_fit();
        reply::streaming(stream::unfold(Some(self), |pieces| async {
            let mut pieces = pieces?;
            match pieces.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(pieces))),
                Ok(None) => None,
                Err(e) => Some((Err(e), None)),
            }
        }))
    }

    /// The beginning of a part, if it was read when the file was opened.
    fn in_start(&self, part: Part) -> Option<Bytes> {
        let from = usize::try_from(part.start).ok()?;
        if from >= self.start.len() {
            return None;
        }
        let len = usize::try_from(part.len).unwrap_or(usize::MAX);
        let to = from.saturating_add(len).min(self.start.len());
        Some(self.start.slice(from..to))
    }

    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        let part = match self.segments.pop() {
            None => return Ok(None),
            Some(Segment::Bytes(bytes)) => return Ok(Some(bytes)),
            Some(Segment::File(part)) => part,
        };
        let piece = match self.in_start(part) {
            Some(piece) => piece,
            None => {
                let file = Arc::clone(&self.file);
                let mut buffer = std::mem::take(&mut self.buffer);
                let read =
                    move || read_piece(&file, part, &mut buffer).map(|piece| (piece, buffer));
                let (piece, buffer) = self.tasks.spawn_blocking(read).await??;
                self.buffer = buffer;
                piece
            }
        };
        let got = piece.len() as u64;
        if got < part.len {
            let (start, len) = (part.start + got, part.len - got);
            self.segments.push(Segment::File(Part { start, len }));
        }
        Ok(Some(piece))
    }

    /// The next compressed piece, possibly empty. The compressor is gone after the last.
    async fn next_compressed(
        &mut self,
        compressor: &mut Option<Compressor>,
    ) -> io::Result<Option<Bytes>> {
        let Some(mut current) = compressor.take() else {
            return Ok(None);
        };
        let Some(piece) = self.next().await? else {
            return Ok(Some(current.finish()?.into()));
        };
        let last = self.segments.is_empty();
        let work = move || -> io::Result<(Vec<u8>, Option<Compressor>)> {
            let mut out = current.push(&piece)?;
            if last {
                out.extend(current.finish()?);
                return Ok((out, None));
            }
            Ok((out, Some(current)))
        };
        let (out, rest) = self.tasks.spawn_blocking(work).await??;
        *compressor = rest;
        Ok(Some(out.into()))
    }
}

fn read_piece(file: &File, part: Part, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let len = usize::try_from(part.len).unwrap_or(usize::MAX).min(CHUNK);
    buffer.resize(len, 0);
    let got = file.read_at(buffer, part.start)?;
    if got == 0 {
        // The length is promised already: only a cut connection tells the truth.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(buffer.split_to(got).freeze())
}
