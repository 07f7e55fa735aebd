//! The grammar of `warren template`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::connection::{Connection, Project};
use super::sandbox::Format;

#[derive(Debug, Args)]
pub(crate) struct Template {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Build a template from a Dockerfile.
    #[command(visible_alias = "ct")]
    Create(Create),
    /// Build or rebuild the template that e2b.toml describes, and write that file.
    #[command(visible_alias = "bd")]
    Build(Build),
    /// List the team's templates.
    #[command(visible_alias = "ls")]
    List(List),
    /// Delete a template.
    #[command(visible_alias = "dl")]
    Delete(Choice),
    /// Write a template as a container image: an OCI image layout in a tar archive.
    Export(Export),
    /// Build a template from such an archive.
    Import(Import),
    /// Begin a template as a program for an SDK, or as a Dockerfile.
    #[command(visible_alias = "it")]
    Init(Init),
    /// Turn a Dockerfile and its e2b.toml into a program for an SDK.
    Migrate(Migrate),
    /// Let other teams use a template.
    #[command(visible_alias = "pb")]
    Publish(Choice),
    /// Keep a template to the own team.
    #[command(visible_alias = "upb")]
    Unpublish(Choice),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Typescript,
    PythonSync,
    PythonAsync,
}

#[derive(Debug, Args)]
#[group(skip)]
pub(crate) struct Init {
    /// Name of the template, and of the directory that is made for it.
    #[arg(value_name = "NAME")]
    pub(crate) positional: Option<String>,

    /// The same.
    #[arg(short, long, conflicts_with = "positional")]
    pub(crate) name: Option<String>,

    /// Directory to work in.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) path: PathBuf,

    /// Language of the program.
    #[arg(short, long, conflicts_with = "dockerfile")]
    pub(crate) language: Option<Language>,

    /// Write an e2b.Dockerfile instead of a program.
    #[arg(long)]
    pub(crate) dockerfile: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Name of the template [default: that of the configuration file].
    #[arg(short, long)]
    pub(crate) name: Option<String>,

    /// Configuration file, below the directory.
    #[arg(long, default_value = "e2b.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Language of the program.
    #[arg(short, long)]
    pub(crate) language: Option<Language>,

    #[command(flatten)]
    pub(crate) recipe: Recipe,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The template, by name or id, with an optional tag.
    pub(crate) template: String,

    /// File to write.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// The archive: an OCI image layout, as `template export`, skopeo, buildah and docker
    /// write it.
    pub(crate) file: PathBuf,

    /// Name of the template.
    #[arg(short, long)]
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) limits: Limits,

    /// Command that runs in each sandbox; needs --ready-cmd.
    #[arg(short = 'c', long = "cmd", value_name = "COMMAND", requires = "ready")]
    pub(crate) start: Option<String>,

    /// Command that succeeds once a sandbox is ready.
    #[arg(long = "ready-cmd", value_name = "COMMAND")]
    pub(crate) ready: Option<String>,
}

/// What a build takes beside its name.
#[derive(Debug, Args)]
pub(crate) struct Recipe {
    /// Directory that holds the Dockerfile and the files it copies.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) path: PathBuf,

    /// The Dockerfile, below that directory [default: e2b.Dockerfile, else Dockerfile].
    #[arg(short, long, value_name = "FILE")]
    pub(crate) dockerfile: Option<PathBuf>,

    /// Command that runs in each sandbox; needs --ready-cmd.
    #[arg(short = 'c', long = "cmd", value_name = "COMMAND")]
    pub(crate) start: Option<String>,

    /// Command that succeeds once a sandbox is ready.
    #[arg(long = "ready-cmd", value_name = "COMMAND")]
    pub(crate) ready: Option<String>,

    #[command(flatten)]
    pub(crate) limits: Limits,
}

/// Resources, and whether to begin anew.
#[derive(Debug, Args)]
pub(crate) struct Limits {
    /// CPUs of its sandboxes; 1 or an even number.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) cpu_count: Option<u32>,

    /// Memory of its sandboxes in MiB; even.
    #[arg(long = "memory-mb", value_name = "MIB", value_parser = even)]
    pub(crate) memory_mib: Option<u32>,

    /// Disk that its sandboxes have free, in MiB.
    #[arg(long = "min-free-disk-mb", value_name = "MIB")]
    pub(crate) min_free_disk_mib: Option<u32>,

    /// Run all steps though the server has their layers.
    #[arg(long)]
    pub(crate) no_cache: bool,
}

fn even(text: &str) -> Result<u32, String> {
    let number: u32 = text.parse().map_err(|error| format!("{error}"))?;
    if number == 0 || !number.is_multiple_of(2) {
        return Err(format!(
            "The memory in megabytes must be an even number. You provided {number}."
        ));
    }
    Ok(number)
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name of the template.
    pub(crate) name: String,

    #[command(flatten)]
    pub(crate) project: Project,

    #[command(flatten)]
    pub(crate) recipe: Recipe,
}

#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The template, by name or id [default: that of the configuration file].
    pub(crate) template: Option<String>,

    /// Name of the template, instead.
    #[arg(short, long)]
    pub(crate) name: Option<String>,

    /// Configuration file, below the directory.
    #[arg(long, default_value = "e2b.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,

    #[command(flatten)]
    pub(crate) project: Project,

    #[command(flatten)]
    pub(crate) recipe: Recipe,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) project: Project,

    #[arg(short, long, default_value = "pretty")]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// The template, by name or id [default: that of e2b.toml].
    pub(crate) template: Option<String>,

    /// Directory of e2b.toml.
    #[arg(short, long, default_value = ".", value_name = "DIR")]
    pub(crate) path: PathBuf,

    /// Configuration file, below the directory.
    #[arg(long, default_value = "e2b.toml", value_name = "FILE")]
    pub(crate) config: PathBuf,

    /// Choose from a list.
    #[arg(short, long, conflicts_with = "template")]
    pub(crate) select: bool,

    #[command(flatten)]
    pub(crate) project: Project,

    /// Do it without asking.
    #[arg(short, long)]
    pub(crate) yes: bool,
}
