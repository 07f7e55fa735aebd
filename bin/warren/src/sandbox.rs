//! `warren sandbox`: what a person at a terminal does with sandboxes, through the same API
//! as every other client.

mod exec;
mod inspect;
mod list;
mod logs;

mod shell;
mod snapshot;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use warren_client::{AutoResume, Client, Error, NewSandbox};

use crate::cli::sandbox::{Create, Kill, OnTimeout, Pause, Sandbox, SandboxCommand};
use crate::connection::{self, NO_SERVER};
use crate::print::{self, line, warning};

/// Time that a resumed or detached sandbox gets unless told otherwise.
const LIFE: Duration = Duration::from_secs(300);

/// Runs a command of the group.
pub(crate) fn run(args: Sandbox) -> anyhow::Result<ExitCode> {
    let client = connection::client(args.connection)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(dispatch(&client, args.command));
    // A read of standard input may never return.
    runtime.shutdown_background();
    match result {
        // Whoever read the output has seen enough.
        Err(error) if print::is_broken_pipe(&error) => Ok(ExitCode::SUCCESS),
        result => result,
    }
}

async fn dispatch(client: &Client, command: SandboxCommand) -> anyhow::Result<ExitCode> {
    match command {
        SandboxCommand::Create(args) => create(client, args).await,
        SandboxCommand::Connect(args) => {
            let sandbox = found(client.connect(&args.id, LIFE).await, &args.id)?;
            shell::open(&sandbox, args.shell, None).await
        }
        SandboxCommand::List(args) => list::run(client, args).await,
        SandboxCommand::Info(args) => inspect::info(client, args).await,
        SandboxCommand::Kill(args) => kill(client, args).await,
        SandboxCommand::Pause(args) => pause(client, &args).await,
        SandboxCommand::Resume(args) => {
            found(client.connect(&args.id, LIFE).await, &args.id)?;
            line(&format!("Sandbox {} has been resumed", args.id))?;
            Ok(ExitCode::SUCCESS)
        }
        SandboxCommand::Timeout(args) => {
            let time = Duration::from_secs(args.seconds.into());
            found(client.set_timeout(&args.id, time).await, &args.id)?;
            line(&format!("Sandbox {} ends in {} s", args.id, args.seconds))?;
            Ok(ExitCode::SUCCESS)
        }
        SandboxCommand::Logs(args) => logs::run(client, args).await,
        SandboxCommand::Metrics(args) => inspect::metrics(client, args).await,
        SandboxCommand::Exec(args) => exec::run(client, args).await,
        SandboxCommand::Snapshot(args) => snapshot::run(client, args).await,
    }
}

/// Names the sandbox in the error of one that does not exist, and what to do about a server
/// that does not answer.
fn found<T>(result: Result<T, Error>, id: &str) -> anyhow::Result<T> {
    match result {
        Err(error) if error.is_not_found() => bail!("Sandbox {id} wasn't found"),
        Err(error @ Error::Transport { .. }) => Err(error).context(NO_SERVER),
        result => Ok(result?),
    }
}

async fn create(client: &Client, args: Create) -> anyhow::Result<ExitCode> {
    if args.auto_resume && args.on_timeout != Some(OnTimeout::Pause) {
        bail!("--lifecycle.autoresume needs --lifecycle.ontimeout pause");
    }
    if !args.detach {
        shell::require_terminal()?;
    }
    let life = args
        .timeout
        .map(|seconds| Duration::from_secs(seconds.into()));
    let new = NewSandbox {
        template_id: args.template.clone(),
        timeout: i32::try_from(life.unwrap_or(LIFE).as_secs()).ok(),
        auto_pause: args.on_timeout.map(|action| action == OnTimeout::Pause),
        auto_resume: args.auto_resume.then_some(AutoResume { enabled: true }),
        env_vars: Some(args.shell.env.iter().cloned().collect()),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await.map_err(|error| match error {
        error @ Error::Transport { .. } => anyhow::Error::new(error).context(NO_SERVER),
        error => error.into(),
    })?;
    if args.detach {
        line(sandbox.id())?;
        return Ok(ExitCode::SUCCESS);
    }
    warning(&format!(
        "Terminal connected to template {} with sandbox ID {}",
        args.template,
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
        "Closing terminal connection to template {} with sandbox ID {}",
        args.template,
        sandbox.id()
    ));
    result
}

async fn kill(client: &Client, args: Kill) -> anyhow::Result<ExitCode> {
    if !args.all {
        for id in &args.ids {
            if client.kill(id).await? {
                line(&format!("Sandbox {id} has been killed"))?;
            } else {
                warning(&format!("Sandbox {id} wasn't found"));
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut query = list::query(&args.filter);
    if query.states.is_empty() {
        query.states.push(warren_client::State::Running);
    }
    let (listed, _) = list::collect(client, query, 0).await?;
    let mut killed = 0;
    for sandbox in listed {
        killed += usize::from(client.kill(&sandbox.sandbox_id).await?);
    }
    if killed == 0 {
        line("No running sandboxes")?;
    } else {
        line(&format!("Killed {killed} running sandboxes"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn pause(client: &Client, args: &Pause) -> anyhow::Result<ExitCode> {
    let id = &args.id;
    if found(client.pause(id, !args.files_only).await, id)? {
        line(&format!("Sandbox {id} has been paused"))?;
    } else {
        line(&format!("Sandbox {id} is already paused"))?;
    }
    Ok(ExitCode::SUCCESS)
}
