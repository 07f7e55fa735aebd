//! Types into a shell on a terminal, changes the terminal's size and reads what it shows.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use warren_client::{Client, Config, Event, NewSandbox, Process, Terminal, TerminalSize};

/// Reads until the terminal has shown a text.
async fn until(shell: &mut Process, text: &str) -> Result<(), warren_client::Error> {
    let mut shown = String::new();
    while let Some(event) = shell.next().await? {
        if let Event::Stdout(bytes) = event {
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        if shown.contains(text) {
            return Ok(());
        }
    }
    panic!("the shell ended before {text:?}: {shown:?}");
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;

    let size = TerminalSize {
        columns: 100,
        rows: 30,
    };
    let terminal = Terminal::new(size).env("PS1", "ready> ");
    let mut shell = sandbox.commands().start_terminal(terminal).await?;
    shell.send_terminal("stty size\n").await?;
    until(&mut shell, "30 100").await?;

    let size = TerminalSize {
        columns: 120,
        rows: 40,
    };
    shell.resize(size).await?;
    shell.send_terminal("stty size\n").await?;
    until(&mut shell, "40 120").await?;

    shell
        .send_terminal("echo now $((1+1)); sleep 600\n")
        .await?;
    until(&mut shell, "now 2").await?;
    // Ctrl-C is a byte like any other key.
    shell.send_terminal("\x03").await?;
    shell.send_terminal("echo code=$?; exit 7\n").await?;
    until(&mut shell, "code=130").await?;
    let exit = shell.wait().await?;
    assert_eq!(exit.code, 7);
    println!("the shell ended with {}", exit.code);

    sandbox.kill().await?;
    Ok(())
}
