//! Installing bundles.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tar::EntryType;
use warren_service::fault;

use super::manifest::{MAX_LENGTH, ManifestError, PartKind};
use super::{BundleError, MANIFEST, Manifest, PROGRAM, failed};
use crate::layers::{self, LayerStore};
use crate::oci::{Budget, unpack};
use crate::tarball::{Item, TarError, walk};

/// Longest program.
const MAX_PROGRAM: u64 = 1 << 30;
/// Bytes that all directories of a bundle may have together.
const MAX_UNPACKED: u64 = 64 << 30;

/// Where the parts of a bundle go.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The store of layers. Layers that are there already stay.
    pub layers: &'a LayerStore,
    /// Where the program goes, replacing what is there in one step; nowhere if absent.
    pub program: Option<&'a Path>,
    /// Where the root of tools goes, unless there is one.
    pub tools: &'a Path,
}

/// Installs a bundle. Each part appears when it is whole and has the digest that the
/// manifest announces, the program last; what a failure leaves undone is done by the next
/// try. `progress` is told each part.
///
/// # Errors
/// [`BundleError`].
pub fn install(
    file: &Path,
    to: &Destination<'_>,
    progress: impl FnMut(&str),
) -> Result<Manifest, BundleError> {
    let opened = File::open(file).map_err(failed("read", file))?;
    let mut installing = Installing {
        file,
        to,
        progress,
        program: None,
        manifest: None,
        installed: 0,
        budget: Budget::new(MAX_UNPACKED),
    };
    let reader = BufReader::with_capacity(1 << 20, opened);
    walk(reader, |item, content| installing.entry(&item, content)).map_err(
        |trouble| match trouble {
            Trouble::Archive(source) => BundleError::Damaged {
                path: file.to_owned(),
                source: source.into(),
            },
            Trouble::Known(error) => error,
        },
    )?;
    installing.finish()
}

/// Why an entry can't be taken.
enum Trouble {
    Archive(TarError),
    Known(BundleError),
}

impl From<TarError> for Trouble {
    fn from(error: TarError) -> Self {
        Self::Archive(error)
    }
}

impl From<BundleError> for Trouble {
    fn from(error: BundleError) -> Self {
        Self::Known(error)
    }
}

/// The program, in a file without a name, and its digest.
struct Program {
    content: Option<File>,
    digest: String,
}

struct Installing<'a, P> {
    file: &'a Path,
    to: &'a Destination<'a>,
    progress: P,
    program: Option<Program>,
    manifest: Option<Manifest>,
    installed: usize,
    budget: Budget,
}

