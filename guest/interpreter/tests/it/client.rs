//! A small client: plain requests, and cells whose lines are read one by one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// No single step of a test takes this long: waiting longer is a failure, not a hang.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: SocketAddr,
}

/// A running cell. Dropping it closes its connection.
pub(crate) struct Cell {
    body: Incoming,
    buffer: Vec<u8>,
    connection: JoinHandle<()>,
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (Response<Incoming>, JoinHandle<()>) {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        #[expect(
            clippy::disallowed_methods,
            reason = "the cell that it belongs to ends it"
        )]
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let sent = sender.send_request(request);
        let response = tokio::time::timeout(LIMIT, sent)
            .await
            .expect("an answer")
            .unwrap();
        (response, connection)
    }

    fn request(method: Method, path: &str, body: Option<&Value>) -> Request<Full<Bytes>> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let builder = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "x");
        builder.body(Full::new(body.into())).unwrap()
    }

    async fn call(&self, request: Request<Full<Bytes>>) -> (u16, String) {
        let (response, _connection) = self.send(request).await;
        let status = response.status().as_u16();
        let body = tokio::time::timeout(LIMIT, response.into_body().collect()).await;
        let bytes = body.expect("a body").unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        self.call(Self::request(Method::GET, path, None)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        self.call(Self::request(Method::POST, path, Some(body)))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, String) {
        self.call(Self::request(Method::DELETE, path, None)).await
    }

    /// Makes a context and returns its id.
    pub(crate) async fn context(&self, body: &Value) -> String {
        let (status, body) = self.post("/contexts", body).await;
        assert_eq!(status, 200, "{body}");
        let info: Value = serde_json::from_str(&body).unwrap();
        info["id"].as_str().unwrap().to_owned()
    }

    /// Starts a cell.
    pub(crate) async fn start(&self, body: &Value) -> Cell {
        let mut request = Self::request(Method::POST, "/execute", Some(body));
        let token = http::HeaderValue::from_static("the-token");
        request.headers_mut().insert("x-access-token", token);
        let (response, connection) = self.send(request).await;
        assert_eq!(response.status(), 200);
        Cell {
            body: response.into_body(),
            buffer: Vec::new(),
            connection,
        }
    }

    /// Runs a cell of the default context to its end.
    pub(crate) async fn run(&self, code: &str) -> Vec<Value> {
        self.start(&json!({"code": code})).await.rest().await
    }
}

impl Cell {
    /// The next line, without lines that only say that nothing happens.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line: Value = serde_json::from_slice(&line).unwrap();
                if line["type"] == "keepalive" {
                    continue;
                }
                return Some(line);
            }
            let frame = tokio::time::timeout(LIMIT, self.body.frame())
                .await
                .expect("a line");
            let data = frame?.unwrap().into_data().unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    /// Waits for a line of some type.
    pub(crate) async fn until(&mut self, kind: &str) -> Value {
        loop {
            let line = self.line().await.expect("the stream ended");
            if line["type"] == kind {
                return line;
            }
        }
    }

    /// All lines up to the end, which must be told.
    pub(crate) async fn rest(mut self) -> Vec<Value> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await {
            lines.push(line);
        }
        assert_eq!(
            lines.pop().expect("a last line")["type"],
            "end_of_execution"
        );
        lines
    }
}

/// What lines print, together.
pub(crate) fn stdout(lines: &[Value]) -> String {
    let printed = lines.iter().filter(|line| line["type"] == "stdout");
    printed.map(|line| line["text"].as_str().unwrap()).collect()
}

/// The error among lines.
pub(crate) fn error(lines: &[Value]) -> &Value {
    let mut errors = lines.iter().filter(|line| line["type"] == "error");
    let error = errors.next().expect("an error");
    assert!(errors.next().is_none(), "at most one error");
    error
}
