//! `warren template`: builds and the care of templates, through the same API as every other
//! client.

mod build;
mod image;
pub(crate) mod project;

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, bail};
use warren_client::{Client, TemplateInfo};

use crate::cli::sandbox::Format;
use crate::cli::template::{Choice, List, Template, TemplateCommand};
use crate::connection::{self, NO_SERVER};
use crate::print::{self, json, line, local, printable, table, warning};

/// Runs a command of the group.
pub(crate) fn run(args: Template) -> anyhow::Result<ExitCode> {
    let client = connection::client(args.connection)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(dispatch(&client, args.command)) {
        // Whoever read the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

async fn dispatch(client: &Client, command: TemplateCommand) -> anyhow::Result<ExitCode> {
    match command {
        TemplateCommand::Create(args) => build::create(client, args).await,
        TemplateCommand::Build(args) => build::build(client, args).await,
        TemplateCommand::Export(args) => image::export(client, &args).await,
        TemplateCommand::Import(args) => image::import(client, args).await,
        TemplateCommand::List(args) => list(client, args).await,
        TemplateCommand::Delete(args) => delete(client, &args).await,
        TemplateCommand::Publish(args) => publish(client, &args, true).await,
        TemplateCommand::Unpublish(args) => publish(client, &args, false).await,
    }
}

async fn list(client: &Client, args: List) -> anyhow::Result<ExitCode> {
    let mut templates = client
        .templates(args.team.as_deref())
        .await
        .context(NO_SERVER)?;
    for template in &mut templates {
        template.aliases.sort();
    }
    match args.format {
        Format::Json => json(&templates)?,
        Format::Pretty if templates.is_empty() => line("No templates found.")?,
        Format::Pretty => show(&templates)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(templates: &[TemplateInfo]) -> io::Result<()> {
    let header = [
        "ACCESS",
        "TEMPLATE ID",
        "TEMPLATE NAME",
        "VCPUS",
        "RAM MIB",
        "CREATED BY",
        "CREATED AT",
        "DISK SIZE MIB",
        "ENVD VERSION",
    ];
    let rows: Vec<Vec<String>> = templates
        .iter()
        .map(|template| {
            let access = if template.public { "Public" } else { "Private" };
            let creator = template.created_by.as_ref();
            vec![
                access.to_owned(),
                template.template_id.clone(),
                printable(&template.aliases.join(", ")),
                template.cpu_count.to_string(),
                template.memory_mb.to_string(),
                creator
                    .and_then(|user| user.email.clone())
                    .unwrap_or_default(),
                local(template.created_at),
                template.disk_size_mb.to_string(),
                template.envd_version.clone(),
            ]
        })
        .collect();
    table(&header, &rows)
}

/// The template that was named, or that of the configuration file.
fn chosen(args: &Choice) -> anyhow::Result<String> {
    if let Some(template) = &args.template {
        return Ok(template.clone());
    }
    let path = args.path.join(&args.config);
    let project = project::read(&path)?.with_context(|| {
        format!(
            "no template named\nhint: name one, or run where {} is",
            args.config.display()
        )
    })?;
    project
        .reference()
        .with_context(|| format!("{} names no template", path.display()))
}

/// Asks unless told not to; no answer is a no.
fn confirmed(question: &str, yes: bool) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        bail!("nobody to ask\nhint: say --yes");
    }
    write!(io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    let yes = matches!(answer.trim().to_lowercase().as_str(), "y" | "yes");
    if !yes {
        warning("Canceled");
    }
    Ok(yes)
}

async fn delete(client: &Client, args: &Choice) -> anyhow::Result<ExitCode> {
    let template = chosen(args)?;
    if !confirmed(&format!("Delete template {template}?"), args.yes)? {
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("- Deleting sandbox template {template}"))?;
    if !client.delete_template(&template).await? {
        bail!("template '{template}' not found");
    }
    // A file that named it has nothing to build on.
    if args.template.is_none() {
        project::remove(&args.path.join(&args.config))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn publish(client: &Client, args: &Choice, public: bool) -> anyhow::Result<ExitCode> {
    let template = chosen(args)?;
    let (question, doing) = if public {
        ("Publish", "Publishing")
    } else {
        ("Unpublish", "Unpublishing")
    };
    if !confirmed(&format!("{question} template {template}?"), args.yes)? {
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("- {doing} sandbox template {template}"))?;
    let names = client.publish_template(&template, public).await?;
    if public {
        for name in names {
            line(&format!("  Published as: {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
