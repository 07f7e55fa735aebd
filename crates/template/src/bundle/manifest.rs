//! What a bundle says of itself.

use serde::{Deserialize, Serialize};

use super::BundleError;
use crate::layers::is_digest;

/// Names the form of bundles; a change that older programs can't read raises it.
const FORM: u32 = 1;
/// Longest manifest.
pub(super) const MAX_LENGTH: u64 = 1 << 20;
/// Directories of one bundle.
const MAX_PARTS: usize = 256;
const MAX_TEMPLATES: usize = 64;
/// Longest version or name.
const MAX_WORD: usize = 128;
/// Begins digests of content.
const ALGORITHM: &str = "sha256:";

/// What is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    form: u32,
    /// Version of the program.
    pub version: String,
    /// Kind of machine, such as `x86_64`.
    pub machine: String,
    /// Templates whose layers are in it.
    pub templates: Vec<String>,
    /// Digest of the program.
    pub(super) program: String,
    /// The directories.
    pub(super) parts: Vec<Part>,
}

/// A directory in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    /// Of a layer.
    pub(super) name: String,
    /// Digest of the archive before it was compressed.
    pub(super) diff_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PartKind {
    Layer,
    Tools,
}

/// The only thing that is known of every form.
#[derive(Deserialize)]
struct Form {
    form: u32,
}

impl Part {
    /// A part that is yet to be packed.
    pub(super) fn new(kind: PartKind, name: String) -> Self {
        Self {
            kind,
            name,
            diff_id: no_digest(),
        }
    }

    pub(super) fn entry(&self) -> String {
        match self.kind {
            PartKind::Layer => format!("layers/{}.tar.gz", self.name),
            PartKind::Tools => "tools.tar.gz".to_owned(),
        }
    }

    fn is_sound(&self) -> bool {
        let is_named = match self.kind {
            PartKind::Layer => is_digest(&self.name),
            PartKind::Tools => self.name.is_empty(),
        };
        is_named && is_content_digest(&self.diff_id)
    }
}

/// As long as any digest of content.
fn no_digest() -> String {
    format!("{ALGORITHM}{}", "0".repeat(64))
}

fn is_content_digest(text: &str) -> bool {
    text.strip_prefix(ALGORITHM).is_some_and(is_digest)
}

/// What may be shown on a terminal.
fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Manifest {
    /// That of a bundle for this machine, whose digests are yet to be filled in; that does
    /// not change its length.
    pub(super) fn new(version: &str, templates: Vec<String>, parts: Vec<Part>) -> Self {
        Self {
            form: FORM,
            version: version.to_owned(),
            machine: std::env::consts::ARCH.to_owned(),
            templates,
            program: no_digest(),
            parts,
        }
    }

    /// Reads one that may be anything.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ManifestError> {
        let Form { form } = serde_json::from_slice(bytes).map_err(|_| ManifestError::Malformed)?;
        if form != FORM {
            return Err(ManifestError::Refused(BundleError::Form(form)));
        }
        let read: Self = serde_json::from_slice(bytes).map_err(|_| ManifestError::Malformed)?;
        let is_sound = is_word(&read.version)
            && is_word(&read.machine)
            && read.templates.iter().all(|name| is_word(name))
            && read.templates.len() <= MAX_TEMPLATES
            && read.parts.len() <= MAX_PARTS
            && is_content_digest(&read.program)
            && read.parts.iter().all(Part::is_sound);
        if !is_sound {
            return Err(ManifestError::Malformed);
        }
        if read.machine != std::env::consts::ARCH {
            return Err(ManifestError::Refused(BundleError::Machine(read.machine)));
        }
        Ok(read)
    }
}

/// Why a manifest is refused.
#[derive(Debug)]
pub(super) enum ManifestError {
    Malformed,
    Refused(BundleError),
}
