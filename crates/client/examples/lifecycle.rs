//! Pauses and resumes a sandbox, copies it while it runs, and makes a snapshot of it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use warren_client::{Client, Command, Config, NewSandbox, SnapshotQuery, State};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let new = NewSandbox {
        template_id: "base".into(),
        timeout: Some(120),
        ..NewSandbox::default()
    };
    let sandbox = client.create(&new).await?;
    sandbox.files().write("kept", "as it was").await?;
    let sleeper = sandbox
        .commands()
        .start(Command::new("sleep 600").timeout(None))
        .await?;
    let pid = sleeper.pid();
    drop(sleeper);

    assert!(sandbox.pause().await?);
    assert_eq!(sandbox.detail().await?.listed.state, State::Paused);
    assert!(!sandbox.is_running().await?);
    let sandbox = sandbox.resume(Duration::from_secs(120)).await?;
    // Processes go on where they were.
    let processes = sandbox.commands().list().await?;
    assert!(processes.iter().any(|process| process.pid == pid));

    for copy in sandbox.fork(2, Duration::from_secs(60)).await? {
        let copy = copy?;
        assert_ne!(copy.id(), sandbox.id());
        assert_eq!(copy.files().read("kept").await?, "as it was");
        let processes = copy.commands().list().await?;
        assert!(processes.iter().any(|process| process.pid == pid));
        copy.kill().await?;
    }

    let snapshot = sandbox.snapshot(None).await?;
    println!("made snapshot {}", snapshot.snapshot_id);
    let query = SnapshotQuery {
        sandbox_id: Some(sandbox.id().into()),
        ..SnapshotQuery::default()
    };
    let (listed, _next) = client.snapshots(&query).await?;
    assert!(
        listed
            .iter()
            .any(|one| one.snapshot_id == snapshot.snapshot_id)
    );
    sandbox.kill().await?;

    let again = client
        .create(&NewSandbox {
            template_id: snapshot.snapshot_id.clone(),
            timeout: Some(60),
            ..NewSandbox::default()
        })
        .await?;
    assert_eq!(again.files().read("kept").await?, "as it was");
    again.kill().await?;
    assert!(client.delete_template(&snapshot.snapshot_id).await?);
    Ok(())
}
