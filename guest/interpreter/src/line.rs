//! Lines of the execution stream, and how kernels' messages become them.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kernel::{Message, WireError};

/// One line of the stream.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Line {
    /// The kernel accepted the cell.
    NumberOfExecutions {
        /// How many it has run, with this one.
        execution_count: i64,
    },
    /// Standard output.
    Stdout(Text),
    /// Standard error.
    Stderr(Text),
    /// A display or the cell's value.
    Result(Box<CellResult>),
    /// The cell failed.
    Error(CellError),
    /// Nothing happens.
    Keepalive,
    /// The cell is over.
    EndOfExecution,
}

/// Output of a cell.
#[derive(Debug, Serialize)]
pub(crate) struct Text {
    text: String,
    timestamp: String,
}

/// A cell's failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct CellError {
    /// Kind of error.
    pub name: String,
    /// What it says.
    pub value: String,
    /// Where it came from.
    pub traceback: String,
}

impl CellError {
    /// An error without a traceback.
    pub(crate) fn new(name: &str, value: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
            traceback: String::new(),
        }
    }
}

/// A display or the value of a cell, in the forms that the kernel offers.
#[derive(Debug, Default, Serialize)]
pub(crate) struct CellResult {
    is_main_result: bool,
    #[serde(flatten)]
    forms: BTreeMap<&'static str, Value>,
    extra: Map<String, Value>,
}

/// Form of a MIME type, and whether it is text.
fn form(mime: &str) -> Option<(&'static str, bool)> {
    Some(match mime {
        "text/plain" => ("text", true),
        "text/html" => ("html", true),
        "text/markdown" => ("markdown", true),
        "text/latex" => ("latex", true),
        "image/svg+xml" => ("svg", true),
        "image/png" => ("png", true),
        "image/jpeg" => ("jpeg", true),
        "application/pdf" => ("pdf", true),
        "application/javascript" => ("javascript", true),
        "application/json" => ("json", false),
        "e2b/data" => ("data", false),
        "e2b/chart" => ("chart", false),
        _ => return None,
    })
}

impl CellResult {
    fn new(is_main_result: bool, bundle: Map<String, Value>) -> Self {
        let mut result = Self {
            is_main_result,
            ..Self::default()
        };
        for (mime, value) in bundle {
            let Some((form, is_text)) = form(&mime) else {
                result.extra.insert(mime, value);
                continue;
            };
            let value = match value {
                Value::Array(lines) if is_text => Value::String(joined(&lines)),
                other => other,
            };
            let value = match value {
                Value::String(text) if form == "text" => Value::String(unquoted(text)),
                other => other,
            };
            result.forms.insert(form, value);
        }
        result
    }
}

/// Kernels may send text as a list of lines, as notebooks store it.
fn joined(lines: &[Value]) -> String {
    lines.iter().filter_map(Value::as_str).collect()
}

/// Removes one pair of equal quotes around a text.
fn unquoted(text: String) -> String {
    for quote in ['\'', '"'] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner {
            return inner.to_owned();
        }
    }
    text
}

impl Line {
    /// The line as it is sent.
    #[must_use]
    pub(crate) fn encode(&self) -> Bytes {
        // Strings, numbers and JSON values under string keys: writing them does not fail.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.into()
    }
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    name: String,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Bundle {
    #[serde(default)]
    data: Map<String, Value>,
}

#[derive(Deserialize)]
struct Input {
    execution_count: i64,
}

#[derive(Deserialize)]
struct State {
    execution_state: String,
}

/// What a failing cell's messages hold: the error message and the reply alike.
#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    ename: String,
    #[serde(default)]
    evalue: String,
    #[serde(default)]
    traceback: Vec<String>,
}

impl From<Failure> for CellError {
    fn from(failure: Failure) -> Self {
        Self {
            name: failure.ename,
            value: failure.evalue,
            traceback: failure.traceback.concat(),
        }
    }
}

/// What a published message means for its cell.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// A line for the client.
    Line(Line),
    /// The kernel is done with the request.
    Idle,
    /// Nothing that clients see.
    Nothing,
}

/// Reads a published message.
///
/// # Errors
/// Its content is not what its type promises.
pub(crate) fn read(message: &Message) -> Result<Meaning, WireError> {
    let line = match message.header.msg_type.as_str() {
        "status" => {
            let state: State = message.content()?;
            let idle = state.execution_state == "idle";
            return Ok(if idle {
                Meaning::Idle
            } else {
                Meaning::Nothing
            });
        }
        "execute_input" => {
            let input: Input = message.content()?;
            Line::NumberOfExecutions {
                execution_count: input.execution_count,
            }
        }
        "stream" => {
            let stream: Stream = message.content()?;
            let timestamp = message.header.date.clone().unwrap_or_default();
            let text = Text {
                text: stream.text,
                timestamp,
            };
            if stream.name == "stderr" {
                Line::Stderr(text)
            } else {
                Line::Stdout(text)
            }
        }
        kind @ ("display_data" | "execute_result") => {
            let bundle: Bundle = message.content()?;
            let is_main = kind == "execute_result";
            Line::Result(Box::new(CellResult::new(is_main, bundle.data)))
        }
        "error" => Line::Error(message.content::<Failure>()?.into()),
        _ => return Ok(Meaning::Nothing),
    };
    Ok(Meaning::Line(line))
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    status: String,
    #[serde(default)]
    payload: Vec<Payload>,
    #[serde(flatten)]
    failure: Failure,
}

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    source: String,
}

