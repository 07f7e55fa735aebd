//! Writing bundles.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use warren_service::fault;

use super::draft::Draft;
use super::manifest::{Part, PartKind};
use super::{BundleError, MANIFEST, Manifest, PROGRAM, failed};
use crate::oci::Out;

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
    /// Root of prepared tools.
    pub tools: Option<PathBuf>,
}

/// Writes a bundle to a file that is not there; it appears when it is whole. `progress` is
/// told each directory.
///
/// # Errors
/// [`BundleError`].
pub fn create(
    file: &Path,
    contents: &Contents<'_>,
    progress: impl FnMut(&Path),
) -> Result<Manifest, BundleError> {
    if fs::symlink_metadata(file).is_ok() {
        return Err(BundleError::Exists(file.to_owned()));
    }
    let draft = Draft::beside(file).map_err(failed("make a file beside", file))?;
    let manifest = write(file, &draft, contents, progress)?;
    draft.publish().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BundleError::Exists(file.to_owned()),
        _ => failed("write", file)(error),
    })?;
    Ok(manifest)
}

fn write(
    file: &Path,
    draft: &Draft,
    contents: &Contents<'_>,
    mut progress: impl FnMut(&Path),
) -> Result<Manifest, BundleError> {
    let writing = || failed("write", file);
    let layers = contents.layers.iter();
    let layers = layers.map(|(digest, path)| (Part::new(PartKind::Layer, digest.clone()), path));
    let tools = contents.tools.iter();
    let tools = tools.map(|path| (Part::new(PartKind::Tools, String::new()), path));
    let (parts, dirs): (Vec<_>, Vec<_>) = layers.chain(tools).unzip();
    let mut manifest = Manifest::new(contents.version, contents.templates.clone(), parts);
    let mut out = Out::new(draft.file().map_err(writing())?);
    manifest.program =
        add_program(&mut out, contents.program).map_err(failed("pack", contents.program))?;
    let place = out.position().map_err(writing())?;
    out.file(MANIFEST, &text_of(&manifest).map_err(writing())?)
        .map_err(writing())?;
    for (part, dir) in manifest.parts.iter_mut().zip(dirs) {
        progress(dir);
        let name = part.entry();
        let packed = out.packed(dir, |_| name).map_err(failed("pack", dir))?;
        part.diff_id = packed.1;
        fault::point("bundle.packed");
    }
    // The digests are known now.
    let finish = || -> io::Result<()> {
        let mut file = out.finish()?;
        file.seek(SeekFrom::Start(place + BLOCK))?;
        file.write_all(&text_of(&manifest)?)
    };
    finish().map_err(writing())?;
    Ok(manifest)
}

/// Length of a header in the archive.
const BLOCK: u64 = 512;

fn text_of(manifest: &Manifest) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec_pretty(manifest)?)
}

/// Adds the program and returns its digest.
fn add_program(out: &mut Out, program: &Path) -> io::Result<String> {
    let mut opened = File::open(program)?;
    let mut hasher = Sha256::new();
    let size = io::copy(&mut opened, &mut hasher)?;
    opened.seek(SeekFrom::Start(0))?;
    out.program(PROGRAM, size, opened)?;
    Ok(format!("sha256:{}", hex::encode(hasher.finalize())))
}
