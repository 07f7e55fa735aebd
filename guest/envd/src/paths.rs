//! How a path in a request becomes an absolute path, and the directories above it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::path::{Path, PathBuf};

use crate::users::User;

/// A path that can't be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `~name` was given.
    #[error("cannot expand user-specific home dir")]
    OtherHome,
    /// A NUL byte can't be part of a path.
    #[error("path contains a NUL byte")]
    Nul,
}

/// Makes `path` absolute: `~` is `home`, nothing is `workdir` or `home`, relative paths
/// start at `home`. Absolute paths stay as they are.
///
/// # Errors
/// The home of another user was asked for, or the path has a NUL byte.
pub fn resolve(path: &str, home: &str, workdir: Option<&str>) -> Result<String, PathError> {
    if path.contains('\0') {
        return Err(PathError::Nul);
    }
    if path.is_empty() {
        return Ok(workdir.unwrap_or(home).to_owned());
    }
    if let Some(rest) = path.strip_prefix('~') {
        if !rest.is_empty() && !rest.starts_with('/') {
            return Err(PathError::OtherHome);
        }
        return Ok(clean(&format!("{home}/{rest}")));
    }
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Ok(clean(&format!("{home}/{path}")))
}

/// Removes empty, `.` and `..` components of an absolute path, by text alone.
#[must_use]
pub fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The last component of a path, `/` for the root.
#[must_use]
pub fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed.rsplit('/').next().unwrap_or(trimmed),
    }
}

/// The directory that holds a path.
#[must_use]
pub fn parent(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(at) => trimmed[..at].to_owned(),
    }
}

/// A directory that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// Something else is in its place.
    #[error("path is a file: {0}")]
    NotDirectory(String),
    /// A level can't be looked at.
    #[error("failed to stat directory {path}")]
    Stat {
        /// The level.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A level can't be made.
    #[error("failed to create directory {path}")]
    Create {
        /// The level.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A new level can't be given to the user.
    #[error("failed to chown directory {path}")]
    Chown {
        /// The level.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DirsError {
    /// The system's error, if there is one.
    #[must_use]
    pub fn io(&self) -> Option<&io::Error> {
        match self {
            Self::NotDirectory(_) => None,
            Self::Stat { source, .. }
            | Self::Create { source, .. }
            | Self::Chown { source, .. } => Some(source),
        }
    }
}

/// Makes `path` and all missing levels above it, mode 0755, and gives each new level to
/// `user`. Losing a race against another maker is fine.
///
/// # Errors
/// A level is not a directory, or can't be made.
pub fn ensure_dirs(path: &Path, user: &User) -> Result<(), DirsError> {
    let shown = |path: &Path| path.display().to_string();
    let mut missing: Vec<PathBuf> = Vec::new();
    for level in path.ancestors() {
        if level.as_os_str().is_empty() {
            break;
        }
        match fs::metadata(level) {
            Ok(meta) if meta.is_dir() => break,
            Ok(_) => return Err(DirsError::NotDirectory(shown(level))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => missing.push(level.to_owned()),
            // The file is one of the levels above; the walk will name it.
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {}
            Err(source) => {
                let path = shown(level);
                return Err(DirsError::Stat { path, source });
            }
        }
    }
    for level in missing.iter().rev() {
        match fs::DirBuilder::new().mode(0o755).create(level) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if !fs::metadata(level).is_ok_and(|meta| meta.is_dir()) {
                    return Err(DirsError::NotDirectory(shown(level)));
                }
            }
            Err(source) => {
                let path = shown(level);
                return Err(DirsError::Create { path, source });
            }
        }
        chown(level, Some(user.uid), Some(user.gid)).map_err(|source| {
            let path = shown(level);
            DirsError::Chown { path, source }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_the_contract() {
        let resolve = |path, workdir| resolve(path, "/home/user", workdir).unwrap();
        assert_eq!(resolve("", None), "/home/user");
        assert_eq!(resolve("", Some("/code")), "/code");
        assert_eq!(resolve("~", Some("/code")), "/home/user");
        assert_eq!(resolve("~/a", None), "/home/user/a");
        assert_eq!(resolve("/tmp/../x//y", None), "/tmp/../x//y");
        assert_eq!(resolve("a/./b/../c", Some("/code")), "/home/user/a/c");
        assert_eq!(resolve("../../../x", None), "/x");
    }

    #[test]
    fn other_homes_are_refused() {
        assert_eq!(resolve("~bob/x", "/h", None), Err(PathError::OtherHome));
        assert_eq!(resolve("a\0b", "/h", None), Err(PathError::Nul));
    }

    #[test]
    fn names_and_parents() {
        assert_eq!(base_name("/a/b/"), "b");
        assert_eq!(base_name("/"), "/");
        assert_eq!(parent("/a/b"), "/a");
        assert_eq!(parent("/a"), "/");
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "").unwrap();
        let user = User {
            name: "u".into(),
            uid: 0,
            gid: 0,
            home: "/".into(),
        };
        let error = ensure_dirs(&file.join("a/b"), &user).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("path is a file: {}", file.display())
        );
    }

    proptest! {
        #[test]
        fn resolved_paths_are_absolute(path in ".{0,60}") {
            if let Ok(resolved) = resolve(&path, "/home/user", None) {
                prop_assert!(resolved.starts_with('/'));
            }
        }

        #[test]
        fn cleaning_twice_changes_nothing(path in "[a./]{0,30}") {
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once);
        }
    }
}
