//! What teams, people and keys may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A text that names none of the known words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not one of {known}")]
pub struct UnknownWord {
    /// The text.
    pub text: String,
    /// The words that there are.
    pub known: &'static str,
}

macro_rules! words {
    (
        $(#[$doc:meta])* $name:ident, $known:literal,
        { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum $name {
            $($(#[$variant_doc])* $variant),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the database and on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                let known = Self::ALL.iter().find(|one| one.as_str() == text);
                known.copied().ok_or_else(|| UnknownWord {
                    text: text.to_owned(),
                    known: $known,
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = UnknownWord;

            fn try_from(text: String) -> Result<Self, UnknownWord> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(one: $name) -> Self {
                one.as_str().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words!(
    /// What a key or a token may be used for.
    KeyScope, "full, read",
    {
        /// Everything that its owner may do.
        Full = "full",
        /// Reading only: nothing is changed, and no secret of a sandbox or volume is told.
        Read = "read",
    }
);
words!(
    /// What a person may do in a team.
    Role, "admin, member, viewer",
    {
        /// Everything, the keys of others included.
        Admin = "admin",
        /// Everything but keys that others made.
        Member = "member",
        /// Reading only.
        Viewer = "viewer",
    }
);
words!(
    /// Whether a team is served.
    TeamState, "active, blocked, banned",
    {
        /// It is.
        Active = "active",
        /// It may read and delete what it has, nothing else.
        Blocked = "blocked",
        /// It is not.
        Banned = "banned",
    }
);

impl Role {
    /// The most that a key made by such a person may do.
    #[must_use]
    pub fn scope(self) -> KeyScope {
        match self {
            Self::Admin | Self::Member => KeyScope::Full,
            Self::Viewer => KeyScope::Read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        let error = "root".parse::<KeyScope>().unwrap_err();
        assert_eq!(error.to_string(), "\"root\" is not one of full, read");
    }

    #[test]
    fn a_viewer_makes_no_key_that_can_change_something() {
        assert_eq!(Role::Viewer.scope(), KeyScope::Read);
    }
}
