//! `warren sandbox exec`.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::bail;
use rustix::fs::FileType;
use tokio::io::AsyncReadExt;
use warren_client::{
    Client, Command, Commands, Error, Event, Exit, Process, Sandbox, Terminal, join_words,
};

use super::signals::Signals;
use super::{LIFE, found, shell, terminal};
use crate::cli::sandbox::Exec;
use crate::print::{self, raw, warning};

/// Bytes of one message to standard input.
const PIECE: usize = 64 << 10;
/// Exit code of a program whose reader went away, as shells tell it.
const BROKEN_PIPE: u8 = 141;

/// Runs a command in a sandbox.
pub(super) async fn run(client: &Client, args: Exec, as_json: bool) -> anyhow::Result<ExitCode> {
    let Some((id, words)) = args.words.split_first() else {
        bail!("missing required argument 'SANDBOX_ID'");
    };
    let words = match words.split_first() {
        Some((first, rest)) if first == "--" => rest,
        _ => words,
    };
    if words.is_empty() {
        bail!("missing command to execute");
    }
    let sandbox = found(client.connect(id, LIFE).await, id)?;
    let line = shell_line(words);
    if args.tty {
        return on_terminal(&sandbox, line, args).await;
    }
    let piped = !args.background && is_data(io::stdin())?;
    let mut command = Command::new(line).timeout(None);
    if piped {
        command = command.stdin();
    }
    if let Some(user) = args.shell.user {
        command = command.user(user);
    }
    if let Some(dir) = args.shell.cwd {
        command = command.cwd(dir);
    }
    for (name, value) in args.shell.env {
        command = command.env(name, value);
    }
    // Heard from before the command starts, so that no interrupt leaves it behind.
    let signals = Signals::listen()?;
    let process = sandbox.commands().start(command).await?;
    if args.background {
        if as_json {
            print::json(&serde_json::json!({ "pid": process.pid() }))?;
        } else {
            warning(&process.pid().to_string());
        }
        return Ok(ExitCode::SUCCESS);
    }
    follow(process, piped, signals).await
}

async fn on_terminal(sandbox: &Sandbox, line: String, args: Exec) -> anyhow::Result<ExitCode> {
    shell::require_terminal()?;
    let mut program = Terminal::new(terminal::size())
        .line(line)
        .cwd(args.shell.cwd)
        .user(args.shell.user);
    for (name, value) in args.shell.env {
        program = program.env(name, value);
    }
    let process = sandbox.commands().start_terminal(program).await?;
    Ok(exit_code(&shell::drive(process).await?))
}

/// One word is shell text; several are quoted, so that the command gets them as they are.
fn shell_line(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        words => join_words(words),
    }
}

/// Whether standard input brings data: a pipe, a file or a socket.
fn is_data(input: impl AsFd) -> anyhow::Result<bool> {
    let stat = match rustix::fs::fstat(input) {
        Ok(stat) => stat,
        Err(rustix::io::Errno::BADF) => return Ok(false),
        Err(error) => return Err(io::Error::from(error).into()),
    };
    Ok(matches!(
        FileType::from_raw_mode(stat.st_mode),
        FileType::Fifo | FileType::RegularFile | FileType::Socket
    ))
}

/// Copies output, delivers input and passes on the wish to end, until the process has ended.
async fn follow(
    mut process: Process,
    piped: bool,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let (commands, pid) = (process.commands().clone(), process.pid());
    let mut delivery = std::pin::pin!(deliver(&commands, pid));
    let mut delivered = !piped;
    let mut stderr = io::stderr();
    let exit = loop {
        let copied = tokio::select! {
            event = process.next() => match event? {
                Some(Event::Stdout(bytes)) => raw(&bytes),
                Some(Event::Stderr(bytes)) => stderr.write_all(&bytes),
                Some(Event::Exit(exit)) => break exit,
                None => bail!("the stream of the command was cut"),
            },
            result = &mut delivery, if !delivered => {
                delivered = true;
                if let Err(error) = result {
                    process.kill().await?;
                    return Err(error);
                }
                Ok(())
            }
            () = signals.any() => {
                process.kill().await?;
                Ok(())
            }
        };
        match copied {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                process.kill().await?;
                return Ok(ExitCode::from(BROKEN_PIPE));
            }
            copied => copied?,
        }
    };
    if !delivered {
        warning("warren: Remote command exited before stdin could be delivered.");
    }
    Ok(exit_code(&exit))
}

/// Sends standard input to its end. Does not return if the process has ended before that:
/// its exit is on the way.
async fn deliver(commands: &Commands, pid: u32) -> anyhow::Result<()> {
    let mut stdin = terminal::input()?;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = stdin.read(&mut buffer).await?;
        let sent = match buffer.get(..count) {
            Some(piece) if !piece.is_empty() => commands.send_stdin(pid, piece.to_vec()).await,
            _ => commands.close_stdin(pid).await,
        };
        match sent {
            Ok(()) if count == 0 => return Ok(()),
            Ok(()) => {}
            // It has ended, or closed its input.
            Err(Error::Agent { .. }) => return std::future::pending().await,
            Err(error) => return Err(error.into()),
        }
    }
}

fn exit_code(exit: &Exit) -> ExitCode {
    match u8::try_from(exit.code) {
        Ok(code) => ExitCode::from(code),
        Err(_) => {
            let how = exit.error.as_deref().unwrap_or("no exit code");
            warning(&format!("the command ended: {how}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn line(words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        shell_line(&words)
    }

    #[test]
    fn one_word_is_shell_text_and_several_are_quoted() {
        assert_eq!(line(&["echo $HOME | wc"]), "echo $HOME | wc");
        assert_eq!(line(&["echo", "a b"]), "echo 'a b'");
    }

    #[test]
    fn pipes_and_files_bring_data_and_devices_do_not() {
        let (pipe, _writer) = io::pipe().unwrap();
        assert!(is_data(&pipe).unwrap());
        assert!(is_data(tempfile::tempfile().unwrap()).unwrap());
        assert!(!is_data(File::open("/dev/null").unwrap()).unwrap());
    }
}
