//! JSON-RPC as MCP uses it: what has to be known of a message to hand it on.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A method that is not there.
pub(crate) const METHOD_NOT_FOUND: i32 = -32601;
/// Parameters that make no sense.
pub(crate) const INVALID_PARAMS: i32 = -32602;
/// No request at all.
pub(crate) const INVALID_REQUEST: i32 = -32600;
/// A server that is gone.
pub(crate) const SERVER_GONE: i32 = -32000;

/// A message, whichever kind.
#[derive(Debug, Deserialize)]
pub(crate) struct Message {
    #[serde(default)]
    pub(crate) id: Option<Value>,
    #[serde(default)]
    pub(crate) method: Option<String>,
    #[serde(default)]
    pub(crate) params: Option<Value>,
    #[serde(default)]
    pub(crate) result: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) error: Option<Box<RawValue>>,
}

/// What a request comes to, as it came.
#[derive(Debug)]
pub(crate) enum Answer {
    Result(Box<RawValue>),
    Error(Box<RawValue>),
}

impl Answer {
    pub(crate) fn result(value: &Value) -> Self {
        Self::Result(raw(value))
    }

    pub(crate) fn error(code: i32, message: impl Into<String>) -> Self {
        Self::Error(raw(&json!({ "code": code, "message": message.into() })))
    }

    /// The whole message, for the request of this id.
    pub(crate) fn into_text(self, id: &Value) -> Vec<u8> {
        #[derive(Serialize)]
        struct Reply<'a> {
            jsonrpc: &'a str,
            id: &'a Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            result: Option<&'a RawValue>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a RawValue>,
        }
        let (result, error) = match &self {
            Self::Result(value) => (Some(&**value), None),
            Self::Error(value) => (None, Some(&**value)),
        };
        let reply = Reply {
            jsonrpc: "2.0",
            id,
            result,
            error,
        };
        serde_json::to_vec(&reply).expect("JSON of JSON")
    }
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("a value is JSON")
}

/// A request or, without an id, a notification, as a line.
pub(crate) fn line(id: Option<u64>, method: &str, params: Option<&Value>) -> Vec<u8> {
    let mut message = json!({ "jsonrpc": "2.0", "method": method });
    if let Some(id) = id {
        message["id"] = id.into();
    }
    if let Some(params) = params {
        message["params"] = params.clone();
    }
    let mut text = message.to_string().into_bytes();
    text.push(b'\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_goes_on_as_it_came() {
        let text = r#"{"id":7,"result":{"z":1.0,"a":12345678901234567890123}}"#;
        let message: Message = serde_json::from_str(text).unwrap();
        let answer = Answer::Result(message.result.unwrap()).into_text(&json!("x"));
        let expected =
            r#"{"jsonrpc":"2.0","id":"x","result":{"z":1.0,"a":12345678901234567890123}}"#;
        assert_eq!(String::from_utf8(answer).unwrap(), expected);
    }

    #[test]
    fn a_line_is_one_line() {
        let params = json!({ "text": "a\nb" });
        let line = line(Some(1), "m", Some(&params));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}
