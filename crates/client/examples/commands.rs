//! Runs commands: to their end, followed as they go, with input, and in the background.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use warren_client::{Client, Code, Command, Config, Error, Event, NewSandbox};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    let commands = sandbox.commands();

    let output = commands.run("echo out; echo err >&2; exit 3").await?;
    assert_eq!(output.stdout_text(), "out\n");
    assert_eq!(output.stderr_text(), "err\n");
    assert_eq!(output.exit.code, 3);

    let command = Command::new("for i in 1 2 3; do echo $i of $OF; sleep 0.1; done")
        .user("root")
        .cwd("/tmp")
        .env("OF", "3");
    let mut process = commands.start(command).await?;
    let mut seen = String::new();
    while let Some(event) = process.next().await? {
        match event {
            Event::Stdout(bytes) => seen.push_str(&String::from_utf8_lossy(&bytes)),
            Event::Stderr(bytes) => println!("{bytes:?}"),
            Event::Exit(exit) => assert_eq!(exit.code, 0),
        }
    }
    assert_eq!(seen, "1 of 3\n2 of 3\n3 of 3\n");

    let mut sort = commands.start(Command::new("sort").stdin()).await?;
    sort.send_stdin("b\na\n").await?;
    sort.close_stdin().await?;
    while let Some(event) = sort.next().await? {
        if let Event::Stdout(bytes) = event {
            assert_eq!(bytes, "a\nb\n");
        }
    }

    let background = commands
        .start(Command::new("sleep 600").timeout(None))
        .await?;
    let pid = background.pid();
    drop(background);
    let running = commands.list().await?;
    assert!(running.iter().any(|process| process.pid == pid));
    let mut again = commands.connect(pid).await?;
    assert!(commands.kill(pid).await?);
    assert_eq!(again.wait().await?.code, -1);

    let slow = Command::new("sleep 60").timeout(Some(Duration::from_millis(300)));
    match commands.run(slow).await {
        Err(Error::Agent { source, .. }) => assert_eq!(source.code, Code::DeadlineExceeded),
        other => panic!("{other:?}"),
    }

    sandbox.kill().await?;
    Ok(())
}