/// How a cell ended, as the reply to it tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Its failure, if any.
    pub failure: Option<CellError>,
    /// Whether the kernel is about to leave.
    pub exits: bool,
}

/// Reads the reply to a cell.
///
/// # Errors
/// Its content is not a reply's.
pub(crate) fn outcome(message: &Message) -> Result<Outcome, WireError> {
    let reply: Reply = message.content()?;
    let exits = reply
        .payload
        .iter()
        .any(|payload| payload.source == "ask_exit");
    let failure = match reply.status.as_str() {
        "ok" => None,
        "error" => Some(reply.failure.into()),
        _ => Some(CellError::new("ExecutionAborted", "Execution was aborted")),
    };
    Ok(Outcome { failure, exits })
}

/// Whether a published message prints a marker, whichever request it names.
pub(crate) fn prints(message: &Message, marker: &str) -> bool {
    message.header.msg_type == "stream"
        && message
            .content::<Stream>()
            .is_ok_and(|stream| stream.text.trim_end() == marker)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(kind: &str, content: &Value) -> Message {
        use crate::kernel::{Session, reply_frames};
        let frames = reply_frames("k", kind, "p", "i", content).unwrap();
        Session::new("k".into(), "c".into())
            .decode(&frames)
            .unwrap()
    }

    fn line(kind: &str, content: &Value) -> Value {
        let Meaning::Line(line) = read(&message(kind, content)).unwrap() else {
            panic!("no line");
        };
        let bytes = line.encode();
        assert_eq!(bytes.last(), Some(&b'\n'));
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn bundles_become_forms_and_extra() {
        let data = json!({
            "text/plain": "'it''s'", "text/html": ["<b>", "x</b>"], "image/png": "aGk=",
            "application/json": {"a": [1]}, "e2b/data": {"c": [2]}, "x/y": {"z": 1},
        });
        assert_eq!(
            line(
                "execute_result",
                &json!({"data": data, "metadata": {}, "execution_count": 1})
            ),
            json!({
                "type": "result", "is_main_result": true, "text": "it''s", "html": "<b>x</b>",
                "png": "aGk=", "json": {"a": [1]}, "data": {"c": [2]}, "extra": {"x/y": {"z": 1}},
            })
        );
        assert_eq!(
            line("display_data", &json!({"data": {"text/latex": "$x$"}})),
            json!({"type": "result", "is_main_result": false, "latex": "$x$", "extra": {}})
        );
    }

    #[test]
    fn only_one_pair_of_equal_quotes_goes() {
        for (text, expected) in [
            ("'a'", "a"),
            ("\"a\"", "a"),
            ("''a''", "'a'"),
            ("'a\"", "'a\""),
            ("'", "'"),
            ("''", ""),
        ] {
            assert_eq!(unquoted(text.to_owned()), expected);
        }
    }

    #[test]
    fn output_counts_and_errors_become_lines() {
        let out = line("stream", &json!({"name": "stdout", "text": "a\n"}));
        assert_eq!(
            (&out["type"], &out["text"]),
            (&json!("stdout"), &json!("a\n"))
        );
        assert!(out["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(
            line("stream", &json!({"name": "stderr", "text": ""}))["type"],
            "stderr"
        );
        assert_eq!(
            line("execute_input", &json!({"code": "", "execution_count": 7})),
            json!({"type": "number_of_executions", "execution_count": 7})
        );
        assert_eq!(
            line(
                "error",
                &json!({"ename": "E", "evalue": "v", "traceback": ["a", "b"]})
            ),
            json!({"type": "error", "name": "E", "value": "v", "traceback": "ab"})
        );
        assert!(matches!(
            read(&message("status", &json!({"execution_state": "idle"}))),
            Ok(Meaning::Idle)
        ));
        assert!(matches!(
            read(&message("comm_open", &json!({}))),
            Ok(Meaning::Nothing)
        ));
    }

    #[test]
    fn replies_tell_failures_and_exits() {
        let outcome = |content| outcome(&message("execute_reply", &content)).unwrap();
        let fine = outcome(json!({"status": "ok", "execution_count": 1, "payload": []}));
        assert_eq!(
            fine,
            Outcome {
                failure: None,
                exits: false
            }
        );
        let failed = outcome(json!({"status": "error", "ename": "E"}));
        assert_eq!(failed.failure.unwrap().name, "E");
        let aborted = CellError::new("ExecutionAborted", "Execution was aborted");
        assert_eq!(outcome(json!({"status": "aborted"})).failure, Some(aborted));
        let payload = json!([{"source": "ask_exit", "keepkernel": false}]);
        assert!(outcome(json!({"status": "ok", "payload": payload})).exits);
    }

    #[test]
    fn a_marker_is_all_that_a_message_prints() {
        let printed = |text| message("stream", &json!({"name": "stdout", "text": text}));
        assert!(prints(&printed("m1\n"), "m1"));
        assert!(!prints(&printed("m1 m2\n"), "m1"));
        assert!(!prints(
            &message("status", &json!({"execution_state": "idle"})),
            "m1"
        ));
    }
}
