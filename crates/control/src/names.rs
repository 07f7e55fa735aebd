//! Names of templates: `[namespace/]alias[:tag]`.

use std::fmt;

use uuid::Uuid;
use warren_types::BuildId;

/// Tag of a reference that names none.
pub(crate) const DEFAULT_TAG: &str = "default";
/// Longest reference that is looked at.
const MAX_LEN: usize = 512;

/// Why a text is no reference to a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// A bad alias.
    #[error("invalid template ID: {0}")]
    Alias(String),
    /// A bad namespace.
    #[error("invalid namespace: {0}")]
    Namespace(String),
    /// A bad tag.
    #[error("invalid tag: {0}")]
    Tag(String),
    /// Too long to be a name.
    #[error("longer than {MAX_LEN} characters")]
    TooLong,
}

/// Which build of a template.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Version {
    /// The newest ready one of this tag.
    Tag(String),
    /// This one.
    Build(BuildId),
}

/// A reference to a template, and to one of its builds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TemplateRef {
    /// Slug of a team, if one is named.
    pub namespace: Option<String>,
    /// The name, or a template id.
    pub alias: String,
    /// The tag or build, if one is named; `default` counts as none.
    pub version: Option<Version>,
}

impl TemplateRef {
    /// Reads a reference. Parts are trimmed and lower-cased.
    ///
    /// # Errors
    /// [`ReferenceError`] naming the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        if text.len() > MAX_LEN {
            return Err(ReferenceError::TooLong);
        }
        let (name, tag) = match text.split_once(':') {
            Some((name, tag)) => (name, Some(normal(tag))),
            None => (text, None),
        };
        let (namespace, alias) = match name.split_once('/') {
            Some((namespace, alias)) => (Some(normal(namespace)), normal(alias)),
            None => (None, normal(name)),
        };
        if let Some(namespace) = &namespace
            && !is_name(namespace)
        {
            return Err(ReferenceError::Namespace(namespace.clone()));
        }
        if !is_name(&alias) {
            return Err(ReferenceError::Alias(alias));
        }
        let version = match tag {
            None => None,
            Some(tag) if !is_tag(&tag) => return Err(ReferenceError::Tag(tag)),
            Some(tag) if tag == DEFAULT_TAG => None,
            Some(tag) => Some(match Uuid::parse_str(&tag) {
                Ok(build) => Version::Build(build.into()),
                Err(_) => Version::Tag(tag),
            }),
        };
        Ok(Self {
            namespace,
            alias,
            version,
        })
    }

    /// The reference without its tag.
    #[must_use]
    pub fn name(&self) -> String {
        qualified(self.namespace.as_deref().unwrap_or_default(), &self.alias)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Build(build) => build.fmt(f),
        }
    }
}

/// `namespace/alias`, or the alias alone in the global namespace.
pub(crate) fn qualified(namespace: &str, alias: &str) -> String {
    if namespace.is_empty() {
        alias.to_owned()
    } else {
        format!("{namespace}/{alias}")
    }
}

pub(crate) fn normal(part: &str) -> String {
    part.trim().to_lowercase()
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

pub(crate) fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(namespace: Option<&str>, alias: &str, version: Option<Version>) -> TemplateRef {
        TemplateRef {
            namespace: namespace.map(str::to_owned),
            alias: alias.to_owned(),
            version,
        }
    }

    #[test]
    fn references_are_normalised() {
        let tag = |tag: &str| Some(Version::Tag(tag.to_owned()));
        for (text, expected) in [
            ("base", parsed(None, "base", None)),
            (" Base ", parsed(None, "base", None)),
            ("base:Default", parsed(None, "base", None)),
            ("Team/X:V1.0", parsed(Some("team"), "x", tag("v1.0"))),
        ] {
            assert_eq!(TemplateRef::parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_uuid_in_the_tag_is_a_build() {
        let build = BuildId::random();
        let text = format!("x:{build}");
        assert_eq!(
            TemplateRef::parse(&text).unwrap().version,
            Some(Version::Build(build))
        );
    }

    #[test]
    fn malformed_references_name_the_part() {
        use ReferenceError as E;
        for (text, expected) in [
            ("", E::Alias(String::new())),
            ("x:", E::Tag(String::new())),
            ("/x", E::Namespace(String::new())),
            ("a/b/c", E::Alias("b/c".to_owned())),
            ("a b", E::Alias("a b".to_owned())),
            ("x:a:b", E::Tag("a:b".to_owned())),
            ("n.s/x", E::Namespace("n.s".to_owned())),
        ] {
            assert_eq!(TemplateRef::parse(text), Err(expected), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_reads_the_same_again(text in ".{0,40}") {
            if let Ok(read) = TemplateRef::parse(&text) {
                let again = match &read.version {
                    None => read.name(),
                    Some(version) => format!("{}:{version}", read.name()),
                };
                prop_assert_eq!(TemplateRef::parse(&again), Ok(read));
            }
        }
    }
}
