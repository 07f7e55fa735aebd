//! SSH: public keys, and how the server is reached.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Body of `POST /ssh-keys`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSshKey {
    /// A line of a public key file of OpenSSH.
    pub public_key: String,
    /// What to call it; the key's comment if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A public key of a team.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshKey {
    /// Its id.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// What it is called.
    pub name: String,
    /// Kind and key.
    pub public_key: String,
    /// `SHA256:` and the digest in base64.
    pub fingerprint: String,
    /// When it was added.
    pub created_at: Timestamp,
    /// When it last let somebody in.
    #[serde(default)]
    pub last_used_at: Option<Timestamp>,
}

/// Answer to `GET /ssh`: where the server speaks SSH.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SshServer {
    /// Port; the host is that of the API.
    pub port: u16,
    /// Public host key: kind and key.
    pub host_key: String,
    /// `SHA256:` and the digest of the host key in base64.
    pub fingerprint: String,
}
