//! What the build API refuses and why. Texts of a client's mistakes are shown as they are.

use std::io;

use warren_store::{DeleteTemplateError, RequestBuildError, StoreError};
use warren_template::build::ExportError;
use warren_types::BuildId;

use super::resources::ResourcesError;
use crate::{ReferenceError, TemplateError};

/// Why a tag can't be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// A bad word.
    #[error("invalid tag '{0}': invalid tag: {0}")]
    Malformed(String),
    /// It would hide a build.
    #[error("invalid tag '{0}': tag cannot be a UUID")]
    Uuid(String),
    /// More than anybody needs.
    #[error("at most {0} tags are allowed")]
    TooMany(usize),
}

/// Why a template can't be had as an image.
#[derive(Debug, thiserror::Error)]
pub enum TemplateImageError {
    /// There is no such template for the caller.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// It has no form of an image.
    #[error("{0}")]
    Refused(String),
    /// It can't be written.
    #[error("export the template")]
    Export(#[source] ExportError),
    /// This server builds nothing.
    #[error("Error when getting available build client")]
    NoBuilder,
}

impl From<ExportError> for TemplateImageError {
    fn from(error: ExportError) -> Self {
        match error {
            told @ (ExportError::Snapshot | ExportError::LayerMissing(_)) => {
                Self::Refused(told.to_string())
            }
            error => Self::Export(error),
        }
    }
}

/// Why a build is not requested.
#[derive(Debug, thiserror::Error)]
pub enum BuildRequestError {
    /// No name.
    #[error("Name is required")]
    NoName,
    /// A bad name.
    #[error("Invalid name: {0}")]
    Name(#[from] ReferenceError),
    /// A namespace that is not the caller's.
    #[error("namespace '{namespace}' must match your team '{slug}'")]
    Namespace {
        /// The one asked for.
        namespace: String,
        /// The caller's.
        slug: String,
    },
    /// A bad tag.
    #[error("Invalid tag: {0}")]
    Tag(#[from] TagError),
    /// The team builds as many as it may.
    #[error(
        "you have reached the maximum number of concurrent template builds ({0}). Please wait \
         for existing builds to complete or contact support if you need more concurrent builds."
    )]
    TooMany(u32),
    /// Resources that it can't have.
    #[error(transparent)]
    Resources(#[from] ResourcesError),
    /// The name can't be used, or the database failed.
    #[error(transparent)]
    Refused(#[from] RequestBuildError),
    /// The database failed.
    #[error("request build")]
    Store(#[from] StoreError),
}

/// Why a build is not started.
#[derive(Debug, thiserror::Error)]
pub enum BuildStartError {
    /// Not an id.
    #[error("Invalid build ID: {0}")]
    Id(String),
    /// No such build of that template.
    #[error("Error when getting template: build '{build}' of template '{template}' not found")]
    Unknown {
        /// The template asked for.
        template: String,
        /// The build asked for.
        build: BuildId,
    },
    /// Another team's.
    #[error("User does not have access to the template")]
    Foreign,
    /// It was started before, or has ended.
    #[error("build is not in waiting state")]
    NotWaiting,
    /// This server builds nothing.
    #[error("Error when getting available build client")]
    NoBuilder,
    /// Nothing to start from, or too much. The build has failed.
    #[error("Error when starting template build: {0}")]
    Source(&'static str),
    /// Its log can't be written. The build still waits.
    #[error("open log of build")]
    Log(#[source] io::Error),
    /// Its archives can't be read. The build still waits.
    #[error("look up uploaded archives")]
    Archives(#[source] io::Error),
    /// The database failed.
    #[error("start build")]
    Store(#[from] StoreError),
}

/// Why a build is not shown.
#[derive(Debug, thiserror::Error)]
pub enum BuildStatusError {
    /// Not an id.
    #[error("Invalid build id")]
    Id,
    /// No such build.
    #[error("Build '{0}' not found")]
    Unknown(BuildId),
    /// Another team's.
    #[error("You don't have access to this sandbox template ({0})")]
    Foreign(String),
    /// Its log can't be read.
    #[error("read log of build")]
    Log(#[source] io::Error),
    /// The database failed.
    #[error("read build")]
    Store(#[from] StoreError),
}

/// Why no upload is offered.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// Not a hash.
    #[error("Invalid files hash")]
    Hash,
    /// No such template, or another team's.
    #[error("Error when getting template: template '{0}' not found")]
    Template(String),
    /// This server builds nothing.
    #[error("Error when getting available build client")]
    NoBuilder,
    /// The archive can't be looked up.
    #[error("look up uploaded archive")]
    Disk(#[source] io::Error),
    /// The database failed.
    #[error("read template")]
    Store(#[from] StoreError),
}

/// Why an upload is refused.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The link names no archive.
    #[error("invalid upload path")]
    Path,
    /// This server did not make the link.
    #[error("invalid upload signature")]
    Signature,
    /// The link is too old.
    #[error("the upload link has expired")]
    Expired,
    /// This server builds nothing.
    #[error("Error when getting available build client")]
    NoBuilder,
    /// Larger than an archive may be.
    #[error("the archive is larger than {limit} bytes")]
    TooLarge {
        /// How much is fine.
        limit: u64,
    },
    /// Not as many bytes as announced.
    #[error("the body is not as long as its Content-Length")]
    Length,
    /// The disk is full.
    #[error("there is no room for the archive")]
    NoRoom,
    /// The disk failed.
    #[error("store uploaded archive")]
    Disk(#[source] io::Error),
}

/// Why a template is not changed.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// Not a reference to a template.
    #[error("Invalid template reference: {0}")]
    Reference(#[from] ReferenceError),
    /// No such template, or hidden.
    #[error("template '{0}' not found")]
    NotFound(String),
    /// Another team's.
    #[error("You don't have access to template '{0}'")]
    Foreign(String),
    /// A namespace that is not the caller's.
    #[error("namespace '{namespace}' must match your team '{slug}'")]
    Namespace {
        /// The one asked for.
        namespace: String,
        /// The caller's.
        slug: String,
    },
    /// It is in use.
    #[error(transparent)]
    Delete(#[from] DeleteTemplateError),
    /// A bad tag.
    #[error("Invalid tag: {0}")]
    Tag(#[from] TagError),
    /// No tags at all.
    #[error("At least one tag is required")]
    NoTags,
    /// No ready build to be tagged.
    #[error("Template '{name}' with tag '{tag}' not found")]
    Target {
        /// The template asked for.
        name: String,
        /// Its tag.
        tag: String,
    },
    /// The tag that a plain name means.
    #[error("Cannot delete the 'default' tag")]
    DefaultTag,
    /// Which tags are meant is said elsewhere.
    #[error("Template name should not contain a tag, use the 'tags' field instead")]
    NameHasTag,
    /// Somebody else has the global name.
    #[error(
        "Public template name '{alias}' is already taken. Your template is available at \
         '{name}'. Please update your CLI to remove this error message."
    )]
    PublicName {
        /// The global name.
        alias: String,
        /// The one with namespace.
        name: String,
    },
    /// The database failed.
    #[error("change template")]
    Store(#[from] StoreError),
}
