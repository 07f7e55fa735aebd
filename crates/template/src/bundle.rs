//! Bundles: the server's program with layers and tools in one file, for machines without a
//! network.
//!
//! A bundle is a tar archive of the program (first, so that `tar -xf BUNDLE warren` is quick),
//! a manifest, and one compressed archive per directory. Those are written and read by the
//! system's `tar`, which keeps owners, attributes and devices.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layers::{LayerError, LayerStore};

/// Name of the program in a bundle.
const PROGRAM: &str = "warren";
const MANIFEST: &str = "manifest.json";
/// Of the archives: quick, and half the size.
const LEVEL: i32 = 3;
const MAX_MANIFEST: u64 = 1 << 20;
/// Directories of one bundle.
const MAX_PARTS: usize = 256;
const FLAGS: [&str; 4] = [
    "--numeric-owner",
    "--xattrs",
    "--xattrs-include=*",
    "--same-permissions",
];

/// Why a bundle could not be written or installed.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file can't be read or written.
    #[error("{step} {}", path.display())]
    Io {
        /// What was being done.
        step: &'static str,
        /// To which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The system's `tar` failed.
    #[error("tar failed on {}: {message}", path.display())]
    Tar {
        /// The directory.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// The file is something else, or was damaged.
    #[error("{} is no bundle, or is damaged: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Made for another kind of machine.
    #[error("the bundle is for {0} machines")]
    Machine(String),
    /// The store of layers failed.
    #[error(transparent)]
    Layer(#[from] LayerError),
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { step, path, source }
}

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program.
    pub version: String,
    /// Kind of machine, such as `x86_64`.
    pub machine: String,
    /// Templates whose layers are in it.
    pub templates: Vec<String>,
    /// The directories.
    parts: Vec<Part>,
}

/// A directory in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Part {
    kind: PartKind,
    name: String,
    sha256: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PartKind {
    Layer,
    Tools,
}

impl Part {
    fn entry(&self) -> String {
        match self.kind {
            PartKind::Layer => format!("layers/{}.tar.zst", self.name),
            PartKind::Tools => "tools.tar.zst".to_owned(),
        }
    }
}

/// What a bundle is made of.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The server's program.
    pub program: &'a Path,
    /// Its version.
    pub version: &'a str,
    /// Names of the templates that the layers make.
    pub templates: Vec<String>,
    /// Digests and directories of layers.
    pub layers: Vec<(String, PathBuf)>,
    /// Directory of prepared tools.
    pub tools: Option<PathBuf>,
}

/// Writes a bundle; the file appears when it is whole. `progress` is told each directory.
///
/// # Errors
/// [`BundleError`].
pub fn create(
    file: &Path,
    contents: &Contents<'_>,
    mut progress: impl FnMut(&Path),
) -> Result<Manifest, BundleError> {
    let dir = match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let scratch = tempfile::Builder::new()
        .prefix(".warren-bundle-")
        .tempdir_in(dir)
        .map_err(failed("make a directory beside", file))?;
    let layers = contents
        .layers
        .iter()
        .map(|(digest, path)| (PartKind::Layer, digest.clone(), path));
    let tools = contents
        .tools
        .iter()
        .map(|path| (PartKind::Tools, String::new(), path));
    let mut parts = Vec::new();
    for (index, (kind, name, path)) in layers.chain(tools).enumerate() {
        progress(path);
        let packed = scratch.path().join(index.to_string());
        let sha256 = pack(path, &packed)?;
        parts.push(Part { kind, name, sha256 });
    }
    let manifest = Manifest {
        version: contents.version.to_owned(),
        machine: std::env::consts::ARCH.to_owned(),
        templates: contents.templates.clone(),
        parts,
    };
    let whole = scratch.path().join("bundle");
    let write = || -> io::Result<()> {
        let mut archive = tar::Builder::new(File::create(&whole)?);
        archive.append_path_with_name(contents.program, PROGRAM)?;
        let text = serde_json::to_vec_pretty(&manifest)?;
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, MANIFEST, text.as_slice())?;
        for (index, part) in manifest.parts.iter().enumerate() {
            let packed = scratch.path().join(index.to_string());
            archive.append_path_with_name(packed, part.entry())?;
        }
        archive.into_inner()?.sync_all()
    };
    write().map_err(failed("write", file))?;
    fs::rename(&whole, file).map_err(failed("write", file))?;
    Ok(manifest)
}

fn tar(flag: &str, dir: &Path) -> Command {
    let mut command = Command::new("tar");
    command
        .args([flag, "--file=-"])
        .args(FLAGS)
        .arg("-C")
        .arg(dir);
    command.stderr(Stdio::piped());
    command
}

