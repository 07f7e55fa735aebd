//! Error bodies.

use serde::{Deserialize, Serialize};

/// Body of every answer that is no success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The HTTP status, as a number.
    pub code: u16,
    /// Text for people.
    pub message: String,
    /// Reason for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_code: Option<String>,
}

/// The same for the volume content API, whose code is a word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeContentErrorBody {
    /// Reason for programs.
    pub code: String,
    /// Text for people.
    pub message: String,
}
