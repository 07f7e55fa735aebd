//! Builds from Dockerfiles.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, bail};
use serde_json::json;
use warren_client::{BuildLogEntry, BuildOptions, Client, Error, LogLevel, Template};

use super::project::{self, Project};
use crate::cli::template::{Build, Create, Limits, Recipe};
use crate::connection::{self, NO_SERVER};
use crate::print::{self, line, printable, warning};

/// Names looked for when no Dockerfile is named.
const DOCKERFILES: [&str; 2] = ["e2b.Dockerfile", "Dockerfile"];
/// Longest name of a template.
const NAME: usize = 128;

/// `warren template create`: builds under a name.
pub(super) async fn create(
    client: &Client,
    args: Create,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let name = template_name(&args.name)?;
    if args.recipe.start.is_some() && args.recipe.ready.is_none() {
        bail!("Both start and ready commands must be provided.");
    }
    connection::require_project(client, args.project.named()).await?;
    run(client, &name, &args.recipe, None, as_json).await?;
    Ok(ExitCode::SUCCESS)
}

/// `warren template build`: builds what the configuration file describes.
pub(super) async fn build(client: &Client, args: Build, as_json: bool) -> anyhow::Result<ExitCode> {
    connection::require_project(client, args.project.named()).await?;
    let path = args.recipe.path.join(&args.config);
    let mut project = project::read(&path)?.unwrap_or_default();
    let named = args.name.or_else(|| project.reference()).or(args.template);
    let Some(named) = named else {
        bail!("no template named\nhint: name one with --name");
    };
    let name = template_name(&named)?;
    let mut recipe = args.recipe;
    recipe.dockerfile = recipe
        .dockerfile
        .or_else(|| project.dockerfile.as_ref().map(PathBuf::from));
    recipe.start = recipe.start.or_else(|| project.start_cmd.clone());
    recipe.ready = recipe.ready.or_else(|| project.ready_cmd.clone());
    let limits = &mut recipe.limits;
    limits.cpu_count = limits.cpu_count.or(project.cpu_count);
    limits.memory_mib = limits.memory_mib.or(project.memory_mb);
    let built = run(client, &name, &recipe, Some(&mut project), as_json).await?;
    project.template_id = Some(built);
    project.template_name = Some(name);
    project.start_cmd = recipe.start;
    project.ready_cmd = recipe.ready;
    project.cpu_count = recipe.limits.cpu_count;
    project.memory_mb = recipe.limits.memory_mib;
    project::write(&path, &project)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn template_name(text: &str) -> anyhow::Result<String> {
    let name = text.trim().to_lowercase();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
    let reason = if name.is_empty() {
        "It is empty."
    } else if name.len() > NAME {
        "It is longer than 128 characters."
    } else if !name.chars().all(plain) {
        "It may hold letters, digits, - and _."
    } else {
        return Ok(name);
    };
    bail!("Template name {text} is not valid. {reason}")
}

/// Finds and reads the Dockerfile.
pub(super) fn dockerfile(recipe: &Recipe) -> anyhow::Result<(PathBuf, String)> {
    let candidates: Vec<PathBuf> = match &recipe.dockerfile {
        Some(name) => vec![name.clone()],
        None => DOCKERFILES.map(PathBuf::from).into(),
    };
    for name in &candidates {
        let path = recipe.path.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => return Ok((name.clone(), text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
    let names: Vec<String> = candidates
        .iter()
        .map(|name| name.display().to_string())
        .collect();
    bail!(
        "no {} in {}\nhint: name the directory with --path, or the file with --dockerfile",
        names.join(" or "),
        recipe.path.display()
    )
}

/// Builds; returns the id of the template.
async fn run(
    client: &Client,
    name: &str,
    recipe: &Recipe,
    project: Option<&mut Project>,
    as_json: bool,
) -> anyhow::Result<String> {
    let (file, text) = dockerfile(recipe)?;
    let file = Path::new(&file).display().to_string();
    progress(
        as_json,
        &format!("Found ./{file} that will be used to build the sandbox template."),
    )?;
    if let Some(project) = project {
        project.dockerfile = Some(file);
    }
    let (mut template, notes) = Template::from_dockerfile(&text)?;
    for note in notes {
        warning(&format!("warning: {note}"));
    }
    template = template.context(&recipe.path);
    match (&recipe.start, &recipe.ready) {
        (Some(start), Some(ready)) => template = template.start(start, ready),
        (Some(start), None) => template = template.start(start, "sleep 20"),
        (None, Some(ready)) => template = template.ready(ready),
        (None, None) => {}
    }
    finish(client, &template, options(name, &recipe.limits), as_json).await
}

/// What is asked of a build beside its steps.
pub(super) fn options(name: &str, limits: &Limits) -> BuildOptions {
    BuildOptions {
        name: name.to_owned(),
        cpu_count: limits.cpu_count,
        memory_mib: limits.memory_mib,
        min_free_disk_mib: limits.min_free_disk_mib,
        skip_cache: limits.no_cache,
        ..BuildOptions::default()
    }
}

/// Builds and shows the log; returns the id of the template.
pub(super) async fn finish(
    client: &Client,
    template: &Template,
    options: BuildOptions,
    as_json: bool,
) -> anyhow::Result<String> {
    let name = &options.name;
    progress(as_json, "Building sandbox template...")?;
    let start = Instant::now();
    let mut closed = Ok(());
    let result = client
        .build(template, &options, |entry| {
            if closed.is_ok() {
                closed = show(start, entry, as_json);
            }
        })
        .await;
    closed?;
    match result {
        Ok(build) if as_json => {
            print::json(&json!({
                "templateID": build.template_id,
                "buildID": build.build_id,
                "name": name,
            }))?;
            Ok(build.template_id)
        }
        Ok(build) => {
            line(&format!("✅ Building sandbox template {name} finished."))?;
            line(&format!(
                "\nCreate a sandbox of it:\n\n  warren sandbox create {name}"
            ))?;
            Ok(build.template_id)
        }
        Err(Error::Build { message, step }) => {
            progress(as_json, "❌ Template build failed.")?;
            match step {
                Some(step) => bail!("{message} (step {step})"),
                None => bail!("{message}"),
            }
        }
        Err(error @ Error::Transport { .. }) => Err(error).context(NO_SERVER),
        Err(error) => Err(error.into()),
    }
}

/// Tells how far it is: on standard error if the result is for a program.
fn progress(as_json: bool, text: &str) -> io::Result<()> {
    if as_json {
        warning(text);
        return Ok(());
    }
    line(text)
}

fn show(start: Instant, entry: &BuildLogEntry, as_json: bool) -> io::Result<()> {
    let word = match entry.level {
        LogLevel::Debug => return Ok(()),
        LogLevel::Info => "INFO ",
        LogLevel::Warn => "WARN ",
        LogLevel::Error => "ERROR",
    };
    let seconds = start.elapsed().as_secs_f64();
    progress(
        as_json,
        &format!("{seconds:>6.1}s | {word} {}", printable(&entry.message)),
    )
}

#[cfg(test)]
mod tests {
    use super::template_name;

    #[test]
    fn names_are_normalised_or_refused() {
        assert_eq!(template_name(" My-Tpl_1 ").unwrap(), "my-tpl_1");
        for bad in ["", "a b", "a/b", "a:b", &"x".repeat(129)] {
            assert!(template_name(bad).is_err(), "{bad}");
        }
    }
}
