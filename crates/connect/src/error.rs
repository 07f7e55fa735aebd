//! Error codes and their two wire forms.

use std::fmt;

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Why a call failed, in the protocol's vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// The caller gave up.
    Canceled,
    /// Nothing more is known.
    Unknown,
    /// The request makes no sense.
    InvalidArgument,
    /// The time limit passed.
    DeadlineExceeded,
    /// The subject does not exist.
    NotFound,
    /// The subject exists already.
    AlreadyExists,
    /// The caller may not.
    PermissionDenied,
    /// Some limit is reached.
    ResourceExhausted,
    /// The system is not in the state that the call needs.
    FailedPrecondition,
    /// A concurrent change got in the way.
    Aborted,
    /// Past the valid range.
    OutOfRange,
    /// The call is not supported.
    Unimplemented,
    /// The server failed.
    Internal,
    /// Try again later.
    Unavailable,
    /// Data is lost.
    DataLoss,
    /// The caller is not known.
    Unauthenticated,
}

/// Each code with its name and HTTP status.
const CODES: [(Code, &str, u16); 16] = [
    (Code::Canceled, "canceled", 499),
    (Code::Unknown, "unknown", 500),
    (Code::InvalidArgument, "invalid_argument", 400),
    (Code::DeadlineExceeded, "deadline_exceeded", 504),
    (Code::NotFound, "not_found", 404),
    (Code::AlreadyExists, "already_exists", 409),
    (Code::PermissionDenied, "permission_denied", 403),
    (Code::ResourceExhausted, "resource_exhausted", 429),
    (Code::FailedPrecondition, "failed_precondition", 400),
    (Code::Aborted, "aborted", 409),
    (Code::OutOfRange, "out_of_range", 400),
    (Code::Unimplemented, "unimplemented", 501),
    (Code::Internal, "internal", 500),
    (Code::Unavailable, "unavailable", 503),
    (Code::DataLoss, "data_loss", 500),
    (Code::Unauthenticated, "unauthenticated", 401),
];

impl Code {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The HTTP status of a unary call that fails so.
    #[must_use]
    pub fn status(self) -> StatusCode {
        StatusCode::from_u16(self.row().2).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Finds a code by its name on the wire.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        CODES
            .iter()
            .find(|row| row.1 == name)
            .map(|(code, _, _)| *code)
    }

    /// The code that a client assumes for an answer that is not of the protocol.
    #[must_use]
    pub fn from_status(status: StatusCode) -> Self {
        match status.as_u16() {
            400 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::AlreadyExists,
            413 | 429 => Self::ResourceExhausted,
            499 => Self::Canceled,
            500 => Self::Internal,
            501 | 505 => Self::Unimplemented,
            502 | 503 => Self::Unavailable,
            504 => Self::DeadlineExceeded,
            _ => Self::Unknown,
        }
    }

    fn row(self) -> &'static (Code, &'static str, u16) {
        let unknown = &CODES[1];
        CODES.iter().find(|row| row.0 == self).unwrap_or(unknown)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed call: a code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What happened.
    pub message: String,
}

#[derive(Serialize, Deserialize)]
struct WireError {
    code: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    message: String,
}

#[derive(Serialize, Deserialize)]
pub(crate) struct EndStream {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<WireError>,
}

impl Error {
    /// Makes an error.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// The JSON body of a unary answer.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        json(&self.wire())
    }

    /// Reads the JSON body of a unary answer; `None` if it is none of the protocol.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Self> {
        Self::from_wire(serde_json::from_slice(body).ok()?)
    }

    fn wire(&self) -> WireError {
        WireError {
            code: self.code.name().to_owned(),
            message: self.message.clone(),
        }
    }

    fn from_wire(wire: WireError) -> Option<Self> {
        Some(Self::new(Code::from_name(&wire.code)?, wire.message))
    }
}

/// The payload that ends a stream.
pub(crate) fn end_payload(result: Result<(), &Error>) -> Vec<u8> {
    json(&EndStream {
        error: result.err().map(Error::wire),
    })
}

/// Reads the payload that ends a stream.
pub(crate) fn parse_end(payload: &[u8]) -> Result<(), Error> {
    let malformed = || Error::new(Code::Unknown, "malformed end of stream");
    let end: EndStream = serde_json::from_slice(payload).map_err(|_| malformed())?;
    match end.error {
        None => Ok(()),
        Some(wire) => Err(Error::from_wire(wire).unwrap_or_else(malformed)),
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings and structs only: writing them to memory has no way to fail.
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_its_name() {
        for (code, name, _) in CODES {
            assert_eq!(Code::from_name(name), Some(code));
        }
        assert_eq!(Code::Canceled.status().as_u16(), 499);
        assert_eq!(Code::from_name("nonsense"), None);
    }

    #[test]
    fn both_forms_round_trip() {
        let error = Error::new(Code::NotFound, "path \"x\" not found");
        assert_eq!(Error::from_json(&error.to_json()), Some(error.clone()));
        assert_eq!(parse_end(&end_payload(Err(&error))), Err(error));
        assert_eq!(end_payload(Ok(())), b"{}");
        assert_eq!(parse_end(b"{}"), Ok(()));
    }
}