fn finish(child: std::process::Child, dir: &Path) -> Result<(), BundleError> {
    let output = child
        .wait_with_output()
        .map_err(failed("wait for tar on", dir))?;
    if output.status.success() {
        return Ok(());
    }
    Err(BundleError::Tar {
        path: dir.to_owned(),
        message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Packs a directory and returns the digest of the archive.
fn pack(dir: &Path, into: &Path) -> Result<String, BundleError> {
    let mut child = tar("--create", dir)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed("run tar on", dir))?;
    let mut output = child.stdout.take();
    let mut write = || -> io::Result<String> {
        let hashed = Hashed::new(File::create(into)?);
        let mut encoder = zstd::Encoder::new(hashed, LEVEL)?;
        if let Some(output) = &mut output {
            io::copy(output, &mut encoder)?;
        }
        Ok(encoder.finish()?.digest())
    };
    let digest = write().map_err(failed("pack", dir));
    drop(output);
    finish(child, dir)?;
    digest
}

/// Unpacks an archive into an empty directory and returns the archive's digest.
fn unpack(archive: impl Read, dir: &Path) -> Result<String, BundleError> {
    let mut child = tar("--extract", dir)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(failed("run tar on", dir))?;
    let mut input = child.stdin.take();
    let read = || -> io::Result<String> {
        let mut decoder = zstd::Decoder::new(Hashed::new(archive))?;
        if let Some(input) = &mut input {
            io::copy(&mut decoder, input)?;
        }
        let mut hashed = decoder.finish().into_inner();
        // What the decoder had no need of counts all the same.
        io::copy(&mut hashed, &mut io::sink())?;
        Ok(hashed.digest())
    };
    let digest = read().map_err(failed("unpack to", dir));
    drop(input);
    finish(child, dir)?;
    digest
}

/// Hashes what passes through.
struct Hashed<T> {
    inner: T,
    hasher: Sha256,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
        }
    }

    fn digest(self) -> String {
        hex::encode(self.hasher.finalize())
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Where the parts of a bundle go.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The store of layers. Layers that are there already stay.
    pub layers: &'a LayerStore,
    /// Where the program goes, replacing what is there in one step; nowhere if absent.
    pub program: Option<&'a Path>,
    /// Where the tools go, unless there are some.
    pub tools: &'a Path,
}

/// Installs a bundle. Each part appears when it is whole; what a failure leaves undone is
/// done by the next try. `progress` is told each part.
///
/// # Errors
/// [`BundleError`].
pub fn install(
    file: &Path,
    to: &Destination<'_>,
    mut progress: impl FnMut(&str),
) -> Result<Manifest, BundleError> {
    let malformed = |why| BundleError::Malformed {
        path: file.to_owned(),
        why,
    };
    let reading = || failed("read", file);
    let opened = File::open(file).map_err(reading())?;
    let mut archive = tar::Archive::new(opened);
    let mut manifest: Option<Manifest> = None;
    let mut installed = 0;
    for entry in archive.entries().map_err(reading())? {
        let mut entry = entry.map_err(reading())?;
        let name = entry
            .path()
            .map_err(reading())?
            .to_string_lossy()
            .into_owned();
        match (name.as_str(), &manifest) {
            (PROGRAM, None) => {
                if let Some(path) = to.program {
                    progress(PROGRAM);
                    put_program(&mut entry, path)?;
                }
            }
            (MANIFEST, None) => {
                let mut text = Vec::new();
                let mut limited = entry.take(MAX_MANIFEST);
                limited.read_to_end(&mut text).map_err(reading())?;
                let read: Manifest =
                    serde_json::from_slice(&text).map_err(|_| malformed("a bad manifest"))?;
                if read.machine != std::env::consts::ARCH {
                    return Err(BundleError::Machine(read.machine));
                }
                if read.parts.len() > MAX_PARTS {
                    return Err(malformed("too many parts"));
                }
                manifest = Some(read);
            }
            (_, Some(known)) => {
                let part = known.parts.get(installed);
                let part = part.filter(|part| part.entry() == name);
                let part = part.ok_or_else(|| malformed("an entry that is not announced"))?;
                progress(&name);
                let is_intact = match part.kind {
                    PartKind::Layer => put_layer(entry, &part.name, &part.sha256, to.layers)?,
                    PartKind::Tools => put_tools(entry, &part.sha256, to.tools)?,
                };
                if !is_intact {
                    return Err(malformed("a part is not what was packed"));
                }
                installed += 1;
            }
            _ => return Err(malformed("no manifest")),
        }
    }
    match manifest {
        Some(manifest) if installed == manifest.parts.len() => Ok(manifest),
        _ => Err(malformed("it is cut off")),
    }
}

/// Replaces the program in one step, so that a running one goes on.
fn put_program(content: &mut impl Read, path: &Path) -> Result<(), BundleError> {
    let mut write = || -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir)?;
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        io::copy(content, &mut file)?;
        file.as_file()
            .set_permissions(fs::Permissions::from_mode(0o755))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(failed("write", path))
}

