//! Identifiers as newtypes, so that one kind can't be passed for another.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A sandbox id holds something else than `[a-z0-9]`, or is empty or too long.
    #[error("invalid sandbox id")]
    Sandbox,
    /// A template id holds something else than `[a-z0-9]`, or is empty or too long.
    #[error("invalid template id")]
    Template,
    /// Not a UUID.
    #[error("invalid uuid")]
    Uuid,
}

/// A sandbox id and its port must fit one DNS label of 63 characters.
const MAX_LEN: usize = 48;
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

fn random_base36(len: usize) -> String {
    let mut rng = rand::rng();
    (0..len)
        .map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]))
        .collect()
}

fn is_base36(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_LEN
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

macro_rules! base36_id {
    ($(#[$doc:meta])* $name:ident, $error:ident, $prefix:literal, $random:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Makes a fresh random identifier.
            #[must_use]
            pub fn random() -> Self {
                Self(format!("{}{}", $prefix, random_base36($random)))
            }

            /// The identifier as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_base36(text) { Ok(Self(text.to_owned())) } else { Err(IdError::$error) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                if is_base36(&text) { Ok(Self(text)) } else { Err(IdError::$error) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

base36_id!(
    /// A sandbox: `i` and 20 characters of `[a-z0-9]`. Fits a DNS label together with a port.
    SandboxId, Sandbox, "i", 20
);
base36_id!(
    /// A template: 20 characters of `[a-z0-9]`.
    TemplateId, Template, "", 20
);

impl SandboxId {
    /// Parses the id as clients send it: `ID`, or `ID-CLIENTID` from old ones, whose
    /// second part is ignored.
    ///
    /// # Errors
    /// [`IdError::Sandbox`] for more than two parts or characters outside `[a-z0-9]`.
    pub fn from_client(text: &str) -> Result<Self, IdError> {
        match text.split_once('-') {
            None => text.parse(),
            Some((id, client)) if is_base36(client) => id.parse(),
            Some(_) => Err(IdError::Sandbox),
        }
    }
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a fresh random identifier (UUID version 4).
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The identifier as a UUID.
            #[must_use]
            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Uuid::parse_str(text).map(Self).map_err(|_| IdError::Uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id!(
    /// One build of a template.
    BuildId
);
uuid_id!(
    /// A team: the owner of keys, sandboxes and templates.
    TeamId
);
uuid_id!(
    /// An API key, as it is named in routes; says nothing of its value.
    ApiKeyId
);
uuid_id!(
    /// An access token of a person, as it is named in routes; says nothing of its value.
    AccessTokenId
);
uuid_id!(
    /// An entry of the audit trail.
    AuditId
);
uuid_id!(
    /// A volume: durable storage that sandboxes mount.
    VolumeId
);
uuid_id!(
    /// A lifecycle event.
    EventId
);
uuid_id!(
    /// One run of a sandbox, from its start or resume to its pause or end.
    RunId
);
uuid_id!(
    /// An address that a team wants events delivered to.
    WebhookId
);
uuid_id!(
    /// The delivery of one event to one webhook, with all its attempts.
    DeliveryId
);
uuid_id!(
    /// A public key of SSH clients.
    SshKeyId
);
uuid_id!(
    /// A person: the owner of access tokens, member of teams.
    UserId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_sandbox_id_is_accepted_back() {
        let id = SandboxId::random();
        assert_eq!(id.as_str().len(), 21);
        assert!(id.as_str().starts_with('i'));
        assert_eq!(id.as_str().parse::<SandboxId>(), Ok(id));
    }

    #[test]
    fn the_client_suffix_of_old_clients_is_cut() {
        assert_eq!(
            SandboxId::from_client("iabc-6532622b").unwrap().as_str(),
            "iabc"
        );
        for bad in ["a-b-c", "I_D", "", "-x", "x-", "a.b", "é"] {
            assert_eq!(SandboxId::from_client(bad), Err(IdError::Sandbox), "{bad}");
        }
    }

    #[test]
    fn deserialising_refuses_a_malformed_id() {
        let quoted: Result<SandboxId, _> = SandboxId::try_from("../etc".to_owned());
        assert_eq!(quoted, Err(IdError::Sandbox));
    }
}
