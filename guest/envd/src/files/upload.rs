//! `POST /files`.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Serialize;

use super::disposition::Disposition;
use super::encoding::{Coding, Decompressor, request_coding};
use super::metadata::{self, Metadata};
use super::multipart::{self, Item, Parser};
use super::write::{Target, Writer};
use crate::agent::Agent;
use crate::auth::{self, header};
use crate::paths::{self, base_name};
use crate::query::Query;
use crate::reply::{self, Body, RestError};
use crate::users::User;

/// A body that delivers nothing for this long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(300);
/// Bytes that are still taken from a client whose upload has failed, so that it gets to
/// read the answer.
const DRAIN_LIMIT: usize = 1 << 30;
/// Form field of files.
const FIELD: &str = "file";

/// One written file, as the answer has it.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    name: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    metadata: Metadata,
}

/// Serves an upload whose caller is authorised.
pub(crate) async fn upload(
    agent: &Arc<Agent>,
    request: Request<Incoming>,
    query: &Query,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let mut source = Source::new(body);
    match receive(agent, &parts.headers, &mut source, query).await {
        Ok(written) => reply::json(StatusCode::OK, &written),
        Err(error) => {
            source.drain().await;
            error.into_response()
        }
    }
}

async fn receive(
    agent: &Arc<Agent>,
    headers: &http::HeaderMap,
    source: &mut Source,
    query: &Query,
) -> Result<Vec<Written>, RestError> {
    let undecodable =
        |why: String| RestError::bad_request(format!("error decompressing request body: {why}"));
    let coding = request_coding(header(headers, CONTENT_ENCODING.as_str()))
        .map_err(|name| undecodable(format!("unsupported Content-Encoding: {name}")))?;
    if coding == Coding::Gzip {
        source.decompress().await.map_err(undecodable)?;
    }
    let user = auth::rest_user(agent, query.get("username"))?;
    let metadata = metadata::from_headers(headers)
        .map_err(|e| RestError::bad_request(format!("invalid metadata: {e}")))?;
    let announced = header(headers, CONTENT_LENGTH.as_str()).and_then(|v| v.parse().ok());
    let upload = Upload {
        agent,
        user,
        metadata,
        announced,
        path: query.get("path").filter(|path| !path.is_empty()),
    };

    let content_type = header(headers, CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    if essence == "application/octet-stream" {
        upload.raw(source).await
    } else if essence.starts_with("multipart/") {
        upload.multipart(source, content_type).await
    } else {
        Err(RestError::bad_request(format!(
            "unsupported content type: {content_type}, expected multipart/form-data or application/octet-stream"
        )))
    }
}

struct Upload<'a> {
    agent: &'a Arc<Agent>,
    user: User,
    metadata: Metadata,
    announced: Option<u64>,
    path: Option<&'a str>,
}

impl Upload<'_> {
    async fn raw(&self, source: &mut Source) -> Result<Vec<Written>, RestError> {
        let path = self.path.ok_or_else(|| {
            RestError::bad_request("path query parameter is required for raw body upload")
        })?;
        let path = self.resolve(path)?;
        let mut writer = Writer::new(self.target(&path));
        while let Some(piece) = source.next().await.map_err(reading_error)? {
            writer.write(&self.agent.tasks, piece).await?;
        }
        let metadata = writer.finish(&self.agent.tasks).await?;
        Ok(vec![written(path, metadata)])
    }

    async fn multipart(
        &self,
        source: &mut Source,
        content_type: &str,
    ) -> Result<Vec<Written>, RestError> {
        let parsing = |e: multipart::MultipartError| {
            RestError::internal(format!("error parsing multipart form: {e}"))
        };
        let boundary = multipart::boundary(content_type).map_err(parsing)?;
        let mut parser = Parser::new(&boundary);
        let mut done = Vec::new();
        let mut paths = HashSet::new();
        let mut current: Option<(String, Writer)> = None;
        loop {
            let item = match parser.next_item().map_err(parsing)? {
                Some(item) => item,
                None => match source.next().await.map_err(reading_error)? {
                    Some(piece) => {
                        parser.push(&piece);
                        continue;
                    }
                    None => return Err(parsing(multipart::MultipartError::Truncated)),
                },
            };
            match item {
                Item::Part(part) if part.name.as_deref() == Some(FIELD) => {
                    let path = self.part_path(part)?;
                    if !paths.insert(path.clone()) {
                        return Err(RestError::bad_request(format!(
                            "you cannot upload multiple files to the same path '{path}' in one upload request, only the first specified file was uploaded"
                        )));
                    }
                    let writer = Writer::new(self.target(&path));
                    current = Some((path, writer));
                }
                Item::Part(_) => {}
                Item::Data(piece) => {
                    if let Some((_, writer)) = &mut current {
                        writer.write(&self.agent.tasks, piece).await?;
                    }
                }
                Item::PartEnd => {
                    if let Some((path, writer)) = current.take() {
                        let metadata = writer.finish(&self.agent.tasks).await?;
                        done.push(written(path, metadata));
                    }
                }
                Item::End => break,
            }
        }
        // What follows the last part is read so that the connection can be used again.
        while source.next().await.map_err(reading_error)?.is_some() {}
        Ok(done)
    }

    fn part_path(&self, part: Disposition) -> Result<String, RestError> {
        match (self.path, part.filename) {
            (Some(path), _) => self.resolve(path),
            (None, Some(name)) if !name.is_empty() => self.resolve(&name),
            (None, _) => Err(RestError::bad_request(
                "error getting multipart custom part file name: filename not found in Content-Disposition header",
            )),
        }
    }

    fn resolve(&self, path: &str) -> Result<String, RestError> {
        let workdir = self.agent.default_workdir();
        paths::resolve(path, &self.user.home, workdir.as_deref())
            .map_err(|e| RestError::bad_request(format!("error resolving path: {e}")))
    }

    fn target(&self, path: &str) -> Target {
        Target {
            path: path.to_owned(),
            user: self.user.clone(),
            metadata: self.metadata.clone(),
            announced: self.announced,
        }
    }
}

