//! Ready states of builds with a start command.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use warren_cluster::{NodeHandle, PauseSandbox};
use warren_runtime::fake::FakeCommand;
use warren_types::{EndReason, StartCommand};

use crate::support::{Stand, alive, load_warm};

/// A build whose start is worth a capture.
fn stand() -> Stand {
    let mut stand = Stand::new();
    stand.capture_from = Some(Duration::ZERO);
    stand.image.start = Some(StartCommand {
        command: Some("serve".to_owned()),
        ready: "probe".to_owned(),
        user: "user".to_owned(),
        workdir: None,
        env: BTreeMap::new(),
        ready_timeout_secs: 60,
    });
    stand.host.set_command("serve", FakeCommand::Runs("up"));
    stand
}

#[tokio::test]
async fn the_start_command_runs_once_and_its_state_serves_all_others() {
    let stand = stand();
    let node = stand.node(4).await;
    node.set_warm_builds(vec![stand.image.clone()]).await;
    load_warm(&node, 1).await;
    assert_eq!((stand.host.boots(), stand.host.restores()), (2, 1));
    assert_eq!(stand.host.captures().len(), 1);
    // What was captured is gone: its processes know what it was called.
    assert!(stand.host.frozen().is_empty());
    alive(&stand.host, 1).await;
    // From here on nothing can be started: what comes was restored.
    stand.host.set_command("serve", FakeCommand::Ends("", 9));
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(node.create(stand.request()).await.unwrap().id);
    }
    assert!(stand.host.restores() >= 2);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 3, "each has an id of its own");
    // Sandboxes made of it are like others.
    let pause = PauseSandbox {
        memory: true,
        healthy_guest: false,
    };
    node.pause(&ids[0], pause).await.unwrap();
    node.end(&ids[0], EndReason::Killed).await.unwrap();
    // Nobody wants the build any more.
    node.set_warm_builds(Vec::new()).await;
    assert_eq!(node.load().await.running, 2);
}

#[tokio::test]
async fn a_state_that_cant_be_had_is_done_without() {
    let refused = stand();
    refused
        .host
        .refuse_checkpoints(Some("a process uses io_uring"));
    let broken = stand();
    broken.host.fail_next_capture(io::ErrorKind::StorageFull);
    for stand in [refused, broken] {
        let node = stand.node(4).await;
        node.set_warm_builds(vec![stand.image.clone()]).await;
        load_warm(&node, 1).await;
        node.create(stand.request()).await.unwrap();
        load_warm(&node, 1).await;
        assert_eq!(stand.host.restores(), 0);
        assert!(stand.host.captures().is_empty() && stand.host.frozen().is_empty());
    }
}

#[tokio::test]
async fn a_state_that_fails_to_be_restored_is_given_up_and_the_create_succeeds() {
    let stand = stand();
    let node = stand.node(4).await;
    node.set_warm_builds(vec![stand.image.clone()]).await;
    load_warm(&node, 1).await;
    stand.host.fail_next_restore("the disk is gone");
    node.create(stand.request()).await.unwrap();
    load_warm(&node, 1).await;
    node.create(stand.request()).await.unwrap();
    assert_eq!(stand.host.restores(), 1, "none since the first");
    assert!(stand.host.captures().is_empty());
}

#[tokio::test]
async fn states_of_an_earlier_process_are_taken_up() {
    let stand = stand();
    let node = stand.node(4).await;
    node.set_warm_builds(vec![stand.image.clone()]).await;
    load_warm(&node, 1).await;
    drop(node);
    let node = stand.node(0).await;
    assert_eq!(stand.host.captures().len(), 1);
    // From here on nothing can be started: what comes was restored.
    stand.host.set_command("serve", FakeCommand::Ends("", 9));
    node.create(stand.request()).await.unwrap();
    // It goes with its build.
    node.forget_capture(stand.image.build_id).await.unwrap();
    assert!(stand.host.captures().is_empty());
}
