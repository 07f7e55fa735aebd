//! `warren sandbox`: what a person at a terminal does with sandboxes, through the same API
//! as every other client.

mod exec;
mod inspect;
mod list;
mod logs;
mod shell;
mod signals;
mod snapshot;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use warren_client::{AutoResume, Client, Error, NewSandbox};

use crate::cli::sandbox::{Create, Kill, OnTimeout, Pause, Sandbox, SandboxCommand};
use crate::connection::{self, reached};
use crate::print::{self, line, warning};
use crate::template::project;

/// Template of sandboxes that name none.
const DEFAULT_TEMPLATE: &str = "base";
/// Time that a resumed or detached sandbox gets unless told otherwise.
const LIFE: Duration = Duration::from_secs(300);

/// Runs a command of the group.
pub(crate) fn run(args: Sandbox, as_json: bool) -> anyhow::Result<ExitCode> {
    let client = connection::client(args.connection)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(dispatch(&client, args.command, as_json));
    // A read of standard input may never return.
    runtime.shutdown_background();
    match result {
        // Whoever read the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

async fn dispatch(
    client: &Client,
    command: SandboxCommand,
    as_json: bool,
) -> anyhow::Result<ExitCode> {
    match command {
        SandboxCommand::Create(args) => create(client, args, as_json).await,
        SandboxCommand::Spawn(mut args) => {
            if args.template.is_none() {
                let project = project::read(&args.path.join(&args.config))?;
                args.template = project.and_then(|project| project.reference());
            }
            create(client, args, as_json).await
        }
        SandboxCommand::Connect(args) => {
            let sandbox = found(client.connect(&args.id, LIFE).await, &args.id)?;
            shell::open(&sandbox, args.shell, None).await
        }
        SandboxCommand::List(args) => list::run(client, args, as_json).await,
        SandboxCommand::Info(args) => inspect::info(client, args, as_json).await,
        SandboxCommand::Kill(args) => kill(client, args, as_json).await,
        SandboxCommand::Pause(args) => pause(client, &args, as_json).await,
        SandboxCommand::Resume(args) => {
            found(client.connect(&args.id, LIFE).await, &args.id)?;
            done(
                as_json,
                &json!({ "sandboxID": args.id, "state": "running" }),
                &format!("Sandbox {} has been resumed", args.id),
            )
        }
        SandboxCommand::Timeout(args) => {
            let time = Duration::from_secs(args.seconds.into());
            found(client.set_timeout(&args.id, time).await, &args.id)?;
            done(
                as_json,
                &json!({ "sandboxID": args.id, "timeout": args.seconds }),
                &format!("Sandbox {} ends in {} s", args.id, args.seconds),
            )
        }
        SandboxCommand::Logs(args) => logs::run(client, args, as_json).await,
        SandboxCommand::Metrics(args) => inspect::metrics(client, args, as_json).await,
        SandboxCommand::Exec(args) => exec::run(client, args, as_json).await,
        SandboxCommand::Snapshot(args) => snapshot::run(client, args, as_json).await,
    }
}

/// Prints what was done, for programs or for people.
fn done(as_json: bool, value: &serde_json::Value, text: &str) -> anyhow::Result<ExitCode> {
    print::done(as_json, value, text)?;
    Ok(ExitCode::SUCCESS)
}

/// Names the sandbox in the error of one that does not exist, and what to do about a server
/// that does not answer.
fn found<T>(result: Result<T, Error>, id: &str) -> anyhow::Result<T> {
    match result {
        Err(error) if error.is_not_found() => bail!("Sandbox {id} wasn't found"),
        result => result.map_err(reached),
    }
}

async fn create(client: &Client, args: Create, as_json: bool) -> anyhow::Result<ExitCode> {
    if args.auto_resume && args.on_timeout != Some(OnTimeout::Pause) {
        bail!("--lifecycle.autoresume needs --lifecycle.ontimeout pause");
    }
    if !args.detach {
        shell::require_terminal()?;
    }
    connection::require_project(client, args.project.named()).await?;
    let template = args.template.as_deref().unwrap_or(DEFAULT_TEMPLATE);
    let life = args
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    let new = NewSandbox {
        template_id: template.to_owned(),
        timeout: i32::try_from(life.unwrap_or(LIFE).as_secs()).ok(),
        auto_pause: args.on_timeout.map(|action| action == OnTimeout::Pause),
        auto_resume: args.auto_resume.then_some(AutoResume { enabled: true }),
        env_vars: Some(args.shell.env.iter().cloned().collect()),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await.map_err(reached)?;
    if args.detach {
        let made = json!({ "sandboxID": sandbox.id(), "template": template });
        return done(as_json, &made, sandbox.id());
    }
    warning(&format!(
        "Terminal connected to template {template} with sandbox ID {}",
        sandbox.id()
    ));
    let result = shell::open(&sandbox, args.shell, Some(life.unwrap_or(shell::LEASE))).await;
    // It was made for this terminal; one that was closed by a lost connection ends with its lease.
    let rest = life.unwrap_or(Duration::from_secs(1));
    if let Err(error) = sandbox.set_timeout(rest).await
        && !error.is_not_found()
    {
        warning(&format!("could not end the sandbox: {error}"));
    }
    warning(&format!(
        "Closing terminal connection to template {template} with sandbox ID {}",
        sandbox.id()
    ));
    result
}

async fn kill(client: &Client, args: Kill, as_json: bool) -> anyhow::Result<ExitCode> {
    let mut told = Vec::new();
    let ids = if args.all {
        let mut query = list::query(&args.filter);
        if query.states.is_empty() {
            query.states.push(warren_client::State::Running);
        }
        let (listed, _) = list::collect(client, query, 0).await?;
        listed.into_iter().map(|one| one.sandbox_id).collect()
    } else {
        args.ids
    };
    let mut killed = 0;
    for id in &ids {
        let was_there = client.kill(id).await?;
        killed += usize::from(was_there);
        told.push(json!({ "sandboxID": id, "killed": was_there }));
        if as_json || args.all {
            continue;
        }
        if was_there {
            line(&format!("Sandbox {id} has been killed"))?;
        } else {
            warning(&format!("Sandbox {id} wasn't found"));
        }
    }
    if as_json {
        print::json(&told)?;
    } else if args.all && killed == 0 {
        line("No running sandboxes")?;
    } else if args.all {
        line(&format!("Killed {killed} running sandboxes"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn pause(client: &Client, args: &Pause, as_json: bool) -> anyhow::Result<ExitCode> {
    let id = &args.id;
    let changed = found(client.pause(id, !args.files_only).await, id)?;
    let text = if changed {
        format!("Sandbox {id} has been paused")
    } else {
        format!("Sandbox {id} is already paused")
    };
    let value = json!({ "sandboxID": id, "state": "paused", "changed": changed });
    done(as_json, &value, &text)
}