fn written(path: String, metadata: Metadata) -> Written {
    Written {
        name: base_name(&path).to_owned(),
        path,
        r#type: "file",
        metadata,
    }
}

fn reading_error(why: String) -> RestError {
    RestError::internal(format!("error reading form: {why}"))
}

/// The content of a request, decompressed.
struct Source {
    body: Incoming,
    gzip: Option<Gzip>,
    ended: bool,
}

struct Gzip {
    decompressor: Decompressor,
    compressed: VecDeque<Bytes>,
    finished: bool,
}

impl Source {
    fn new(body: Incoming) -> Self {
        Self {
            body,
            gzip: None,
            ended: false,
        }
    }

    /// Takes the body for gzip from now on, after a look at its first bytes.
    async fn decompress(&mut self) -> Result<(), String> {
        const MAGIC: &[u8] = b"\x1f\x8b\x08";
        let mut start = BytesMut::new();
        while start.len() < MAGIC.len() {
            match self.next_raw().await? {
                Some(piece) => start.extend_from_slice(&piece),
                None => return Err("unexpected EOF".to_owned()),
            }
        }
        if !start.starts_with(MAGIC) {
            return Err("gzip: invalid header".to_owned());
        }
        self.gzip = Some(Gzip {
            decompressor: Decompressor::default(),
            compressed: VecDeque::from([start.freeze()]),
            finished: false,
        });
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, String> {
        if self.gzip.is_none() {
            return self.next_raw().await;
        }
        loop {
            let Some(gzip) = self.gzip.as_mut() else {
                return Ok(None);
            };
            if gzip.finished {
                return Ok(None);
            }
            let piece = match gzip.compressed.front_mut() {
                Some(front) if front.has_remaining() => {
                    let take = front.len().min(Decompressor::MAX_PIECE);
                    let piece = front.split_to(take);
                    gzip.decompressor.push(&piece)
                }
                Some(_) => {
                    gzip.compressed.pop_front();
                    continue;
                }
                None => {
                    if let Some(more) = self.next_raw().await? {
                        if let Some(gzip) = self.gzip.as_mut() {
                            gzip.compressed.push_back(more);
                        }
                        continue;
                    }
                    let Some(gzip) = self.gzip.as_mut() else {
                        return Ok(None);
                    };
                    gzip.finished = true;
                    gzip.decompressor.finish()
                }
            };
            let piece = piece.map_err(|e| format!("gzip: {e}"))?;
            if !piece.is_empty() {
                return Ok(Some(piece.into()));
            }
        }
    }

    async fn next_raw(&mut self) -> Result<Option<Bytes>, String> {
        while !self.ended {
            let frame = tokio::time::timeout(STALL_LIMIT, self.body.frame())
                .await
                .map_err(|_| "the upload stalled".to_owned())?;
            match frame {
                None => self.ended = true,
                Some(Err(e)) => {
                    self.ended = true;
                    return Err(e.to_string());
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Takes what the client still sends.
    async fn drain(&mut self) {
        let mut taken = 0;
        while taken < DRAIN_LIMIT {
            match self.next_raw().await {
                Ok(Some(piece)) => taken += piece.len(),
                Ok(None) | Err(_) => return,
            }
        }
    }
}
