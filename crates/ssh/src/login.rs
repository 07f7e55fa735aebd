//! The user name of a connection: which sandbox, and as whom there.

use warren_types::SandboxId;

/// Longest name of a user in a sandbox.
const MAX_USER: usize = 32;

/// What a user name asks for: `SANDBOX`, or `SANDBOX+USER`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Login {
    pub(crate) sandbox: SandboxId,
    /// The sandbox's default user if absent.
    pub(crate) user: Option<String>,
}

/// The name is no such thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the user name must be the id of a sandbox, or ID+USER for another user in it")]
pub(crate) struct BadLogin;

impl Login {
    pub(crate) fn parse(name: &str) -> Result<Self, BadLogin> {
        let (id, user) = match name.split_once('+') {
            Some((id, user)) => (id, Some(user)),
            None => (name, None),
        };
        let sandbox = SandboxId::from_client(id).map_err(|_| BadLogin)?;
        let is_name = |user: &str| {
            !user.is_empty()
                && user.len() <= MAX_USER
                && user
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        match user {
            Some(user) if !is_name(user) => Err(BadLogin),
            user => Ok(Self {
                sandbox,
                user: user.map(str::to_owned),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_sandbox_with_or_without_a_user() {
        let plain = Login::parse("i1abc").unwrap();
        assert_eq!((plain.sandbox.as_str(), plain.user), ("i1abc", None));
        let root = Login::parse("i1abc+root").unwrap();
        assert_eq!(root.user.as_deref(), Some("root"));
        for bad in ["", "Root", "i1abc+", "i1abc+a:b", "i1abc+a b", "../x"] {
            assert_eq!(Login::parse(bad), Err(BadLogin), "{bad}");
        }
    }
}
