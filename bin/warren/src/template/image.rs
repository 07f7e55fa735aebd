//! Templates as container images in files.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use serde_json::json;
use warren_client::{Client, Template};

use super::build::{finish, options, template_name};
use crate::cli::template::{Export, Import};
use crate::print::{self, line};

/// A file that is removed unless it got its name.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // After the rename there is none.
        std::fs::remove_file(&self.0).ok();
    }
}

/// `warren template export`.
pub(super) async fn export(
    client: &Client,
    args: &Export,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let output = &args.output;
    let mut name = output.file_name().context("name a file")?.to_owned();
    name.push(".part");
    let draft = Draft(output.with_file_name(name));
    let told = || format!("write {}", output.display());
    let mut file = tokio::fs::File::create(&draft.0).await.with_context(told)?;
    let length = client.export_template(&args.template, &mut file).await?;
    file.sync_all().await.with_context(told)?;
    std::fs::rename(&draft.0, output).with_context(told)?;
    if as_json {
        print::json(&json!({ "file": output, "bytes": length }))?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!(
        "{}: {} MiB",
        output.display(),
        length.div_ceil(1 << 20)
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// `warren template import`.
pub(super) async fn import(
    client: &Client,
    args: Import,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    let name = template_name(&args.name)?;
    let mut template = Template::from_image_archive(&args.file)?;
    match (args.start, args.ready) {
        (Some(start), Some(ready)) => template = template.start(start, ready),
        (_, Some(ready)) => template = template.ready(ready),
        _ => {}
    }
    finish(client, &template, options(&name, &args.limits), as_json).await?;
    Ok(ExitCode::SUCCESS)
}
