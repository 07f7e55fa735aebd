//! Packs the files of a copy: which files, in what archive, under what name.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use globset::{GlobBuilder, GlobMatcher};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::error::Error;

const IGNORE_FILE: &str = ".dockerignore";

/// An archive of files, ready to be sent.
#[derive(Debug)]
pub(super) struct Packed {
    /// What the server knows it by: depends on names, permissions and contents alone.
    pub(super) hash: String,
    files: Vec<PathBuf>,
    context: PathBuf,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

/// Chooses the files of a copy and computes their hash. Blocks.
pub(super) fn choose(context: &Path, source: &str, target: &str) -> Result<Packed, Error> {
    let ignored = Ignored::read(context)?;
    let files = matches(context, source, &ignored)?;
    if files.is_empty() {
        return Err(Error::NoFiles {
            pattern: source.to_owned(),
            context: context.to_owned(),
        });
    }
    let mut hash = Sha256::new();
    hash.update(format!("COPY {source} {target}"));
    for name in &files {
        describe(context, name, &mut hash)?;
    }
    Ok(Packed {
        hash: hex::encode(hash.finalize()),
        files,
        context: context.to_owned(),
    })
}

/// Adds all that makes a file what it is.
fn describe(context: &Path, name: &Path, hash: &mut Sha256) -> Result<(), Error> {
    let path = context.join(name);
    let failed = || io_error(&path);
    let metadata = fs::symlink_metadata(&path).map_err(failed())?;
    let mut field = |bytes: &[u8]| {
        hash.update(bytes.len().to_le_bytes());
        hash.update(bytes);
    };
    field(name.as_os_str().as_bytes());
    field(&metadata.permissions().mode().to_le_bytes());
    if metadata.is_symlink() {
        let target = fs::read_link(&path).map_err(failed())?;
        field(target.as_os_str().as_bytes());
    } else if metadata.is_file() {
        let mut file = File::open(&path).map_err(failed())?;
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = file.read(&mut buffer).map_err(failed())?;
            if count == 0 {
                break;
            }
            hash.update(buffer.get(..count).unwrap_or_default());
        }
    }
    Ok(())
}

impl Packed {
    /// Writes the archive to an unnamed file and returns it with its length. Blocks.
    pub(super) fn archive(&self) -> Result<(File, u64), Error> {
        let failed = || io_error(&self.context);
        let file = tempfile::tempfile().map_err(failed())?;
        let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::fast()));
        archive.follow_symlinks(false);
        for name in &self.files {
            let path = self.context.join(name);
            archive
                .append_path_with_name(&path, name)
                .map_err(io_error(&path))?;
        }
        let mut file = archive
            .into_inner()
            .and_then(GzEncoder::finish)
            .map_err(failed())?;
        let length = file.seek(SeekFrom::End(0)).map_err(failed())?;
        file.rewind().map_err(failed())?;
        Ok((file, length))
    }
}

/// Files that match, and all below directories that do, by name.
fn matches(context: &Path, source: &str, ignored: &Ignored) -> Result<Vec<PathBuf>, Error> {
    let wanted = normal(source);
    let Some(wanted) = wanted else {
        return Err(Error::Outside {
            pattern: source.to_owned(),
        });
    };
    let pattern = if wanted.as_os_str().is_empty() {
        None
    } else {
        Some(glob(&wanted.to_string_lossy(), source)?)
    };
    let mut found = Vec::new();
    let walk = WalkDir::new(context)
        .follow_root_links(true)
        .sort_by_file_name();
    for entry in walk {
        let entry = entry.map_err(|error| {
            let path = error.path().unwrap_or(context).to_owned();
            Error::File {
                source: error.into(),
                path,
            }
        })?;
        let Ok(name) = entry.path().strip_prefix(context) else {
            continue;
        };
        if name.as_os_str().is_empty() || !is_packable(&entry.metadata().ok()) {
            continue;
        }
        let matched = match &pattern {
            None => true,
            Some(pattern) => name.ancestors().any(|part| pattern.is_match(part)),
        };
        if matched && !ignored.contains(name) {
            found.push(name.to_owned());
        }
    }
    Ok(found)
}

/// Sockets, pipes and devices are no content.
fn is_packable(metadata: &Option<Metadata>) -> bool {
    metadata
        .as_ref()
        .is_some_and(|metadata| metadata.is_file() || metadata.is_dir() || metadata.is_symlink())
}

/// A relative path without `.` parts; `None` if it leads out.
fn normal(text: &str) -> Option<PathBuf> {
    let mut out = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => out.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(out)
}

