//! Failures.

use std::io;
use std::path::PathBuf;

use http::StatusCode;
use warren_connect::Code;

/// Why a call failed. Each variant names the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration holds a URL that is none, or not of HTTP.
    #[error("use {url:?} as the URL of a server")]
    Url {
        /// The text.
        url: String,
    },
    /// The environment holds no API key.
    #[error("E2B_API_KEY is not set")]
    NoKey,
    /// The HTTP client could not be made.
    #[error("set up connections")]
    Setup(#[source] reqwest::Error),
    /// The server was not reached, or broke off.
    #[error("{operation}")]
    Transport {
        /// The call.
        operation: &'static str,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("{operation}: {message} (status {status})")]
    Refused {
        /// The call.
        operation: &'static str,
        /// Its status.
        status: StatusCode,
        /// Its message.
        message: String,
    },
    /// The agent refused.
    #[error("{operation}")]
    Agent {
        /// The call.
        operation: &'static str,
        /// Its code and message.
        #[source]
        source: warren_connect::Error,
    },
    /// The answer is not what the API promises.
    #[error("{operation}: the answer can't be read")]
    Answer {
        /// The call.
        operation: &'static str,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// A stream ended before its last message.
    #[error("{operation}: the stream was cut")]
    Cut {
        /// The call.
        operation: &'static str,
    },
    /// What was received can't be written where it was asked for.
    #[error("write what was received")]
    Output(#[source] io::Error),
    /// A file of a template can't be read or packed.
    #[error("read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A copy names files that are not there.
    #[error("no files found in {context} for {pattern:?}", context = context.display())]
    NoFiles {
        /// The source of the copy.
        pattern: String,
        /// The context directory.
        context: PathBuf,
    },
    /// A copy names files outside the context directory.
    #[error("{pattern:?} leads out of the context directory")]
    Outside {
        /// The source of the copy.
        pattern: String,
    },
    /// A pattern for files is malformed.
    #[error("use {pattern:?} as a pattern for files")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// The cause.
        #[source]
        source: globset::Error,
    },
    /// A Dockerfile can't be converted.
    #[error("Dockerfile line {line}: {message}")]
    Dockerfile {
        /// The line, from 1.
        line: usize,
        /// Why.
        message: String,
    },
    /// A build failed.
    #[error("{message}")]
    Build {
        /// Which step: its number, `base` or `finalize`.
        step: Option<String>,
        /// Why.
        message: String,
    },
    /// More came back than this client takes at once.
    #[error("{operation}: the answer exceeds {limit} bytes")]
    TooLong {
        /// The call.
        operation: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
}

impl Error {
    /// Whether the subject of the call does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Refused { status, .. } => *status == StatusCode::NOT_FOUND,
            Self::Agent { source, .. } => source.code == Code::NotFound,
            _ => false,
        }
    }
}
