//! Paths in a volume.

use std::fmt;

use crate::VolumeError;

/// What the kernel takes in one call.
const MAX_LENGTH: usize = 4095;

/// A normalised absolute path: no empty parts, no `.`, and `..` never above the root.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VolumePath(Vec<String>);

impl VolumePath {
    /// Reads a path as clients write it; a relative one starts at the root.
    ///
    /// # Errors
    /// [`VolumeError::Invalid`] for an empty or too long path, or one with a zero byte.
    pub fn parse(text: &str) -> Result<Self, VolumeError> {
        if text.is_empty() {
            return Err(VolumeError::Invalid("path must not be empty"));
        }
        if text.len() > MAX_LENGTH {
            return Err(VolumeError::Invalid("path is too long"));
        }
        if text.contains('\0') {
            return Err(VolumeError::Invalid("path must not contain a zero byte"));
        }
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part.to_owned()),
            }
        }
        Ok(Self(parts))
    }

    /// Whether it is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Its parts, from the root on.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The path relative to the root, for calls that start there.
    pub(crate) fn relative(&self) -> String {
        if self.is_root() {
            ".".to_owned()
        } else {
            self.0.join("/")
        }
    }

    /// Its directory and its last part; `None` for the root.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        let (last, parents) = self.0.split_last()?;
        Some((Self(parents.to_vec()), last))
    }

    /// The path of a child.
    pub(crate) fn child(&self, name: &str) -> Self {
        let mut parts = self.0.clone();
        parts.push(name.to_owned());
        Self(parts)
    }
}

impl fmt::Display for VolumePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", self.0.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_normalised_and_stay_inside() {
        for (given, meant) in [
            ("/", "/"),
            ("a/b", "/a/b"),
            ("//a/./b/", "/a/b"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("/a/../..", "/"),
        ] {
            assert_eq!(VolumePath::parse(given).unwrap().to_string(), meant);
        }
        assert!(VolumePath::parse("").is_err());
        assert!(VolumePath::parse("a\0b").is_err());
        assert!(VolumePath::parse(&"x".repeat(5000)).is_err());
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "[a./]{1,30}") {
            let once = VolumePath::parse(&text).unwrap();
            prop_assert!(once.parts().iter().all(|part| part != ".." && part != "."));
            prop_assert_eq!(VolumePath::parse(&once.to_string()).unwrap(), once);
        }
    }
}