impl<P: FnMut(&str)> Installing<'_, P> {
    fn malformed(&self, why: &'static str) -> BundleError {
        BundleError::Malformed {
            path: self.file.to_owned(),
            why,
        }
    }

    fn entry(&mut self, item: &Item, content: &mut dyn Read) -> Result<(), Trouble> {
        if item.kind != EntryType::Regular {
            return Err(self.malformed("an entry that is no file").into());
        }
        let name = item.path.to_str().unwrap_or_default();
        match (name, self.program.is_some(), self.manifest.is_some()) {
            (PROGRAM, false, _) => Ok(self.keep_program(item.size, content)?),
            (MANIFEST, true, false) => Ok(self.read_manifest(content)?),
            (_, _, true) => Ok(self.part(name, content)?),
            _ => Err(self
                .malformed("it does not begin with a program and a manifest")
                .into()),
        }
    }

    /// Sets the program aside until the manifest tells whether it is whole.
    fn keep_program(&mut self, size: u64, content: &mut dyn Read) -> Result<(), BundleError> {
        if size > MAX_PROGRAM {
            return Err(self.malformed("a program of that size"));
        }
        let mut hasher = Sha256::new();
        let kept = match self.to.program {
            None => {
                io::copy(content, &mut hasher).map_err(failed("read", self.file))?;
                None
            }
            Some(path) => {
                let dir = path.parent().unwrap_or(Path::new("."));
                let mut keep = || -> io::Result<File> {
                    fs::create_dir_all(dir)?;
                    let mut file = tempfile::tempfile_in(dir)?;
                    io::copy(content, &mut file)?;
                    file.seek(SeekFrom::Start(0))?;
                    io::copy(&mut file, &mut hasher)?;
                    Ok(file)
                };
                Some(keep().map_err(failed("unpack to", dir))?)
            }
        };
        self.program = Some(Program {
            content: kept,
            digest: format!("sha256:{}", hex::encode(hasher.finalize())),
        });
        Ok(())
    }

    fn read_manifest(&mut self, content: &mut dyn Read) -> Result<(), BundleError> {
        let mut text = Vec::new();
        let read = content.take(MAX_LENGTH).read_to_end(&mut text);
        read.map_err(failed("read", self.file))?;
        let manifest = Manifest::read(&text).map_err(|error| match error {
            ManifestError::Malformed => self.malformed("a bad manifest"),
            ManifestError::Refused(error) => error,
        })?;
        let program = self.program.as_ref().map(|program| &program.digest);
        if program != Some(&manifest.program) {
            return Err(self.malformed("the program is not what was packed"));
        }
        self.manifest = Some(manifest);
        Ok(())
    }

    fn part(&mut self, name: &str, content: &mut dyn Read) -> Result<(), BundleError> {
        let mut parts = self.manifest.iter().flat_map(|manifest| &manifest.parts);
        let part = parts.nth(self.installed).cloned();
        let part = part.filter(|part| part.entry() == name);
        let part = part.ok_or_else(|| self.malformed("an entry that is not announced"))?;
        (self.progress)(name);
        let damaged = |source| BundleError::Damaged {
            path: self.file.to_owned(),
            source,
        };
        match part.kind {
            PartKind::Layer => {
                let store = self.to.layers;
                if store.get(&part.name)?.is_none() {
                    let making = store.make(&part.name)?;
                    if making.already_made().is_none() {
                        unpack(content, &part.diff_id, making.root(), &self.budget)
                            .map_err(|error| damaged(error.into()))?;
                        making.commit()?;
                    }
                }
            }
            PartKind::Tools => {
                if let Some(made) = Tools::make(self.to.tools)? {
                    unpack(content, &part.diff_id, &made.draft, &self.budget)
                        .map_err(|error| damaged(error.into()))?;
                    made.commit()?;
                }
            }
        }
        fault::point("bundle.installed");
        self.installed += 1;
        Ok(())
    }

    fn finish(self) -> Result<Manifest, BundleError> {
        let cut_off = self.malformed("it is cut off");
        let Self {
            to,
            mut progress,
            program,
            manifest,
            installed,
            ..
        } = self;
        let whole = manifest.filter(|manifest| installed == manifest.parts.len());
        let manifest = whole.ok_or(cut_off)?;
        let content = program.and_then(|program| program.content);
        if let (Some(content), Some(path)) = (content, to.program) {
            progress(PROGRAM);
            place_program(content, path).map_err(failed("write", path))?;
        }
        Ok(manifest)
    }
}

/// Replaces the program in one step, so that a running one goes on.
fn place_program(mut content: File, path: &Path) -> io::Result<()> {
    let draft = path.with_extension("partial");
    content.seek(SeekFrom::Start(0))?;
    let mut file = File::create(&draft)?;
    io::copy(&mut content, &mut file)?;
    file.set_permissions(Permissions::from_mode(0o755))?;
    file.sync_all()?;
    fault::point("bundle.program");
    fs::rename(&draft, path)
}

/// A root of tools in the making. Its name is one that whoever prepares tools sweeps.
struct Tools<'a> {
    root: &'a Path,
    draft: PathBuf,
}

impl<'a> Tools<'a> {
    /// `None` if there is one.
    fn make(root: &'a Path) -> Result<Option<Self>, BundleError> {
        if root.exists() {
            return Ok(None);
        }
        let dir = root.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
        let name = root.file_name().unwrap_or_default().to_string_lossy();
        let draft = dir.join(format!(".{name}-bundle"));
        layers::clear(&draft)?;
        Ok(Some(Self { root, draft }))
    }

    fn commit(self) -> Result<(), BundleError> {
        match fs::rename(&self.draft, self.root) {
            // Somebody else prepared them meanwhile.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                Ok(())
            }
            done => done.map_err(failed("rename", &self.draft)),
        }
    }
}

impl Drop for Tools<'_> {
    fn drop(&mut self) {
        // What stays is removed by the next try.
        layers::clear(&self.draft).ok();
    }
}
