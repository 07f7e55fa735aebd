//! Makes a sandbox, finds it in the list, gives it more time and ends it.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::time::Duration;

use warren_client::{Client, Config, ListQuery, NewSandbox};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::new(Config::from_env()?)?;
    let label = format!("example-{}", std::process::id());
    let sandbox = client
        .create(&NewSandbox {
            template_id: "base".into(),
            timeout: Some(120),
            metadata: Some(BTreeMap::from([("job".into(), label.clone())])),
            env_vars: Some(BTreeMap::from([("GREETING".into(), "hello".into())])),
            ..NewSandbox::default()
        })
        .await?;
    println!("made {}", sandbox.id());

    let output = sandbox.commands().run("echo $GREETING; whoami").await?;
    assert_eq!(output.stdout_text(), "hello\nuser\n");

    let page = client
        .list(&ListQuery {
            metadata: BTreeMap::from([("job".into(), label)]),
            ..ListQuery::default()
        })
        .await?;
    assert_eq!(page.sandboxes.len(), 1);
    assert_eq!(page.sandboxes[0].sandbox_id, sandbox.id());

    sandbox.set_timeout(Duration::from_secs(300)).await?;
    let detail = sandbox.detail().await?;
    println!("{} ends at {}", sandbox.id(), detail.listed.end_at);
    assert!(sandbox.is_running().await?);

    assert!(sandbox.kill().await?);
    assert!(!sandbox.kill().await?, "it is gone");
    Ok(())
}
