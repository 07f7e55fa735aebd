//! The start command of a template.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The start command of a template and how to tell that it is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartCommand {
    /// Shell text, run once and left running; `None` starts nothing.
    pub command: Option<String>,
    /// Shell text, run again and again until it succeeds.
    pub ready: String,
    /// User of both.
    pub user: String,
    /// Directory of both; the user's home if unset.
    pub workdir: Option<String>,
    /// Variables of both.
    pub env: BTreeMap<String, String>,
    /// Seconds until an unready sandbox counts as failed.
    pub ready_timeout_secs: u64,
}
