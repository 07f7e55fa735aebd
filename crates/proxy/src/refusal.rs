//! Everything the proxy answers by itself: statuses, texts and their three forms.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use warren_types::SandboxId;

use crate::body::ProxyBody;
use crate::html::{Page, render};
use crate::target::TargetError;

const NOT_FOUND: &str = "The sandbox was not found";
const PORT_CLOSED: &str = "The sandbox is running but port is not open";
const RESERVED: &str = "This endpoint is reserved for the E2B control plane and is not reachable \
                        through the sandbox URL";
const TOKEN_MISSING: &str = "Sandbox is secured with traffic access token. Token header \
                             'e2b-traffic-access-token' is missing";
const TOKEN_INVALID: &str = "Sandbox is secured with traffic access token. Provided token in \
                             header 'e2b-traffic-access-token' is invalid";
const RESUME_DENIED: &str = "This sandbox can't be resumed with the credentials provided. Check \
                             your access token and try again.";
const TRANSITIONING: &str = "The sandbox is still transitioning. Try again in a moment.";
const LIMIT_REACHED: &str = "Sandbox limit reached";
const UNROUTABLE: &str = "Failed to route request to sandbox";

/// Why a request does not reach a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(TargetError),
    Method,
    Reserved {
        path: &'static str,
    },
    NotFound {
        id: SandboxId,
    },
    Ended {
        id: SandboxId,
        why: String,
    },
    PortClosed {
        id: SandboxId,
        port: u16,
        host: String,
    },
    TokenMissing {
        id: SandboxId,
    },
    TokenInvalid {
        id: SandboxId,
    },
    ResumeDenied {
        id: SandboxId,
    },
    Transitioning {
        id: SandboxId,
    },
    LimitReached {
        id: SandboxId,
        message: String,
    },
    TooManyConnections {
        id: SandboxId,
        limit: u32,
    },
    Unroutable,
    Unexpected {
        what: &'static str,
    },
}

/// Which form of an answer the asker can read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Html,
}

/// Who asks, as far as the form of a refusal depends on it.
#[derive(Debug)]
pub(crate) struct Asker {
    form: Form,
    head: bool,
    preflight: Option<Preflight>,
}

/// What a browser asks before a cross-origin request.
#[derive(Debug)]
struct Preflight {
    method: HeaderValue,
    headers: Option<HeaderValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox_id: Option<&'a str>,
    message: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    code: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_limit: Option<u32>,
}

/// A refusal that exists as JSON and as a page.
struct Explained<'a> {
    status: StatusCode,
    json: Json<'a>,
    title: &'a str,
    facts: Vec<(&'a str, String)>,
}

