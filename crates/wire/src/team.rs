//! Teams.

use serde::{Deserialize, Serialize};

/// An element of `GET /teams`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Team {
    /// Its id.
    #[serde(rename = "teamID")]
    pub team_id: String,
    /// What people call it.
    pub name: String,
    /// A fresh key, in clear.
    pub api_key: String,
    /// Whether it is meant when none is named.
    pub is_default: bool,
}
