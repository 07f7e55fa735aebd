//! Start and ready commands.

use std::collections::BTreeMap;

use warren_cluster::{NodeError, NodeHandle};
use warren_runtime::ExitCause;
use warren_runtime::fake::FakeCommand;
use warren_service::Chain;
use warren_types::StartCommand;

use crate::support::{Stand, alive, load_warm};

fn stand(ready_timeout_secs: u64) -> Stand {
    let mut stand = Stand::new();
    stand.image.start = Some(StartCommand {
        command: Some("serve".to_owned()),
        ready: "probe".to_owned(),
        user: "user".to_owned(),
        workdir: None,
        env: BTreeMap::new(),
        ready_timeout_secs,
    });
    stand.host.set_command("serve", FakeCommand::Runs("up"));
    stand
}

async fn refusal(stand: &Stand) -> String {
    let node = stand.node(0).await;
    let error = node.create(stand.request()).await.unwrap_err();
    assert!(matches!(error, NodeError::StartFailed(_)), "{error:?}");
    alive(&stand.host, 0).await;
    assert_eq!(stand.records(), 0);
    assert!(node.list().await.is_empty());
    Chain(&error).to_string()
}

#[tokio::test]
async fn a_create_waits_for_the_ready_command() {
    let stand = stand(60);
    stand.host.set_command("probe", FakeCommand::Ends("", 1));
    let node = stand.node(0).await;
    let create = node.create(stand.request());
    tokio::pin!(create);
    for _ in 0..20 {
        tokio::select! {
            biased;
            done = &mut create => panic!("handed out unready: {done:?}"),
            () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {}
        }
    }
    stand.host.set_command("probe", FakeCommand::Ends("", 0));
    create.await.unwrap();
    assert_eq!(node.list().await.len(), 1);
}

#[tokio::test]
async fn only_ready_ones_count_as_warm() {
    let stand = stand(60);
    stand.host.set_command("probe", FakeCommand::Ends("", 1));
    let node = stand.node(1).await;
    node.set_warm_builds(vec![stand.image.clone()]).await;
    alive(&stand.host, 1).await;
    assert_eq!(node.load().await.warm, 0);
    stand.host.set_command("probe", FakeCommand::Ends("", 0));
    load_warm(&node, 1).await;
    // A claim initialises again and does not start again.
    stand.host.set_command("serve", FakeCommand::Ends("", 9));
    node.create(stand.request()).await.unwrap();
}

#[tokio::test]
async fn a_start_command_that_fails_is_told_with_its_output_and_leaves_nothing() {
    let stand = stand(60);
    stand
        .host
        .set_command("serve", FakeCommand::Ends("no such program", 127));
    stand.host.set_command("probe", FakeCommand::Runs(""));
    let told = refusal(&stand).await;
    assert!(told.contains("exit status 127: no such program"), "{told}");
}

#[tokio::test]
async fn a_start_command_may_go_to_the_background() {
    let stand = stand(60);
    stand.host.set_command("serve", FakeCommand::Ends("", 0));
    let node = stand.node(0).await;
    node.create(stand.request()).await.unwrap();
}

#[tokio::test]
async fn one_that_is_never_ready_leaves_nothing() {
    let stand = stand(1);
    stand
        .host
        .set_command("probe", FakeCommand::Ends("refused", 7));
    let told = refusal(&stand).await;
    assert!(told.contains("not ready within 1s"), "{told}");
    assert!(told.contains("refused"), "{told}");
}

#[tokio::test]
async fn one_that_dies_while_it_is_waited_for_leaves_nothing() {
    let stand = stand(60);
    stand.host.set_command("probe", FakeCommand::Runs(""));
    let killer = async {
        alive(&stand.host, 1).await;
        // Let it come as far as the commands.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        for id in stand.host.alive() {
            stand.host.crash(&id, ExitCause::Died);
        }
    };
    let (told, ()) = tokio::join!(refusal(&stand), killer);
    assert!(told.contains("start sandbox"), "{told}");
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_leaves_nothing() {
    let stand = stand(60);
    stand.host.set_command("probe", FakeCommand::Runs(""));
    let node = stand.node(0).await;
    {
        let create = node.create(stand.request());
        tokio::pin!(create);
        tokio::select! {
            biased;
            done = &mut create => panic!("handed out unready: {done:?}"),
            () = alive(&stand.host, 1) => {}
        }
    }
    alive(&stand.host, 0).await;
    assert_eq!(stand.records(), 0);
}