fn put_layer(
    archive: impl Read,
    digest: &str,
    sha256: &str,
    store: &LayerStore,
) -> Result<bool, BundleError> {
    if store.get(digest)?.is_some() {
        return Ok(true);
    }
    let making = store.make(digest)?;
    if making.already_made().is_some() {
        return Ok(true);
    }
    let root = making.root();
    fs::create_dir(root).map_err(failed("make", root))?;
    if unpack(archive, root)? != sha256 {
        return Ok(false);
    }
    making.commit()?;
    Ok(true)
}

fn put_tools(archive: impl Read, sha256: &str, path: &Path) -> Result<bool, BundleError> {
    if path.exists() {
        return Ok(true);
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(failed("make", dir))?;
    let scratch = tempfile::Builder::new()
        .prefix(".tools-")
        .tempdir_in(dir)
        .map_err(failed("make a directory in", dir))?;
    if unpack(archive, scratch.path())? != sha256 {
        return Ok(false);
    }
    let made = scratch.keep();
    fs::rename(&made, path).map_err(failed("rename", &made))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const DIGEST: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

    struct Place(tempfile::TempDir);

    impl Place {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A bundle of one layer and tools.
        fn bundle(&self) -> PathBuf {
            let layer = self.path("layer");
            fs::create_dir_all(layer.join("etc")).unwrap();
            fs::write(layer.join("etc/name"), "base").unwrap();
            fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o2711)).unwrap();
            std::os::unix::fs::symlink("../x", layer.join("etc/link")).unwrap();
            let tools = self.path("tools");
            fs::create_dir(&tools).unwrap();
            fs::write(tools.join("criu"), "program").unwrap();
            fs::write(self.path("program"), "ELF").unwrap();
            let contents = Contents {
                program: &self.path("program"),
                version: "1.2.3",
                templates: vec!["base".to_owned()],
                layers: vec![(DIGEST.to_owned(), layer)],
                tools: Some(tools),
            };
            let file = self.path("bundle.tar");
            create(&file, &contents, |_| {}).unwrap();
            file
        }

        fn install(&self, file: &Path) -> Result<Manifest, BundleError> {
            let store = LayerStore::open(&self.path("to/layers")).unwrap();
            let to = Destination {
                layers: &store,
                program: Some(&self.path("to/bin/warren")),
                tools: &self.path("to/tools"),
            };
            install(file, &to, |_| {})
        }
    }

    #[test]
    fn what_is_packed_is_installed_and_nothing_else_is_left() {
        let place = Place(tempfile::tempdir().unwrap());
        let file = place.bundle();
        let manifest = place.install(&file).unwrap();
        assert_eq!(
            (manifest.version.as_str(), manifest.parts.len()),
            ("1.2.3", 2)
        );
        let layer = place.path("to/layers").join(DIGEST);
        assert_eq!(fs::read_to_string(layer.join("etc/name")).unwrap(), "base");
        assert_eq!(
            fs::metadata(layer.join("etc")).unwrap().mode() & 0o7777,
            0o2711
        );
        assert!(fs::read_link(layer.join("etc/link")).is_ok());
        assert!(place.path("to/tools/criu").exists());
        assert_eq!(
            fs::read_to_string(place.path("to/bin/warren")).unwrap(),
            "ELF"
        );
        // Once more changes nothing.
        place.install(&file).unwrap();
        let left: Vec<_> = fs::read_dir(place.path("to")).unwrap().collect();
        assert_eq!(left.len(), 3);
    }

    #[test]
    fn a_damaged_bundle_installs_no_layer() {
        let place = Place(tempfile::tempdir().unwrap());
        let file = place.bundle();
        let whole = fs::read(&file).unwrap();
        for cut in [0, 100, whole.len() / 3, whole.len() - 2048] {
            fs::write(&file, &whole[..cut]).unwrap();
            assert!(place.install(&file).is_err(), "{cut}");
        }
        let mut other = whole.clone();
        let at = other
            .windows(7)
            .rposition(|window| window == b"layers/")
            .unwrap();
        // A byte of the layer's content, after its header.
        other[at + 512 + 20] ^= 0xff;
        fs::remove_dir_all(place.path("to")).unwrap();
        fs::write(&file, &other).unwrap();
        assert!(place.install(&file).is_err());
        assert!(!place.path("to/layers").join(DIGEST).exists());
    }
}
