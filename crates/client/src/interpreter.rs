//! Cells of code in sandboxes of a code-interpreter template.

use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::agent::Agent;
use crate::error::Error;
use crate::http::call;

/// Most bytes of one cell that are kept: outputs, results and their pictures.
const OUTPUT_LIMIT: usize = 64 << 20;
const RUN: &str = "run code";

/// Runs code with state between cells.
#[derive(Debug, Clone)]
pub struct Interpreter {
    agent: Agent,
}

/// What came of one cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Execution {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Displays and the value of the last line, in order: fields by format (`text`, `html`,
    /// `png` in base64, `chart`, …) and `is_main_result`.
    pub results: Vec<Map<String, Value>>,
    /// The error that ended it.
    pub error: Option<ExecutionError>,
}

/// An error raised by code.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ExecutionError {
    /// Its class.
    pub name: String,
    /// Its message.
    pub value: String,
    /// Where it was raised.
    #[serde(default)]
    pub traceback: String,
}

impl Execution {
    /// The text of the last line's value.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let main =
            |result: &&Map<String, Value>| result.get("is_main_result") == Some(&true.into());
        self.results.iter().find(main)?.get("text")?.as_str()
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Error> {
        let read = |source| Error::Answer {
            operation: RUN,
            source,
        };
        let mut message: Map<String, Value> = serde_json::from_slice(line).map_err(read)?;
        let kind = message.remove("type");
        let text = |message: &Map<String, Value>| {
            let text = message.get("text").and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        match kind.as_ref().and_then(Value::as_str) {
            Some("stdout") => self.stdout.push_str(&text(&message)),
            Some("stderr") => self.stderr.push_str(&text(&message)),
            Some("result") => self.results.push(message),
            Some("error") => {
                self.error = Some(serde_json::from_value(message.into()).map_err(read)?);
            }
            // Counts and signs of life, and what later servers add.
            _ => {}
        }
        Ok(())
    }
}

impl Interpreter {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent }
    }

    /// Runs a cell in the default context of a language, Python unless one is named, for at
    /// most `limit`.
    ///
    /// # Errors
    /// The sandbox has no interpreter or not that language, the server is not reached, or
    /// the limit is over. An error that the code raises is no failure of the call.
    pub async fn run(
        &self,
        code: &str,
        language: Option<&str>,
        limit: Duration,
    ) -> Result<Execution, Error> {
        let request = self
            .agent
            .request(Method::POST, &["execute"])
            .timeout(limit)
            .json(&json!({ "code": code, "language": language }));
        let mut response = call(RUN, request).await?;
        let (mut execution, mut buffer, mut total) = (Execution::default(), BytesMut::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(|source| Error::Transport {
            operation: RUN,
            source,
        })? {
            total += chunk.len();
            if total > OUTPUT_LIMIT {
                return Err(Error::TooLong {
                    operation: RUN,
                    limit: OUTPUT_LIMIT,
                });
            }
            // Only what is new can end a line.
            let mut from = buffer.len();
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer[from..].iter().position(|&b| b == b'\n') {
                let line = buffer.split_to(from + end + 1);
                from = 0;
                if !line.trim_ascii().is_empty() {
                    execution.take(&line)?;
                }
            }
        }
        Ok(execution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_stream_become_an_execution() {
        let mut execution = Execution::default();
        for line in [
            r#"{"type":"number_of_executions","execution_count":1}"#,
            r#"{"type":"stdout","text":"a\n","timestamp":"t"}"#,
            r#"{"type":"stdout","text":"b"}"#,
            r#"{"type":"stderr","text":"c"}"#,
            r#"{"type":"result","png":"iVBO","is_main_result":false,"extra":{}}"#,
            r#"{"type":"result","text":"7","is_main_result":true}"#,
            r#"{"type":"error","name":"E","value":"v","traceback":"t"}"#,
            r#"{"type":"keepalive"}"#,
            r#"{"type":"end_of_execution"}"#,
        ] {
            execution.take(line.as_bytes()).unwrap();
        }
        assert_eq!(
            (execution.stdout.as_str(), execution.stderr.as_str()),
            ("a\nb", "c")
        );
        assert_eq!(execution.text(), Some("7"));
        assert_eq!(execution.results.len(), 2);
        assert_eq!(execution.error.as_ref().unwrap().name, "E");
        assert!(execution.take(b"[]").is_err());
    }
}