impl Refusal {
    /// The answer. A CORS preflight gets 204 so that the browser goes on to ask, and the
    /// page's script can read the refusal itself.
    pub(crate) fn respond(&self, asker: &Asker) -> Response<ProxyBody> {
        let mut response = match &asker.preflight {
            Some(preflight) => preflight.respond(),
            None => self.answer(asker.form),
        };
        let any = HeaderValue::from_static("*");
        response
            .headers_mut()
            .insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
        if matches!(self, Self::TooManyConnections { .. }) {
            // Requests end all the time.
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, soon);
        }
        if asker.head {
            // HTTP/2 would send the body that HTTP/1.1 leaves out by itself.
            *response.body_mut() = ProxyBody::empty();
        }
        response
    }

    fn answer(&self, form: Form) -> Response<ProxyBody> {
        let Some(explained) = self.explain() else {
            return self.plain();
        };
        let status = explained.status;
        match form {
            Form::Json => {
                let body = serde_json::to_vec(&explained.json).expect("texts and numbers encode");
                build(status, "application/json; charset=utf-8", body)
            }
            Form::Html => {
                let facts: Vec<(&str, &str)> = explained
                    .facts
                    .iter()
                    .map(|(label, value)| (*label, value.as_str()))
                    .collect();
                let page = Page {
                    title: explained.title,
                    text: &explained.json.message,
                    facts: &facts,
                };
                build(
                    status,
                    "text/html; charset=utf-8",
                    render(&page).into_bytes(),
                )
            }
        }
    }

    /// The answers that exist as text only.
    fn plain(&self) -> Response<ProxyBody> {
        let (status, text) = match self {
            Self::Malformed(error) => (StatusCode::BAD_REQUEST, error.to_string()),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed".to_owned(),
            ),
            Self::Unexpected { what } => (
                StatusCode::INTERNAL_SERVER_ERROR,
                format!("Unexpected error when routing request: {what}"),
            ),
            _ => (StatusCode::BAD_GATEWAY, UNROUTABLE.to_owned()),
        };
        let mut response = build(
            status,
            "text/plain; charset=utf-8",
            (text + "\n").into_bytes(),
        );
        let nosniff = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
        response
    }

    fn explain(&self) -> Option<Explained<'_>> {
        let (status, title, message) = self.words()?;
        let mut json = Json {
            sandbox_id: None,
            message,
            path: None,
            port: None,
            code: status.as_u16(),
            connection_limit: None,
        };
        let mut facts = Vec::new();
        if let Some(id) = self.sandbox_id() {
            json.sandbox_id = Some(id.as_str());
            facts.push(("Sandbox", id.to_string()));
        }
        match self {
            Self::Reserved { path } => {
                json.path = Some(path);
                facts.push(("Path", (*path).to_owned()));
            }
            Self::PortClosed { port, host, .. } => {
                json.port = Some(*port);
                facts.push(("Status", format!("no service running on port {port}")));
                facts.push(("Requested host", host.clone()));
            }
            Self::TokenMissing { .. } | Self::TokenInvalid { .. } => {
                facts.push(("Header", "e2b-traffic-access-token".to_owned()));
            }
            Self::TooManyConnections { limit, .. } => json.connection_limit = Some(*limit),
            _ => {}
        }
        Some(Explained {
            status,
            json,
            title,
            facts,
        })
    }

    /// Status, page title and message of the refusals that have all three.
    fn words(&self) -> Option<(StatusCode, &'static str, Cow<'_, str>)> {
        use StatusCode as S;
        let (status, title, message) = match self {
            Self::Reserved { .. } => (S::NOT_FOUND, "Endpoint Not Available", RESERVED),
            Self::NotFound { .. } => (S::BAD_GATEWAY, "Sandbox Not Found", NOT_FOUND),
            Self::Ended { why, .. } => {
                let text = format!("{NOT_FOUND}: it {why}");
                return Some((S::BAD_GATEWAY, "Sandbox Not Found", text.into()));
            }
            Self::PortClosed { .. } => (S::BAD_GATEWAY, "Closed Port", PORT_CLOSED),
            Self::TokenMissing { .. } => {
                (S::FORBIDDEN, "Missing Traffic Access Token", TOKEN_MISSING)
            }
            Self::TokenInvalid { .. } => {
                (S::FORBIDDEN, "Invalid Traffic Access Token", TOKEN_INVALID)
            }
            Self::ResumeDenied { .. } => (S::FORBIDDEN, "Resume Denied", RESUME_DENIED),
            Self::Transitioning { .. } => {
                (S::CONFLICT, "Sandbox Still Transitioning", TRANSITIONING)
            }
            Self::LimitReached { message, .. } => {
                let text = if message.is_empty() {
                    LIMIT_REACHED
                } else {
                    message.as_str()
                };
                (S::TOO_MANY_REQUESTS, "Sandbox Limit Reached", text)
            }
            Self::TooManyConnections { limit, .. } => {
                let text = format!(
                    "The sandbox has too many concurrent incoming connections (limit: {limit})"
                );
                return Some((S::TOO_MANY_REQUESTS, "Too Many Connections", text.into()));
            }
            Self::Malformed(_) | Self::Method | Self::Unroutable | Self::Unexpected { .. } => {
                return None;
            }
        };
        Some((status, title, message.into()))
    }

    fn sandbox_id(&self) -> Option<&SandboxId> {
        match self {
            Self::NotFound { id }
            | Self::Ended { id, .. }
            | Self::PortClosed { id, .. }
            | Self::TokenMissing { id }
            | Self::TokenInvalid { id }
            | Self::ResumeDenied { id }
            | Self::Transitioning { id }
            | Self::LimitReached { id, .. }
            | Self::TooManyConnections { id, .. } => Some(id),
            Self::Malformed(_)
            | Self::Method
            | Self::Reserved { .. }
            | Self::Unroutable
            | Self::Unexpected { .. } => None,
        }
    }
}

fn build(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<ProxyBody> {
    let mut response = Response::new(ProxyBody::full(Bytes::from(body)));
    let length = response.body().len();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}

impl Asker {
    /// Takes note of what matters for a refusal, before the request is passed on.
    pub(crate) fn of(method: &Method, headers: &HeaderMap) -> Self {
        Self {
            form: form(headers),
            head: method == Method::HEAD,
            preflight: Preflight::of(method, headers),
        }
    }
}

impl Preflight {
    fn of(method: &Method, headers: &HeaderMap) -> Option<Self> {
        if method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
            return None;
        }
        Some(Self {
            method: headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?.clone(),
            headers: headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned(),
        })
    }

    /// Allows what is asked for by echoing it: `*` would not cover `Authorization`.
    fn respond(&self) -> Response<ProxyBody> {
        let mut response = Response::new(ProxyBody::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, self.method.clone());
        if let Some(names) = &self.headers {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        response
    }
}

/// Pages are for browsers that navigate; scripts and tools get JSON.
fn form(headers: &HeaderMap) -> Form {
    const BROWSERS: [&str; 7] = [
        "mozilla", "chrome", "safari", "firefox", "edge", "opera", "msie",
    ];
    let lower = |name: &str| {
        let value = headers
            .get(name)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        String::from_utf8_lossy(value).to_ascii_lowercase()
    };
    let agent = lower("user-agent");
    let accept = lower("accept");
    let wants_json = accept.contains("application/json") && !accept.contains("text/html");
    if wants_json || !BROWSERS.iter().any(|name| agent.contains(name)) {
        return Form::Json;
    }
    match lower("sec-fetch-mode").as_str() {
        "cors" | "no-cors" | "same-origin" | "websocket" => Form::Json,
        "navigate" => Form::Html,
        _ if lower("x-requested-with").is_empty() => Form::Html,
        _ => Form::Json,
    }
}

#[cfg(test)]
mod tests;
