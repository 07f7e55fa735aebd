//! What comes of a cell.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::Error;

use super::RUN;

/// What a cell did.
#[derive(Debug, Clone, PartialEq)]
pub enum CellEvent {
    /// It wrote to its standard output.
    Stdout(String),
    /// It wrote to its standard error.
    Stderr(String),
    /// It displayed something, or its last line had a value.
    Result(Box<CellResult>),
    /// It was ended by an error. At most one.
    Error(ExecutionError),
    /// It began, as the cell of this number in its context.
    Started(u64),
}

/// One display, or the value of the last line, in the formats that it has.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct CellResult {
    /// Whether it is the value of the last line.
    #[serde(default)]
    pub is_main_result: bool,
    /// As text.
    pub text: Option<String>,
    /// As HTML.
    pub html: Option<String>,
    /// As Markdown.
    pub markdown: Option<String>,
    /// As LaTeX.
    pub latex: Option<String>,
    /// A drawing.
    pub svg: Option<String>,
    /// A picture, in base64.
    pub png: Option<String>,
    /// A picture, in base64.
    pub jpeg: Option<String>,
    /// A document, in base64.
    pub pdf: Option<String>,
    /// A script for a page.
    pub javascript: Option<String>,
    /// As JSON.
    pub json: Option<Value>,
    /// A table by column.
    pub data: Option<Value>,
    /// What a plot shows: its type, title, axes and elements.
    pub chart: Option<Value>,
    /// Further formats by MIME type.
    #[serde(default)]
    pub extra: BTreeMap<String, Value>,
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

/// What came of one cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Execution {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Displays and the value of the last line, in order.
    pub results: Vec<CellResult>,
    /// The error that ended it.
    pub error: Option<ExecutionError>,
    /// The number of the cell in its context; 0 if it never began.
    pub count: u64,
}

impl Execution {
    /// The text of the last line's value.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let main = self.results.iter().find(|result| result.is_main_result)?;
        main.text.as_deref()
    }

    pub(super) fn take(&mut self, event: CellEvent) {
        match event {
            CellEvent::Stdout(text) => self.stdout.push_str(&text),
            CellEvent::Stderr(text) => self.stderr.push_str(&text),
            CellEvent::Result(result) => self.results.push(*result),
            CellEvent::Error(error) => self.error = Some(error),
            CellEvent::Started(count) => self.count = count,
        }
    }
}

/// A line of the stream.
#[derive(Debug, PartialEq)]
pub(super) enum Line {
    Event(CellEvent),
    /// A sign of life, or what later servers add.
    Nothing,
    End,
}

/// Reads a line of the stream.
pub(super) fn read(line: &[u8]) -> Result<Line, Error> {
    let failed = |source| Error::Answer {
        operation: RUN,
        source,
    };
    let mut message: Map<String, Value> = serde_json::from_slice(line).map_err(failed)?;
    let kind = message.remove("type");
    let text = |message: &Map<String, Value>| {
        let text = message.get("text").and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Ok(match kind.as_ref().and_then(Value::as_str) {
        Some("stdout") => Line::Event(CellEvent::Stdout(text(&message))),
        Some("stderr") => Line::Event(CellEvent::Stderr(text(&message))),
        Some("result") => {
            let result = serde_json::from_value(message.into()).map_err(failed)?;
            Line::Event(CellEvent::Result(Box::new(result)))
        }
        Some("error") => {
            let error = serde_json::from_value(message.into()).map_err(failed)?;
            Line::Event(CellEvent::Error(error))
        }
        Some("number_of_executions") => {
            let count = message.get("execution_count").and_then(Value::as_u64);
            Line::Event(CellEvent::Started(count.unwrap_or_default()))
        }
        Some("end_of_execution") => Line::End,
        _ => Line::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_stream_become_an_execution() {
        let mut execution = Execution::default();
        let mut ended = false;
        for line in [
            r#"{"type":"number_of_executions","execution_count":4}"#,
            r#"{"type":"stdout","text":"a\n","timestamp":"t"}"#,
            r#"{"type":"stdout","text":"b"}"#,
            r#"{"type":"stderr","text":"c"}"#,
            r#"{"type":"result","png":"iVBO","is_main_result":false,"extra":{"a/b":1}}"#,
            r#"{"type":"result","text":"7","is_main_result":true,"of_tomorrow":[]}"#,
            r#"{"type":"error","name":"E","value":"v","traceback":"t"}"#,
            r#"{"type":"keepalive"}"#,
            r#"{"type":"end_of_execution"}"#,
        ] {
            match read(line.as_bytes()).unwrap() {
                Line::Event(event) => execution.take(event),
                Line::Nothing => {}
                Line::End => ended = true,
            }
        }
        assert!(ended);
        assert_eq!(
            (execution.stdout.as_str(), execution.stderr.as_str()),
            ("a\nb", "c")
        );
        assert_eq!((execution.text(), execution.count), (Some("7"), 4));
        assert_eq!(execution.results[0].png.as_deref(), Some("iVBO"));
        assert_eq!(execution.results[0].extra["a/b"], 1);
        assert_eq!(execution.error.as_ref().unwrap().name, "E");
        assert!(read(b"[]").is_err());
    }
}
