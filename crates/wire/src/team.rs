//! Teams, people and keys. What the operator's own routes add to the API that clients know
//! is marked so.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use warren_types::{KeyScope, Role, TeamState};

use crate::UserRef;

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

/// What of a key or token is shown, for people to tell them apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mask {
    /// What all of its kind begin with.
    pub prefix: String,
    /// Characters after that.
    pub value_length: u32,
    /// The first of these.
    pub masked_value_prefix: String,
    /// The last of them.
    pub masked_value_suffix: String,
}

/// An API key, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TeamApiKey {
    /// Its id.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What is shown of its value.
    pub mask: Mask,
    /// When it was made.
    pub created_at: Timestamp,
    /// The person who made it.
    #[serde(default)]
    pub created_by: Option<UserRef>,
    /// When it was last used.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// What it may be used for; ours.
    pub scope: KeyScope,
    /// When it stops working; ours.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// An API key that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedTeamApiKey {
    /// The key in clear, shown this once.
    pub key: String,
    /// The rest.
    #[serde(flatten)]
    pub shown: TeamApiKey,
}

/// Body of `POST /api-keys`, `POST /access-tokens` and the administrator's routes alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewApiKey {
    /// What its owner calls it.
    pub name: String,
    /// What it may be used for; ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<KeyScope>,
    /// When it stops working; ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Body of `PATCH /api-keys/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// The new name.
    pub name: String,
}

/// An access token, without its value; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessToken {
    /// Its id.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What is shown of its value.
    pub mask: Mask,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last used.
    #[serde(default)]
    pub last_used: Option<Timestamp>,
    /// What it may be used for.
    pub scope: KeyScope,
    /// When it stops working.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// An access token that was just made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedAccessToken {
    /// The token in clear, shown this once.
    pub token: String,
    /// The rest.
    #[serde(flatten)]
    pub shown: AccessToken,
}

/// A team as the administrator sees it; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminTeam {
    /// Its id.
    #[serde(rename = "teamID")]
    pub team_id: String,
    /// What people call it.
    pub name: String,
    /// Namespace of its templates.
    pub slug: String,
    /// Sandboxes it may run at a time, where it differs from the server's default.
    #[serde(default)]
    pub max_sandboxes: Option<u32>,
    /// Whether it is served.
    pub state: TeamState,
    /// Whether it is the one that a fresh server has.
    pub is_default: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// Sandboxes that have not ended.
    pub sandboxes: u64,
    /// Templates, snapshots included.
    pub templates: u64,
    /// Volumes.
    pub volumes: u64,
}

/// Body of `POST /admin/teams`; ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewTeam {
    /// What people call it.
    pub name: String,
    /// Namespace of its templates; made from the name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Sandboxes it may run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sandboxes: Option<u32>,
}

/// Body of `PATCH /admin/teams/{team}`; what is absent stays. Ours.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminTeamChange {
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Sandboxes it may run at a time; 0 for the server's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sandboxes: Option<u32>,
    /// Whether it is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<TeamState>,
}

/// A person's place in a team; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserTeam {
    /// The team's id.
    #[serde(rename = "teamID")]
    pub team_id: String,
    /// Its slug.
    pub slug: String,
    /// What the person may do in it.
    pub role: Role,
    /// Whether it is meant when none is named.
    pub is_default: bool,
}

/// A person as the administrator sees them; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminUser {
    /// Their id.
    pub id: String,
    /// Their address.
    pub email: String,
    /// When they were added.
    pub created_at: Timestamp,
    /// Their teams, the default one first.
    pub teams: Vec<UserTeam>,
}

/// Body of `POST /admin/users`; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewUser {
    /// Their address.
    pub email: String,
}

/// Body of `PUT /admin/teams/{team}/members/{user}`; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewMember {
    /// What the person may do in the team.
    pub role: Role,
    /// Make it the one meant when none is named.
    #[serde(default)]
    pub make_default: bool,
}

/// An element of `GET /admin/teams/{team}/members`; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TeamMember {
    /// The person.
    pub id: String,
    /// Their address.
    pub email: String,
    /// What they may do.
    pub role: Role,
}

/// Answer of `POST /admin/teams/{team}/sandboxes/kill`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KilledSandboxes {
    /// Ended.
    pub killed_count: u64,
    /// Still there.
    pub failed_count: u64,
}

/// An entry of the audit trail; ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// Its id.
    pub id: String,
    /// When.
    pub timestamp: Timestamp,
    /// The team that it concerns.
    #[serde(rename = "teamID", default)]
    pub team_id: Option<String>,
    /// `key`, `user`, `admin`, `local`, `system` or `volume` (a volume's token that does not
    /// say whom it was made for).
    pub actor: String,
    /// Id of the key or person.
    #[serde(rename = "actorID", default)]
    pub actor_id: Option<String>,
    /// What was done.
    pub action: String,
    /// To what.
    #[serde(default)]
    pub target: Option<String>,
    /// Status of the answer, where there was one.
    #[serde(default)]
    pub status: Option<u16>,
    /// Why it was refused.
    #[serde(default)]
    pub reason: Option<String>,
    /// The id that the answer bore.
    #[serde(rename = "requestID", default)]
    pub request_id: Option<String>,
    /// The address that the request came from.
    #[serde(default)]
    pub origin: Option<String>,
    /// Further facts.
    #[serde(default)]
    pub data: serde_json::Value,
}

/// Something that befell a sandbox, as an explanation tells it; ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedEvent {
    /// When.
    pub timestamp: Timestamp,
    /// What: the name of an event.
    pub kind: String,
}

/// Answer of `GET /explain`, `GET /explain/{id}` and `GET /admin/explain/{id}`; ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// Sentences that say it all, the first the most important.
    pub summary: Vec<String>,
    /// What befell the sandbox, oldest first.
    pub events: Vec<ExplainedEvent>,
    /// Who did or wanted what with it, oldest first.
    pub trail: Vec<AuditEntry>,
    /// The last lines of its log.
    pub log: Vec<crate::LogRecord>,
}
