//! Reaching a server as its operator: by the socket in its data directory, by its database
//! while it does not run, or elsewhere by the administrator's token.

use std::fs;

use anyhow::{Context, bail};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt;
use warren_service::Tasks;
use warren_wire::ErrorBody;

use super::offline::Offline;
use super::socket;
use crate::cli::operator::Operator;

/// Longest answer that is read.
const MAX_ANSWER: usize = 64 << 20;
const NEXT: &str = "x-next-token";
/// What is escaped in a segment of a path: all but what never has a meaning in it.
const SEGMENT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// A way to the server.
pub(crate) struct Link {
    way: Way,
    /// Drives the connection.
    _tasks: Tasks,
}

enum Way {
    Socket(tokio::sync::Mutex<SendRequest<Body>>),
    Offline(Offline),
    Remote {
        client: reqwest::Client,
        url: String,
        token: String,
    },
}

impl Link {
    /// Finds the way.
    pub(crate) async fn open(args: Operator) -> anyhow::Result<Self> {
        let tasks = Tasks::new();
        if let Some(url) = args.admin_url {
            let Some(file) = args.admin_token_file else {
                bail!("no administrator's token\nhint: name its file with --admin-token-file");
            };
            let token =
                fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
            let way = Way::Remote {
                client: reqwest::Client::builder().build()?,
                url: url.trim_end_matches('/').to_owned(),
                token: token.trim().to_owned(),
            };
            return Ok(Self { way, _tasks: tasks });
        }
        let stream = socket::connect(&args.data_dir).await;
        let stream = stream.with_context(|| {
            format!(
                "open {}\nhint: run it with sudo, or name the server's directory with --data-dir",
                args.data_dir.display()
            )
        })?;
        let way = match stream {
            Some(stream) => {
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                tasks.spawn(async move {
                    // Its end shows in the request that it cuts.
                    connection.await.ok();
                });
                Way::Socket(tokio::sync::Mutex::new(sender))
            }
            None => Way::Offline(Offline::open(&args.data_dir).await?),
        };
        Ok(Self { way, _tasks: tasks })
    }

    /// Whether the server runs, or only its data directory is at hand.
    pub(crate) fn is_offline(&self) -> bool {
        matches!(self.way, Way::Offline(_))
    }

    /// Sends a request and reads the answer, with the cursor of the next page.
    async fn exchange<B: Serialize>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> anyhow::Result<(Vec<u8>, Option<String>)> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()?
            .unwrap_or_default();
        let (status, next, bytes) = match &self.way {
            Way::Remote { client, url, token } => {
                let request = client
                    .request(method, format!("{url}{path}"))
                    .header("x-admin-token", token)
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(body);
                let answer = request
                    .send()
                    .await
                    .with_context(|| format!("reach {url}"))?;
                let next = next_of(answer.headers());
                (answer.status(), next, answer.bytes().await?.to_vec())
            }
            Way::Socket(sender) => {
                let mut sender = sender.lock().await;
                let answer = sender.send_request(request(method, path, body)?).await?;
                taken(answer.map(Body::new)).await?
            }
            Way::Offline(offline) => {
                let router: Router = offline.router();
                let answer = router.oneshot(request(method, path, body)?).await;
                let answer = answer.unwrap_or_else(|never| match never {});
                taken(answer).await?
            }
        };
        if !status.is_success() {
            let told: Result<ErrorBody, _> = serde_json::from_slice(&bytes);
            match told {
                Ok(told) => bail!("{}", told.message),
                Err(_) => bail!("the server answered {status}"),
            }
        }
        Ok((bytes, next))
    }

    /// Reads something.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let (bytes, _) = self.exchange::<()>(Method::GET, path, None).await?;
        serde_json::from_slice(&bytes).context("read the answer")
    }

    /// Makes or changes something and reads what came of it.
    pub(crate) async fn send<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> anyhow::Result<T> {
        let (bytes, _) = self.exchange(method, path, Some(body)).await?;
        serde_json::from_slice(&bytes).context("read the answer")
    }

    /// Makes or changes something that nothing comes of.
    pub(crate) async fn put<B: Serialize>(&self, path: &str, body: &B) -> anyhow::Result<()> {
        self.exchange(Method::PUT, path, Some(body)).await?;
        Ok(())
    }

    /// Deletes something.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.exchange::<()>(Method::DELETE, path, None).await?;
        Ok(())
    }
}

fn request(method: Method, path: &str, body: Vec<u8>) -> anyhow::Result<Request<Body>> {
    Ok(Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))?)
}

fn next_of(headers: &http::HeaderMap) -> Option<String> {
    let value = headers.get(NEXT)?.to_str().ok()?;
    Some(value.to_owned())
}

async fn taken(
    answer: Response<Body>,
) -> anyhow::Result<(http::StatusCode, Option<String>, Vec<u8>)> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let body = body
        .map_err(|error| anyhow::anyhow!(error))
        .context("read the answer")?;
    Ok((
        parts.status,
        next_of(&parts.headers),
        body.to_bytes().to_vec(),
    ))
}

/// A path with one segment of each text, whatever is in them.
pub(crate) fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.extend(percent_encoding::utf8_percent_encode(segment, SEGMENT));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn what_is_typed_stays_in_its_segment() {
        assert_eq!(path(&["admin", "api-keys"]), "/admin/api-keys");
        assert_eq!(path(&["a/b?c", "x@y.z"]), "/a%2Fb%3Fc/x%40y.z");
    }
}
