//! A server of its own for each test.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::TcpListener;
use warren_interpreter::cli::Options;
use warren_service::Tasks;

use crate::client::Client;
use crate::fake_kernel;

/// A serving interpreter, which ends with its kernels when it is dropped.
pub(crate) struct Server {
    pub client: Client,
    pub agent: Agent,
    pub dir: TempDir,
    tasks: Tasks,
}

/// Starts a server with scripted kernels for Python and JavaScript.
pub(crate) async fn start() -> Server {
    let dir = tempfile::tempdir().unwrap();
    fake_kernel::install(&dir.path().join("jupyter"), "python3", "python");
    fake_kernel::install(&dir.path().join("jupyter"), "javascript", "javascript");
    fake_kernel::install(&dir.path().join("jupyter"), "forth", "forth");
    start_in(dir, std::env::var("PATH").unwrap()).await
}

/// Starts a server whose kernels are in `jupyter` of a directory or found by `path`.
pub(crate) async fn start_in(dir: TempDir, path: String) -> Server {
    let tasks = Tasks::new();
    let agent = Agent::start(&tasks).await;
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::new(address);
    let options = Options {
        // As root the server changes to this user; else it stays who it is.
        user: "root".to_owned(),
        cwd: text(&home),
        agent: agent.address.to_string(),
        host: agent.address.to_string(),
        run_dir: dir.path().join("run"),
        identity: dir.path().join("id"),
        ..Options::default()
    };
    let env = BTreeMap::from([
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), text(&home)),
        ("JUPYTER_PATH".to_owned(), text(&dir.path().join("jupyter"))),
    ]);
    warren_interpreter::start(&options, env, listener, &tasks).unwrap();
    let url = address.to_string();
    let ready = tasks.spawn_blocking(move || warren_interpreter::wait::until_ready(&url));
    ready.await.unwrap().unwrap();
    let server = Server {
        client,
        agent,
        dir,
        tasks,
    };
    let (status, body) = server.client.get("/health").await;
    assert_eq!((status, body.as_str()), (200, "\"OK\""));
    server
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

/// Stands for the sandbox's agent, which tells variables, and its host. Remembers tokens.
pub(crate) struct Agent {
    pub address: SocketAddr,
    pub state: Arc<Mutex<AgentState>>,
}

#[derive(Default)]
pub(crate) struct AgentState {
    pub vars: BTreeMap<String, String>,
    pub tokens: Vec<Option<String>>,
}

impl Agent {
    async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(AgentState::default()));
        let shared = Arc::clone(&state);
        let stop = tasks.stop_token().clone();
        tasks.spawn(async move {
            loop {
                let stream = tokio::select! {
                    () = stop.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap().0,
                };
                let state = Arc::clone(&shared);
                let service = service_fn(move |request| {
                    let reply = reply(&state, &request);
                    async move { Ok::<_, Infallible>(reply) }
                });
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
            }
        });
        Self { address, state }
    }
}

fn reply(state: &Mutex<AgentState>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let mut state = state.lock().unwrap();
    let body = match request.uri().path() {
        "/envs" => {
            let token = request.headers().get("x-access-token");
            let token = token.map(|token| token.to_str().unwrap().to_owned());
            state.tokens.push(token);
            serde_json::to_vec(&state.vars).unwrap()
        }
        path => {
            assert_eq!(path, "/me/memory");
            b"{\"oomKills\":0}".to_vec()
        }
    };
    let mut response = Response::new(Full::new(body.into()));
    response
        .headers_mut()
        .insert("connection", http::HeaderValue::from_static("close"));
    response
}
