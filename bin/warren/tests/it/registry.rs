//! A registry that serves what a test puts into it, and may lie.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use futures_util::{StreamExt, stream};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use warren_service::Tasks;

type Content = Arc<Vec<u8>>;

/// What it serves, by path below `/v2/`: media type and content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Registry {
    served: Arc<Mutex<HashMap<String, (String, Content)>>>,
    /// Credentials that are required, as they come in the header.
    required: Option<String>,
    /// What is sent of each blob before the connection breaks; nothing breaks if unset.
    cut: Option<usize>,
    /// Whether parts are given to who asks for them.
    ranges: bool,
    parts_wanted: Arc<AtomicUsize>,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer as it is sent, and the digest of its plain form.
pub(crate) struct Layer {
    pub(crate) sent: Vec<u8>,
    pub(crate) diff_id: String,
}

impl Layer {
    pub(crate) fn plain(tar: Vec<u8>) -> Self {
        Self {
            diff_id: digest(&tar),
            sent: tar,
        }
    }
}

impl Registry {
    /// One that wants user `me` and password `secret`.
    pub(crate) fn private() -> Self {
        Self::for_user("me", "secret")
    }

    /// One that wants this user and password.
    pub(crate) fn for_user(user: &str, password: &str) -> Self {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Self {
            required: Some(format!("Basic {pair}")),
            ..Self::default()
        }
    }

    /// One whose connections break after as many bytes of a blob.
    pub(crate) fn cutting(after: usize, ranges: bool) -> Self {
        Self {
            cut: Some(after),
            ranges,
            ..Self::default()
        }
    }

    /// Requests for blobs that named a part.
    pub(crate) fn parts_wanted(&self) -> usize {
        self.parts_wanted.load(Ordering::Relaxed)
    }

    pub(crate) fn put(&self, path: &str, kind: &str, bytes: Vec<u8>) {
        let entry = (kind.to_owned(), Arc::new(bytes));
        self.served.lock().unwrap().insert(path.to_owned(), entry);
    }

    /// Puts an image under `name:latest`.
    pub(crate) fn image(&self, name: &str, layers: Vec<Layer>, env: &[&str], arch: &str) {
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = serde_json::json!({
            "architecture": arch, "os": "linux",
            "config": {"Env": env, "User": "nobody", "WorkingDir": "/ignored", "Cmd": ["false"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
        .into_bytes();
        let blob = |bytes: Vec<u8>, kind: &str| {
            let (digest, size) = (digest(&bytes), bytes.len());
            self.put(
                &format!("{name}/blobs/{digest}"),
                "application/octet-stream",
                bytes,
            );
            serde_json::json!({"mediaType": kind, "digest": digest, "size": size})
        };
        let config = blob(config, "application/vnd.oci.image.config.v1+json");
        let layers: Vec<_> = layers
            .into_iter()
            .map(|layer| blob(layer.sent, "application/vnd.oci.image.layer.v1.tar"))
            .collect();
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers,
        });
        let bytes = manifest.to_string().into_bytes();
        self.put(&format!("{name}/manifests/latest"), kind, bytes);
    }

    /// A content or a part of it, perhaps with an early end.
    fn content(
        &self,
        path: &str,
        content: &[u8],
        answer: hyper::http::response::Builder,
        range: Option<String>,
    ) -> Response<axum::body::Body> {
        let from = range.map_or(0, |range| {
            self.parts_wanted.fetch_add(1, Ordering::Relaxed);
            let from = range.strip_prefix("bytes=").unwrap().trim_end_matches('-');
            from.parse().unwrap()
        });
        let (answer, content) = match from {
            0 => (answer, content),
            from if self.ranges => (answer.status(StatusCode::PARTIAL_CONTENT), &content[from..]),
            _ => (answer, content),
        };
        let answer = answer.header("content-length", content.len());
        let whole = content.to_vec();
        let body = match self.cut {
            // Whoever can't have parts gets further with each attempt.
            Some(cut) if path.contains("/blobs/") => {
                let sent = if self.ranges { cut } else { from + cut };
                match whole.get(..sent) {
                    Some(first) => {
                        let first = stream::iter([Ok(first.to_vec())]);
                        // What was sent has to have left before the connection breaks.
                        let end = stream::once(async {
                            tokio::time::sleep(Duration::from_millis(100)).await;
                            Err(std::io::Error::other("cut"))
                        });
                        axum::body::Body::from_stream(first.chain(end))
                    }
                    None => whole.into(),
                }
            }
            _ => whole.into(),
        };
        answer.body(body).unwrap()
    }

    /// Serves until the tasks stop; gives the address.
    pub(crate) async fn serve(self, tasks: &Tasks) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = tasks.clone();
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = connections.stop_token().cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                let registry = self.clone();
                let service = service_fn(move |request| {
                    let response = registry.answer(&request);
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                let stream = TokioIo::new(accepted.unwrap().0);
                let serving = hyper::server::conn::http1::Builder::new();
                connections.spawn(async move { serving.serve_connection(stream, service).await });
            }
        });
        address
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<axum::body::Body> {
        let given = request.headers().get("authorization");
        let given = given.and_then(|value| value.to_str().ok());
        if self.required.is_some() && self.required.as_deref() != given {
            return Response::builder()
                .status(StatusCode::UNAUTHORIZED)
                .header("www-authenticate", "Basic realm=\"test\"")
                .body("{}".into())
                .unwrap();
        }
        let path = request.uri().path().strip_prefix("/v2/").unwrap_or("");
        if path.is_empty() {
            return Response::new("{}".into());
        }
        match self.served.lock().unwrap().get(path) {
            Some((kind, content)) => {
                let answer = Response::builder().header("content-type", kind);
                let range = request.headers().get("range");
                let range = range.map(|range| range.to_str().unwrap().to_owned());
                self.content(path, content, answer, range)
            }
            None => {
                let unknown = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#;
                Response::builder()
                    .status(StatusCode::NOT_FOUND)
                    .body(unknown.into())
                    .unwrap()
            }
        }
    }
}
