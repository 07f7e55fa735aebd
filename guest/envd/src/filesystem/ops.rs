//! Calls that look at or change entries, as plain blocking functions.

use std::fs;
use std::io;
use std::path::Path;

use warren_connect::filesystem::EntryInfo;
use warren_connect::{Code, Error};

use super::entry::describe;
use crate::paths::{ensure_dirs, parent};
use crate::users::{User, UserDb};

/// Describes one entry.
pub(crate) fn stat(path: &str, users: &UserDb) -> Result<EntryInfo, Error> {
    describe(path, users).map_err(|e| {
        if is_missing(&e) {
            Error::new(Code::NotFound, format!("file not found: {path}: {e}"))
        } else {
            Error::new(Code::Internal, format!("error getting file info: {e}"))
        }
    })
}

/// Makes a directory with its parents.
pub(crate) fn make_dir(path: &str, user: &User, users: &UserDb) -> Result<EntryInfo, Error> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let message = format!("directory already exists: {path}");
            return Err(Error::new(Code::AlreadyExists, message));
        }
        Ok(_) => {
            let message = format!("path already exists but it is not a directory: {path}");
            return Err(Error::new(Code::InvalidArgument, message));
        }
        Err(e) if is_missing(&e) => {}
        Err(e) => {
            let message = format!("error getting file info: {e}");
            return Err(Error::new(Code::Internal, message));
        }
    }
    ensure_dirs(Path::new(path), user).map_err(|e| dirs_error(&e))?;
    stat(path, users)
}

/// Renames an entry.
pub(crate) fn rename(
    source: &str,
    destination: &str,
    user: &User,
    users: &UserDb,
) -> Result<EntryInfo, Error> {
    ensure_dirs(Path::new(&parent(destination)), user).map_err(|e| dirs_error(&e))?;
    fs::rename(source, destination).map_err(|e| {
        if is_missing(&e) && is_missing_entry(source) {
            Error::new(Code::NotFound, format!("source file not found: {e}"))
        } else {
            Error::new(Code::Internal, format!("error renaming: {e}"))
        }
    })?;
    stat(destination, users)
}

/// Removes an entry with all it contains. A missing one is fine.
pub(crate) fn remove(path: &str) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match removed {
        Err(e) if !is_missing(&e) => Err(Error::new(
            Code::Internal,
            format!("error removing file or directory: {e}"),
        )),
        _ => Ok(()),
    }
}

fn dirs_error(error: &crate::paths::DirsError) -> Error {
    let text = warren_service::Chain(error).to_string();
    match error {
        crate::paths::DirsError::NotDirectory(_) => Error::new(Code::InvalidArgument, text),
        _ => Error::new(Code::Internal, text),
    }
}

fn is_missing_entry(path: &str) -> bool {
    fs::symlink_metadata(path).is_err_and(|e| is_missing(&e))
}

/// Missing itself, or below something that is no directory.
pub(crate) fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_what_is_not_there_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(at("a/b")).unwrap();
        remove(&at("a")).unwrap();
        remove(&at("a")).unwrap();
        assert_eq!(
            stat(&at("a"), &UserDb::default()).unwrap_err().code,
            Code::NotFound
        );
    }
}
