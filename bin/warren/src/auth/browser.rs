//! The sign-in in a browser: a page of the server gives tokens to a port of ours.

use std::future::IntoFuture;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::Router;
use axum::extract::{Query, State};
use axum::response::Redirect;
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use url::Url;
use warren_client::{OAuth, Tokens};

use crate::print::line;

/// Time for the last answer to reach the browser.
const PARTING: Duration = Duration::from_secs(2);
const INCOMPLETE: &str = "Incomplete login response from server";

/// What the server gave.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub(super) email: String,
    pub(super) tokens: Tokens,
    pub(super) oauth: OAuth,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    email: String,
    access_token: String,
    refresh_token: String,
    token_endpoint: String,
    revoke_endpoint: String,
    client_id: String,
    error: Option<String>,
}

impl Answer {
    fn grant(self) -> Result<Grant, String> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let needed = [
            &self.email,
            &self.access_token,
            &self.refresh_token,
            &self.token_endpoint,
            &self.revoke_endpoint,
            &self.client_id,
        ];
        if needed.iter().any(|text| text.is_empty()) {
            return Err(INCOMPLETE.to_owned());
        }
        Ok(Grant {
            email: self.email,
            tokens: Tokens {
                access_token: self.access_token,
                refresh_token: self.refresh_token,
            },
            oauth: OAuth {
                token_endpoint: self.token_endpoint,
                revoke_endpoint: self.revoke_endpoint,
                client_id: self.client_id,
            },
        })
    }
}

#[derive(Debug)]
struct Waiting {
    page: Url,
    answers: mpsc::Sender<Result<Grant, String>>,
}

/// Takes the answer and sends the browser back to the server's page.
async fn answered(
    State(waiting): State<Arc<Waiting>>,
    Query(answer): Query<Answer>,
) -> ([(&'static str, &'static str); 1], Redirect) {
    let result = answer.grant();
    let mut page = waiting.page.clone();
    match &result {
        Ok(grant) => page
            .query_pairs_mut()
            .append_pair("state", "success")
            .append_pair("email", &grant.email),
        Err(error) => page
            .query_pairs_mut()
            .append_pair("state", "error")
            .append_pair("error", error),
    };
    // Nobody waits any more if a second answer comes; the first counts.
    waiting.answers.try_send(result).ok();
    ([("connection", "close")], Redirect::to(page.as_str()))
}

/// Opens the page and waits for what it gives.
pub(super) async fn sign_in(base: &str) -> anyhow::Result<Grant> {
    let mut page: Url = format!("{}/api/cli", base.trim_end_matches('/'))
        .parse()
        .with_context(|| format!("use {base:?} as the page to sign in at"))?;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    // Other pages of the browser can't guess it, so only the server's page gets through.
    let path = format!("/{}", hex::encode(rand::random::<[u8; 16]>()));
    let (answers, mut answer) = mpsc::channel(1);
    let waiting = Waiting {
        page: page.clone(),
        answers,
    };
    let app = Router::new()
        .route(&path, get(answered))
        .with_state(Arc::new(waiting));
    page.query_pairs_mut()
        .append_pair("next", &format!("http://localhost:{port}{path}"))
        .append_pair("cliVersion", env!("CARGO_PKG_VERSION"));
    if open(page.as_str()) {
        line(&format!("Opened in your browser: {page}"))?;
    } else {
        line(&format!(
            "\nCould not open a browser automatically. Please open the following URL manually to continue:\n\n{page}\n\nIf interactive login is unavailable, keep an API key with `warren auth login --with-key`, or set E2B_API_KEY instead.\n"
        ))?;
    }
    let (done, stop) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async {
        stop.await.ok();
    });
    let mut serving = std::pin::pin!(serving.into_future());
    let received = tokio::select! {
        served = &mut serving => {
            served.context("wait for the browser")?;
            None
        }
        received = answer.recv() => received,
    };
    // The answer to the browser goes out first; connections that it keeps open are nothing
    // to wait for.
    done.send(()).ok();
    tokio::time::timeout(PARTING, serving).await.ok();
    match received {
        Some(Ok(grant)) => Ok(grant),
        Some(Err(error)) => bail!("the server did not sign you in: {error}"),
        None => bail!("the browser gave no answer"),
    }
}

/// Opens a page in the person's browser. Returns whether there is one.
fn open(page: &str) -> bool {
    let program = if cfg!(target_os = "macos") {
        "open"
    } else {
        "xdg-open"
    };
    std::process::Command::new(program)
        .arg(page)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .is_ok()
}
