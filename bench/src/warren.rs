//! The few calls that are measured, on the wire as the SDKs make them.

use std::path::Path;

use anyhow::{Context, bail};
use base64::Engine;
use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;

/// A client of one server.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) http: Client,
    pub(crate) url: String,
    key: String,
}

/// A sandbox, as create answers it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sandbox {
    #[serde(rename = "sandboxID")]
    pub(crate) id: String,
    pub(crate) envd_access_token: String,
}

impl Api {
    pub(crate) fn new(http: Client, url: String, key: String) -> Self {
        Self { http, url, key }
    }

    /// Creates a sandbox of `base`.
    pub(crate) async fn create(&self) -> anyhow::Result<Sandbox> {
        self.create_of("base").await
    }

    /// Creates a sandbox of a template.
    pub(crate) async fn create_of(&self, template: &str) -> anyhow::Result<Sandbox> {
        let answer = self
            .http
            .post(format!("{}/v2/sandboxes", self.url))
            .header("x-api-key", &self.key)
            .json(&json!({ "templateID": template, "timeout": 600 }))
            .send()
            .await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if status != 201 {
            bail!(
                "create answered {status}: {}",
                String::from_utf8_lossy(&body)
            );
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Posts a body that must be taken, and gives the answer's.
    pub(crate) async fn post(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<serde_json::Value> {
        let request = self.http.post(format!("{}{path}", self.url));
        let request = request.header("x-api-key", &self.key).json(body);
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        anyhow::ensure!(status.is_success(), "{path} answered {status}: {text}");
        if body.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        Ok(serde_json::from_slice(&body)?)
    }

    /// Gets something that must be there.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        let request = self.http.get(format!("{}{path}", self.url));
        let answer = request.header("x-api-key", &self.key).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        let text = String::from_utf8_lossy(&body);
        anyhow::ensure!(status.is_success(), "{path} answered {status}: {text}");
        Ok(serde_json::from_slice(&body)?)
    }

    /// Writes something that must be there to a file.
    pub(crate) async fn download(&self, path: &str, into: &Path) -> anyhow::Result<()> {
        let request = self.http.get(format!("{}{path}", self.url));
        let answer = request.header("x-api-key", &self.key).send().await?;
        let mut pieces = answer.error_for_status()?.bytes_stream();
        let mut file = tokio::fs::File::create(into).await?;
        while let Some(piece) = pieces.next().await {
            file.write_all(&piece?).await?;
        }
        Ok(file.flush().await?)
    }

    /// Puts a body that must be taken.
    pub(crate) async fn put(&self, path: &str, body: &serde_json::Value) -> anyhow::Result<()> {
        let request = self.http.put(format!("{}{path}", self.url));
        let answer = request
            .header("x-api-key", &self.key)
            .json(body)
            .send()
            .await?;
        let status = answer.status();
        let body = answer.text().await?;
        anyhow::ensure!(status.is_success(), "{path} answered {status}: {body}");
        Ok(())
    }

    /// Deletes something.
    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<()> {
        let request = self.http.delete(format!("{}{path}", self.url));
        let answer = request.header("x-api-key", &self.key).send().await?;
        let status = answer.status();
        anyhow::ensure!(status.is_success(), "{path} answered {status}");
        Ok(())
    }

    /// Kills a sandbox.
    pub(crate) async fn kill(&self, sandbox: &Sandbox) -> anyhow::Result<()> {
        let answer = self
            .http
            .delete(format!("{}/sandboxes/{}", self.url, sandbox.id))
            .header("x-api-key", &self.key)
            .send()
            .await?;
        anyhow::ensure!(answer.status() == 204, "kill answered {}", answer.status());
        Ok(())
    }

    /// Starts a cell in the default context of a code interpreter, as `run_code` does, and
    /// hands over its lines as they come.
    pub(crate) async fn cell(
        &self,
        sandbox: &Sandbox,
        code: &str,
        mut line: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let answer = self
            .http
            .post(format!("{}/execute", self.url))
            .header("e2b-sandbox-id", &sandbox.id)
            .header("e2b-sandbox-port", "49999")
            .header("x-access-token", &sandbox.envd_access_token)
            .json(&json!({ "code": code }))
            .send()
            .await?
            .error_for_status()?;
        let mut stream = answer.bytes_stream();
        let mut unfinished = Vec::new();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            let mut lines = chunk.split(|byte| *byte == b'\n');
            unfinished.extend_from_slice(lines.next().unwrap_or_default());
            for rest in lines {
                line(&std::mem::replace(&mut unfinished, rest.to_vec()))?;
            }
        }
        anyhow::ensure!(unfinished.is_empty(), "the stream was cut");
        Ok(())
    }

    /// Runs a cell to its end and returns its main result's text.
    pub(crate) async fn value(&self, sandbox: &Sandbox, code: &str) -> anyhow::Result<String> {
        let mut text = None;
        self.cell(sandbox, code, |line| {
            let line: serde_json::Value = serde_json::from_slice(line)?;
            if line["is_main_result"] == true {
                text = line["text"].as_str().map(str::to_owned);
            }
            anyhow::ensure!(line["type"] != "error", "the cell failed: {line}");
            Ok(())
        })
        .await?;
        text.context("the cell has no value")
    }

    /// Adds what routes and authorises a request to a sandbox's agent.
    pub(crate) fn to_agent(&self, request: RequestBuilder, sandbox: &Sandbox) -> RequestBuilder {
        request
            .header("e2b-sandbox-id", &sandbox.id)
            .header("e2b-sandbox-port", "49983")
            .header("x-access-token", &sandbox.envd_access_token)
    }

    /// Runs a shell command and waits for its end, as `commands.run` does.
    pub(crate) async fn run(&self, sandbox: &Sandbox, command: &str) -> anyhow::Result<String> {
        let message = json!({
            "process": { "cmd": "/bin/bash", "args": ["-l", "-c", command] }, "stdin": false,
        })
        .to_string();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(message.len())?.to_be_bytes());
        body.extend_from_slice(message.as_bytes());
        let request = self
            .http
            .post(format!("{}/process.Process/Start", self.url));
        let answer = self
            .to_agent(request, sandbox)
            .header("content-type", "application/connect+json")
            .header("connect-protocol-version", "1")
            .body(body)
            .send()
            .await?;
        anyhow::ensure!(answer.status() == 200, "start answered {}", answer.status());
        let mut stream = answer.bytes_stream();
        let mut buffer = BytesMut::new();
        let mut output = Vec::new();
        while let Some(chunk) = stream.next().await {
            buffer.extend_from_slice(&chunk?);
            while let Some((last, payload)) = envelope(&mut buffer) {
                let message: serde_json::Value = serde_json::from_slice(&payload)?;
                if last {
                    if let Some(error) = message.get("error") {
                        bail!("the stream ended with {error}");
                    }
                    return Ok(String::from_utf8(output)?);
                }
                if let Some(text) = message
                    .pointer("/event/data/stdout")
                    .and_then(|v| v.as_str())
                {
                    output.extend(base64::engine::general_purpose::STANDARD.decode(text)?);
                }
            }
        }
        bail!("the stream ended without its last message")
    }
}

/// Takes one whole envelope off the front: whether it is the last, and its payload.
fn envelope(buffer: &mut BytesMut) -> Option<(bool, Bytes)> {
    let header = buffer.first_chunk::<5>()?;
    let [flags, length @ ..] = *header;
    let length = u32::from_be_bytes(length) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some((flags & 2 != 0, buffer.split_to(length).freeze()))
}

/// Available memory of the machine in bytes.
pub(crate) fn available_memory() -> anyhow::Result<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo")?;
    let kib = meminfo.lines().find_map(|line| {
        line.strip_prefix("MemAvailable:")?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
    });
    Ok(kib.context("no MemAvailable")? * 1024)
}
