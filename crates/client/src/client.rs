//! The control plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use reqwest::RequestBuilder;
use serde::Serialize;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};
use warren_wire::{
    Connect, ListedSandbox, LogRecord, NewSandbox, SandboxDetail, SandboxLogsV2, SandboxMetric,
    State, Timeout,
};

use crate::config::Config;
use crate::error::Error;
use crate::http::{base_url, body, call, join, json, refusal, send};
use crate::sandbox::Sandbox;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const NEXT_TOKEN: &str = "x-next-token";

/// A client of one server. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) http: reqwest::Client,
    api_url: Url,
    pub(crate) sandbox_url: Url,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only those in one of these states; empty means all.
    pub states: Vec<State>,
    /// Only those with all these labels.
    pub metadata: BTreeMap<String, String>,
    /// How many at most, 1 to 100.
    pub limit: Option<u32>,
    /// Where to go on, from [`Page::next_token`].
    pub next_token: Option<String>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its sandboxes, newest first.
    pub sandboxes: Vec<ListedSandbox>,
    /// Where the next part starts; `None` at the end.
    pub next_token: Option<String>,
}

impl Client {
    /// Makes a client. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Setup`].
    pub fn new(config: Config) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(Error::Setup)?;
        Ok(Self {
            shared: Arc::new(Shared {
                api_url: base_url(&config.api_url)?,
                sandbox_url: base_url(&config.sandbox_url)?,
                config,
                http,
            }),
        })
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let Shared {
            config,
            http,
            api_url,
            ..
        } = self.shared.as_ref();
        http.request(method, join(api_url, path))
            .header("x-api-key", &config.api_key)
            .timeout(config.request_timeout)
    }

    fn post<T: Serialize>(&self, path: &[&str], body: &T) -> RequestBuilder {
        self.request(Method::POST, path).json(body)
    }

    /// Creates a sandbox. When this returns, it is usable.
    ///
    /// # Errors
    /// [`Error`]; status 404 for an unknown template, 429 at the team's limit.
    pub async fn create(&self, new: &NewSandbox) -> Result<Sandbox, Error> {
        const OPERATION: &str = "create a sandbox";
        let response = call(OPERATION, self.post(&["v2", "sandboxes"], new)).await?;
        let created: warren_wire::Sandbox = json(OPERATION, response).await?;
        Ok(Sandbox::new(self.clone(), created))
    }

    /// Connects to a sandbox, resuming it if it is paused. It lives for at least `timeout`
    /// from now.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn connect(&self, sandbox_id: &str, timeout: Duration) -> Result<Sandbox, Error> {
        const OPERATION: &str = "connect to a sandbox";
        let request = Connect {
            timeout: Some(seconds(timeout)),
            memory: None,
        };
        let path = ["v2", "sandboxes", sandbox_id, "connect"];
        let response = call(OPERATION, self.post(&path, &request)).await?;
        let connected: warren_wire::Sandbox = json(OPERATION, response).await?;
        Ok(Sandbox::new(self.clone(), connected))
    }

    /// Describes a sandbox.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn get(&self, sandbox_id: &str) -> Result<SandboxDetail, Error> {
        const OPERATION: &str = "get a sandbox";
        let request = self.request(Method::GET, &["sandboxes", sandbox_id]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Lists sandboxes, one page at a time.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn list(&self, query: &ListQuery) -> Result<Page, Error> {
        const OPERATION: &str = "list sandboxes";
        let request = self
            .request(Method::GET, &["v2", "sandboxes"])
            .query(&list_parameters(query));
        let response = call(OPERATION, request).await?;
        let next_token = response
            .headers()
            .get(NEXT_TOKEN)
            .and_then(|value| value.to_str().ok())
            .filter(|token| !token.is_empty())
            .map(str::to_owned);
        Ok(Page {
            sandboxes: json(OPERATION, response).await?,
            next_token,
        })
    }

    /// Kills a sandbox. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn kill(&self, sandbox_id: &str) -> Result<bool, Error> {
        const OPERATION: &str = "kill a sandbox";
        let request = self.request(Method::DELETE, &["sandboxes", sandbox_id]);
        let response = send(OPERATION, request).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(true);
        }
        if status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        let body = body(OPERATION, response, crate::http::ANSWER_LIMIT).await?;
        Err(refusal(OPERATION, status, &body))
    }

    /// Lets a sandbox end `timeout` from now.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn set_timeout(&self, sandbox_id: &str, timeout: Duration) -> Result<(), Error> {
        let body = Timeout {
            timeout: seconds(timeout),
        };
        let request = self.post(&["sandboxes", sandbox_id, "timeout"], &body);
        call("set the time-out of a sandbox", request).await?;
        Ok(())
    }

    /// Returns what a sandbox used, sample by sample.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn metrics(&self, sandbox_id: &str) -> Result<Vec<SandboxMetric>, Error> {
        const OPERATION: &str = "get the metrics of a sandbox";
        let request = self.request(Method::GET, &["sandboxes", sandbox_id, "metrics"]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Returns the newest lines of a sandbox's log.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn logs(&self, sandbox_id: &str) -> Result<Vec<LogRecord>, Error> {
        const OPERATION: &str = "get the log of a sandbox";
        let request = self.request(Method::GET, &["v2", "sandboxes", sandbox_id, "logs"]);
        let logs: SandboxLogsV2 = json(OPERATION, call(OPERATION, request).await?).await?;
        Ok(logs.logs)
    }
}

fn seconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX)
}

fn list_parameters(query: &ListQuery) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    if !query.states.is_empty() {
        let states: Vec<&str> = query
            .states
            .iter()
            .map(|state| match state {
                State::Running => "running",
                State::Paused => "paused",
            })
            .collect();
        parameters.push(("state", states.join(",")));
    }
    if !query.metadata.is_empty() {
        // The server decodes the value, splits it, and decodes each part again.
        let encoded = |text: &str| -> String { byte_serialize(text.as_bytes()).collect() };
        let mut labels = Serializer::new(String::new());
        for (key, value) in &query.metadata {
            labels.append_pair(&encoded(key), &encoded(value));
        }
        parameters.push(("metadata", labels.finish()));
    }
    if let Some(limit) = query.limit {
        parameters.push(("limit", limit.to_string()));
    }
    if let Some(token) = &query.next_token {
        parameters.push(("nextToken", token.clone()));
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_is_asked_for() {
        assert_eq!(list_parameters(&ListQuery::default()), []);
        let query = ListQuery {
            states: vec![State::Running, State::Paused],
            metadata: BTreeMap::from([("a b".to_owned(), "c&d".to_owned())]),
            limit: Some(2),
            next_token: Some("t".to_owned()),
        };
        assert_eq!(
            list_parameters(&query),
            [
                ("state", "running,paused".to_owned()),
                ("metadata", "a%2Bb=c%2526d".to_owned()),
                ("limit", "2".to_owned()),
                ("nextToken", "t".to_owned()),
            ]
        );
    }
}
