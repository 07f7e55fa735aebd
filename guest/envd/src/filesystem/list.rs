//! Listings.

use std::fs;
use std::io;

use warren_connect::filesystem::EntryInfo;
use warren_connect::{Code, Error};

use super::entry::describe;
use crate::users::UserDb;

/// Lists the directory `path` to `depth` levels.
///
/// # Errors
/// As the contract of `ListDir` has it.
pub(crate) fn list(path: &str, depth: u32, users: &UserDb) -> Result<Vec<EntryInfo>, Error> {
    let root = fs::canonicalize(path).map_err(|e| root_error(path, &e))?;
    let meta = fs::metadata(&root).map_err(|e| root_error(path, &e))?;
    if !meta.is_dir() {
        let message = format!("path is not a directory: {path}");
        return Err(Error::new(Code::InvalidArgument, message));
    }
    let mut entries = Vec::new();
    walk(
        path.trim_end_matches('/'),
        depth.max(1),
        users,
        &mut entries,
    )
    .map_err(|e| {
        Error::new(
            Code::Internal,
            format!("error reading directory {path}: {e}"),
        )
    })?;
    Ok(entries)
}

fn root_error(path: &str, cause: &io::Error) -> Error {
    match cause.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            Error::new(Code::NotFound, format!("path not found: {path}: {cause}"))
        }
        Some(libc::ELOOP) => Error::new(
            Code::FailedPrecondition,
            format!("cyclic symlink or chain >255 links at {path}"),
        ),
        _ => Error::new(Code::Internal, format!("error reading {path}: {cause}")),
    }
}

/// Appends the content of `dir`, by name, each directory followed by its own. `dir` has no
/// slash at its end; the file system's root is the empty text.
fn walk(dir: &str, depth: u32, users: &UserDb, out: &mut Vec<EntryInfo>) -> io::Result<()> {
    let real = if dir.is_empty() { "/" } else { dir };
    let mut names = Vec::new();
    for entry in fs::read_dir(real)? {
        let entry = entry?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        names.push((entry.file_name(), is_dir));
    }
    names.sort();
    for (name, is_dir) in names {
        let path = format!("{dir}/{}", name.to_string_lossy());
        // Entries vanish during a walk.
        let Ok(entry) = describe(&path, users) else {
            continue;
        };
        out.push(entry);
        if is_dir && depth > 1 {
            match walk(&path, depth - 1, users, out) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_levels_and_links_are_not_entered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("t/sub-dir-1")).unwrap();
        fs::create_dir(root.join("t/sub-dir-2")).unwrap();
        fs::create_dir(root.join("t/sub-dir-1/deep")).unwrap();
        fs::write(root.join("t/sub-dir-1/deep/file"), "").unwrap();
        std::os::unix::fs::symlink("t", root.join("link")).unwrap();
        let names = |path: &str, depth| {
            let path = root.join(path).to_str().unwrap().to_owned();
            let entries = list(&path, depth, &UserDb::default()).unwrap();
            let names = entries.into_iter().map(|e| e.path[path.len()..].to_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names("t", 0), ["/sub-dir-1", "/sub-dir-2"]);
        assert_eq!(names("t", 2).len(), 3);
        let all = [
            "/sub-dir-1",
            "/sub-dir-1/deep",
            "/sub-dir-1/deep/file",
            "/sub-dir-2",
        ];
        assert_eq!(names("t", 3), all);
        assert_eq!(names("link", 3), all);
        assert_eq!(names(".", 1), ["/link", "/t"]);
    }

    #[test]
    fn cycles_and_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::os::unix::fs::symlink("b", at("a")).unwrap();
        std::os::unix::fs::symlink("a", at("b")).unwrap();
        fs::write(at("f"), "").unwrap();
        let code = |path: &str| list(path, 1, &UserDb::default()).unwrap_err().code;
        assert_eq!(code(&at("a")), Code::FailedPrecondition);
        assert_eq!(code(&at("f")), Code::InvalidArgument);
        assert_eq!(code(&at("none")), Code::NotFound);
    }
}
