//! An interactive shell in a sandbox.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use warren_client::{Commands, Error, Event, Exit, Process, Sandbox, Terminal};

use super::signals::Signals;
use super::terminal::{self, RawMode};
use crate::cli::sandbox::ShellOptions;
use crate::print::{raw, warning};

/// Time that a sandbox made for a terminal outlives a client that vanished.
pub(super) const LEASE: Duration = Duration::from_secs(30);
/// How often the lease is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// Time that ending the shell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Keys of one message.
const KEYS: usize = 16 << 10;
/// Exit code of a shell whose last command was interrupted.
const INTERRUPTED: i32 = 130;

/// Refuses to go on without a terminal.
pub(super) fn require_terminal() -> anyhow::Result<()> {
    if terminal::is_present() {
        return Ok(());
    }
    bail!(
        "standard input is not a terminal\nhint: use --detach, or run commands with `warren sandbox exec`"
    )
}

/// Opens a shell and returns when it has ended. With a lease, the sandbox ends that long
/// after this program has gone.
pub(super) async fn open(
    sandbox: &Sandbox,
    options: ShellOptions,
    lease: Option<Duration>,
) -> anyhow::Result<ExitCode> {
    require_terminal()?;
    let mut terminal = Terminal::new(terminal::size())
        .cwd(options.cwd)
        .user(options.user);
    for (name, value) in options.env {
        terminal = terminal.env(name, value);
    }
    let process = sandbox.commands().start_terminal(terminal).await?;
    let exit = tokio::select! {
        exit = drive(process) => exit?,
        error = renew(sandbox, lease) => return Err(error),
    };
    if exit.code > 0 && exit.code != INTERRUPTED {
        bail!("the shell ended with exit code {}", exit.code);
    }
    Ok(ExitCode::SUCCESS)
}

/// Joins this terminal and that of a process until the process ends. Asked to end itself, it
/// ends the process, as a terminal that is closed does.
pub(super) async fn drive(mut process: Process) -> anyhow::Result<Exit> {
    let (commands, pid) = (process.commands().clone(), process.pid());
    // Heard from before raw mode, which must not outlive this program.
    let mut signals = Signals::listen()?;
    let raw_mode = RawMode::enter().context("switch the terminal to raw mode")?;
    let input = std::pin::pin!(type_keys(&commands, pid));
    let sizes = std::pin::pin!(follow_size(&commands, pid));
    let (mut input, mut sizes) = (Some(input), Some(sizes));
    let exit = loop {
        tokio::select! {
            event = process.next() => match event {
                Ok(Some(Event::Stdout(bytes) | Event::Stderr(bytes))) => raw(&bytes)?,
                Ok(Some(Event::Exit(exit))) => break Ok(exit),
                Ok(None) => break Err(anyhow::anyhow!("the terminal was closed")),
                Err(error) => break Err(error.into()),
            },
            () = signals.any() => {
                drop(raw_mode);
                // Nobody waits for a server that does not answer.
                tokio::time::timeout(FAREWELL, process.kill()).await.ok();
                bail!("ended by a signal");
            }
            // What is typed once the process has gone has nowhere to go; its exit follows.
            _ = async { input.as_mut().expect("polled only while there").await }, if input.is_some() => {
                input = None;
            }
            _ = async { sizes.as_mut().expect("polled only while there").await }, if sizes.is_some() => {
                sizes = None;
            }
        }
    };
    drop(raw_mode);
    warning("");
    exit
}

/// Sends what is typed, in order, until the end of input.
async fn type_keys(commands: &Commands, pid: u32) -> anyhow::Result<()> {
    let mut stdin = terminal::input()?;
    let mut buffer = vec![0; KEYS];
    loop {
        let count = stdin.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let keys = buffer.get(..count).unwrap_or_default().to_vec();
        commands.send_terminal(pid, keys).await?;
    }
}

/// Tells each new size of the terminal, first that which it has got meanwhile.
async fn follow_size(commands: &Commands, pid: u32) -> anyhow::Result<()> {
    let mut changes = signal(SignalKind::window_change())?;
    loop {
        commands.resize(pid, terminal::size()).await?;
        if changes.recv().await.is_none() {
            return Ok(());
        }
    }
}

/// Keeps the sandbox alive for as long as this runs. Returns when it is gone.
async fn renew(sandbox: &Sandbox, lease: Option<Duration>) -> anyhow::Error {
    let Some(lease) = lease else {
        return std::future::pending().await;
    };
    loop {
        match sandbox.set_timeout(lease).await {
            Err(error) if error.is_not_found() => {
                return anyhow::Error::new(error).context("the sandbox has ended");
            }
            // The server may be restarting; the lease bridges that.
            Ok(()) | Err(Error::Transport { .. }) => {}
            Err(error) => return error.into(),
        }
        tokio::time::sleep(RENEW).await;
    }
}
