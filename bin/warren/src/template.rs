//! `warren template`: builds and the care of templates, through the same API as every other
//! client.

mod build;
mod generate;
mod image;
mod ordered;
pub(crate) mod project;

use std::io;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::json;
use warren_client::{Client, TemplateInfo};

use crate::ask;
use crate::cli::connection::Connection;
use crate::cli::sandbox::Format;
use crate::cli::template::{Choice, List, Template, TemplateCommand};
use crate::connection::{self, reached};
use crate::print::{self, line, local, printable, table};

/// Runs a command of the group.
pub(crate) fn run(args: Template, as_json: bool) -> anyhow::Result<ExitCode> {
    // These two write files and ask no server.
    let command = match args.command {
        TemplateCommand::Init(args) => return generate::init(args, as_json),
        TemplateCommand::Migrate(args) => return generate::migrate(args, as_json),
        command => command,
    };
    let group = Group {
        client: connection::client(args.connection.clone())?,
        connection: args.connection,
        as_json,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match runtime.block_on(dispatch(&group, command)) {
        // Whoever read the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

/// What the commands of the group share.
#[derive(Debug)]
struct Group {
    client: Client,
    connection: Connection,
    as_json: bool,
}

async fn dispatch(group: &Group, command: TemplateCommand) -> anyhow::Result<ExitCode> {
    let (client, as_json) = (&group.client, group.as_json);
    match command {
        TemplateCommand::Create(args) => build::create(client, args, as_json).await,
        TemplateCommand::Build(args) => build::build(client, args, as_json).await,
        TemplateCommand::Export(args) => image::export(client, &args, as_json).await,
        TemplateCommand::Import(args) => image::import(client, args, as_json).await,
        TemplateCommand::List(args) => list(group, args).await,
        TemplateCommand::Delete(args) => delete(group, &args).await,
        TemplateCommand::Publish(args) => publish(group, &args, true).await,
        TemplateCommand::Unpublish(args) => publish(group, &args, false).await,
        TemplateCommand::Init(args) => generate::init(args, as_json),
        TemplateCommand::Migrate(args) => generate::migrate(args, as_json),
    }
}

async fn list(group: &Group, args: List) -> anyhow::Result<ExitCode> {
    let project = connection::project(&group.connection, args.project.named())?;
    let mut templates = group
        .client
        .templates(project.as_deref())
        .await
        .map_err(reached)?;
    for template in &mut templates {
        template.aliases.sort();
    }
    match args.format.or_json(group.as_json) {
        Format::Json => print::json(&templates)?,
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

/// The templates that were named, by argument, from a list, or in the configuration file.
/// `offered` says which the list shows.
async fn chosen(
    group: &Group,
    args: &Choice,
    offered: impl Fn(&TemplateInfo) -> bool,
) -> anyhow::Result<Vec<String>> {
    connection::require_project(&group.client, args.project.named()).await?;
    if let Some(template) = &args.template {
        return Ok(vec![template.clone()]);
    }
    if args.select {
        let project = connection::project(&group.connection, args.project.named())?;
        let mut templates = group.client.templates(project.as_deref()).await?;
        templates.retain(offered);
        if templates.is_empty() {
            bail!("there is no template to choose");
        }
        let shown: Vec<String> = templates
            .iter()
            .map(|one| format!("{} {}", one.template_id, printable(&one.aliases.join(", "))))
            .collect();
        let chosen = ask::several("Which templates?", &shown, "which template")?;
        return Ok(chosen
            .into_iter()
            .filter_map(|index| templates.get(index))
            .map(|one| one.template_id.clone())
            .collect());
    }
    let path = args.path.join(&args.config);
    let project = project::read(&path)?.with_context(|| {
        format!(
            "no template named\nhint: name one, choose with --select, or run where {} is",
            args.config.display()
        )
    })?;
    let named = project
        .reference()
        .with_context(|| format!("{} names no template", path.display()))?;
    Ok(vec![named])
}

/// Asks whether to go on with these.
fn agreed(doing: &str, templates: &[String], yes: bool) -> anyhow::Result<bool> {
    if templates.is_empty() {
        return Ok(false);
    }
    ask::confirmed(&format!("{doing} {}?", templates.join(", ")), yes)
}

async fn delete(group: &Group, args: &Choice) -> anyhow::Result<ExitCode> {
    let templates = chosen(group, args, |_| true).await?;
    if !agreed("Delete", &templates, args.yes)? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut told = Vec::new();
    for template in &templates {
        if !group.as_json {
            line(&format!("- Deleting sandbox template {template}"))?;
        }
        if !group.client.delete_template(template).await? {
            bail!("template '{template}' not found");
        }
        told.push(json!({ "template": template, "deleted": true }));
    }
    // A file that named it has nothing to build on.
    if args.template.is_none() && !args.select {
        project::remove(&args.path.join(&args.config))?;
    }
    if group.as_json {
        print::json(&told)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn publish(group: &Group, args: &Choice, public: bool) -> anyhow::Result<ExitCode> {
    let templates = chosen(group, args, |one| one.public != public).await?;
    let (question, doing) = if public {
        ("Publish", "Publishing")
    } else {
        ("Unpublish", "Unpublishing")
    };
    if !agreed(question, &templates, args.yes)? {
        return Ok(ExitCode::SUCCESS);
    }
    let mut told = Vec::new();
    for template in &templates {
        if !group.as_json {
            line(&format!("- {doing} sandbox template {template}"))?;
        }
        let names = group.client.publish_template(template, public).await?;
        if public && !group.as_json {
            for name in &names {
                line(&format!("  Published as: {name}"))?;
            }
        }
        told.push(json!({ "template": template, "public": public, "names": names }));
    }
    if group.as_json {
        print::json(&told)?;
    }
    Ok(ExitCode::SUCCESS)
}