fn glob(pattern: &str, shown: &str) -> Result<GlobMatcher, Error> {
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .build()
        .map_err(|source| Error::Pattern {
            pattern: shown.to_owned(),
            source,
        })?;
    Ok(glob.compile_matcher())
}

/// The rules of a `.dockerignore`: the last one that matches a path or a directory above it
/// decides.
#[derive(Debug, Default)]
struct Ignored {
    rules: Vec<(GlobMatcher, bool)>,
}

impl Ignored {
    fn read(context: &Path) -> Result<Self, Error> {
        let path = context.join(IGNORE_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(io_error(&path)(error)),
        }
    }

    fn parse(text: &str) -> Result<Self, Error> {
        let mut rules = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (pattern, ignores) = match line.strip_prefix('!') {
                Some(pattern) => (pattern.trim(), false),
                None => (line, true),
            };
            // A leading slash means the context directory, as no slash does.
            let pattern = pattern.trim_start_matches('/');
            if let Some(pattern) = normal(pattern).filter(|path| !path.as_os_str().is_empty()) {
                rules.push((glob(&pattern.to_string_lossy(), line)?, ignores));
            }
        }
        Ok(Self { rules })
    }

    fn contains(&self, name: &Path) -> bool {
        let mut ignored = false;
        for (rule, ignores) in &self.rules {
            if name.ancestors().any(|part| rule.is_match(part)) {
                ignored = *ignores;
            }
        }
        ignored
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("a.py", "1"),
            ("b.txt", "2"),
            ("src/c.py", "3"),
            ("src/deep/d.py", "4"),
            ("node_modules/x/y.js", "5"),
            (".hidden", "6"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        symlink("nowhere", dir.path().join("dangling")).unwrap();
        dir
    }

    fn names(dir: &Path, source: &str) -> Vec<String> {
        let chosen = choose(dir, source, "/x").unwrap();
        let names = chosen.files.iter();
        names.map(|name| name.display().to_string()).collect()
    }

    #[test]
    fn a_source_names_files_directories_or_a_pattern() {
        let dir = tree();
        assert_eq!(names(dir.path(), "a.py"), ["a.py"]);
        assert_eq!(names(dir.path(), "./*.py"), ["a.py"]);
        assert_eq!(
            names(dir.path(), "src"),
            ["src", "src/c.py", "src/deep", "src/deep/d.py"]
        );
        assert_eq!(names(dir.path(), "**/*.py").len(), 3);
        let all = names(dir.path(), ".");
        assert!(all.contains(&".hidden".to_owned()) && all.contains(&"dangling".to_owned()));
    }

    #[test]
    fn what_is_missing_or_outside_is_refused() {
        let dir = tree();
        let refused = |source| choose(dir.path(), source, "/x").unwrap_err();
        assert!(matches!(refused("nothing"), Error::NoFiles { .. }));
        assert!(matches!(refused("../x"), Error::Outside { .. }));
        assert!(matches!(refused("/etc/passwd"), Error::Outside { .. }));
        assert!(matches!(refused("[z"), Error::Pattern { .. }));
    }

    #[test]
    fn the_ignore_file_takes_out_and_puts_back() {
        let dir = tree();
        fs::write(
            dir.path().join(IGNORE_FILE),
            "# c\nnode_modules\nsrc\n!src/deep\n*.txt\n",
        )
        .unwrap();
        assert_eq!(
            names(dir.path(), "."),
            [
                ".dockerignore",
                ".hidden",
                "a.py",
                "dangling",
                "src/deep",
                "src/deep/d.py"
            ]
        );
    }

    #[test]
    fn the_hash_follows_names_permissions_and_contents() {
        let dir = tree();
        let hash = |target| choose(dir.path(), "src", target).unwrap().hash;
        let first = hash("/x");
        assert_eq!(first, hash("/x"));
        assert_ne!(first, hash("/y"));
        fs::write(dir.path().join("src/c.py"), "33").unwrap();
        let second = hash("/x");
        assert_ne!(first, second);
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.path().join("src/c.py"), mode).unwrap();
        assert_ne!(second, hash("/x"));
    }

    #[test]
    fn the_archive_holds_links_as_links() {
        let dir = tree();
        let (file, length) = choose(dir.path(), ".", "/x").unwrap().archive().unwrap();
        assert_eq!(file.metadata().unwrap().len(), length);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let link = archive
            .entries()
            .unwrap()
            .map(Result::unwrap)
            .find(|entry| entry.path().unwrap() == Path::new("dangling"))
            .unwrap();
        assert_eq!(link.link_name().unwrap().unwrap(), Path::new("nowhere"));
    }
}
