//! The control plane.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use reqwest::RequestBuilder;
use serde::Serialize;
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};
use warren_types::LogLevel;
use warren_wire::{
    Connect, ListedSandbox, LogRecord, NewSandbox, SandboxDetail, SandboxLogsV2, SandboxMetric,
    State, Timeout,
};

use crate::config::Config;
use crate::error::Error;
use crate::http::{base_url, body, call, gone, join, json, refusal, send};
use crate::sandbox::Sandbox;

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Writing the memory of a large sandbox takes a while.
pub(crate) const PAUSE_TIMEOUT: Duration = Duration::from_secs(600);
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
    pub(crate) api_url: Url,
    pub(crate) sandbox_url: Url,
}

/// Which sandboxes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Only those in one of these states; empty means all.
    pub states: Vec<State>,
    /// Only those with all these labels.
    pub metadata: BTreeMap<String, String>,
    /// Only those of this template, by name or id.
    pub template: Option<String>,
    /// Only those that started after this moment.
    pub started_after: Option<Timestamp>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// How many at most, 1 to 100.
    pub limit: Option<u32>,
    /// Where to go on, from [`Page::next_token`].
    pub next_token: Option<String>,
}

/// Which lines of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// From this moment on; the newest lines when unset.
    pub from: Option<Timestamp>,
    /// This severity and above.
    pub min_level: Option<LogLevel>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its sandboxes, in the order asked for.
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

    pub(crate) fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
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

    pub(crate) fn post<T: Serialize>(&self, path: &[&str], body: &T) -> RequestBuilder {
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
        let next_token = next_token(&response);
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
        let request = self.request(Method::DELETE, &["sandboxes", sandbox_id]);
        gone("kill a sandbox", request).await
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

    /// Pauses a sandbox; with `memory` its processes go on after the resume, without only its
    /// files are kept. Returns false if it was paused already.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn pause(&self, sandbox_id: &str, memory: bool) -> Result<bool, Error> {
        const OPERATION: &str = "pause a sandbox";
        let request = self.post(
            &["sandboxes", sandbox_id, "pause"],
            &serde_json::json!({ "memory": memory }),
        );
        // The state may be long in the writing.
        let response = send(OPERATION, request.timeout(PAUSE_TIMEOUT)).await?;
        match response.status() {
            status if status.is_success() => Ok(true),
            StatusCode::CONFLICT => Ok(false),
            status => {
                let body = body(OPERATION, response, crate::http::ANSWER_LIMIT).await?;
                Err(refusal(OPERATION, status, &body))
            }
        }
    }

    /// Returns what a sandbox used, sample by sample, from a moment on.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn metrics(
        &self,
        sandbox_id: &str,
        from: Option<Timestamp>,
    ) -> Result<Vec<SandboxMetric>, Error> {
        const OPERATION: &str = "get the metrics of a sandbox";
        let from = from.map(|from| ("start", from.as_second().to_string()));
        let request = self
            .request(Method::GET, &["sandboxes", sandbox_id, "metrics"])
            .query(from.as_slice());
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Returns lines of a sandbox's log, oldest first: at most 1000, the first of those asked
    /// for when the query names a moment, else the newest.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn logs(&self, sandbox_id: &str, query: &LogQuery) -> Result<Vec<LogRecord>, Error> {
        const OPERATION: &str = "get the log of a sandbox";
        let request = self
            .request(Method::GET, &["v2", "sandboxes", sandbox_id, "logs"])
            .query(&log_parameters(query));
        let mut logs: SandboxLogsV2 = json(OPERATION, call(OPERATION, request).await?).await?;
        if query.from.is_none() {
            logs.logs.reverse();
        }
        Ok(logs.logs)
    }
}

/// Where the next page of a list begins.
pub(crate) fn next_token(response: &reqwest::Response) -> Option<String> {
    response
        .headers()
        .get(NEXT_TOKEN)
        .and_then(|value| value.to_str().ok())
        .filter(|token| !token.is_empty())
        .map(str::to_owned)
}

pub(crate) fn seconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_secs()).unwrap_or(i32::MAX)
}

fn log_parameters(query: &LogQuery) -> Vec<(&'static str, String)> {
    let mut parameters = Vec::new();
    match query.from {
        Some(from) => {
            parameters.push(("direction", "forward".to_owned()));
            parameters.push(("cursor", from.as_millisecond().to_string()));
        }
        None => parameters.push(("direction", "backward".to_owned())),
    }
    if let Some(level) = query.min_level {
        parameters.push(("level", level.as_str().to_owned()));
    }
    parameters
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
    if let Some(template) = &query.template {
        parameters.push(("template", template.clone()));
    }
    if let Some(moment) = query.started_after {
        parameters.push(("startedAfter", moment.to_string()));
    }
    if query.oldest_first {
        parameters.push(("order", "asc".to_owned()));
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
            oldest_first: true,
            template: Some("base".to_owned()),
            ..ListQuery::default()
        };
        assert_eq!(
            list_parameters(&query),
            [
                ("state", "running,paused".to_owned()),
                ("metadata", "a%2Bb=c%2526d".to_owned()),
                ("template", "base".to_owned()),
                ("order", "asc".to_owned()),
                ("limit", "2".to_owned()),
                ("nextToken", "t".to_owned()),
            ]
        );
    }
}
