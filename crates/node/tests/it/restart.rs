//! The server dies; the sandboxes don't.

use std::time::Duration;

use jiff::Timestamp;
use warren_cluster::{Deadline, NodeHandle};
use warren_runtime::ExitCause;
use warren_types::{EndReason, NetworkPolicy};

use crate::support::{Stand, ended};

// Agents run on this runtime while the test waits for the server's: two threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_finds_its_sandboxes_again() {
    let stand = Stand::new();
    // The first server has a runtime of its own, which is torn down under it: like a
    // SIGKILL, that leaves the ledger and the processes.
    let server = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (kept, overdue, crashed) = {
        let stand = &stand;
        let live = async move {
            let node = stand.node(2).await;
            node.set_warm_builds(vec![stand.image.clone()]).await;
            let kept = node.create(stand.request()).await.unwrap();
            node.set_egress(&kept.id, NetworkPolicy::closed())
                .await
                .unwrap();
            let overdue = node.create(stand.request()).await.unwrap().id;
            let crashed = node.create(stand.request()).await.unwrap().id;
            let soon = Timestamp::now() + Duration::from_millis(300);
            node.set_deadline(&overdue, Deadline::Set(soon))
                .await
                .unwrap();
            (kept, overdue, crashed)
        };
        tokio::task::block_in_place(|| {
            std::thread::scope(|scope| scope.spawn(|| server.block_on(live)).join().unwrap())
        })
    };
    server.shutdown_background();
    let torn = stand.dir.path().join("data/sandboxes/itorn.json");
    std::fs::write(&torn, "{").unwrap();

    let node = stand.node(0).await;
    let mut events = node.take_events().unwrap();
    assert!(!torn.exists());
    let view = node.get(&kept.id).await.unwrap();
    assert_eq!(view.end_at, kept.end_at);
    assert_eq!(
        view.access_token.unwrap().expose(),
        kept.access_token.unwrap().expose()
    );
    assert!(!node.route(&kept.id).unwrap().network.egress.internet);
    assert_eq!(ended(&mut events, &overdue).await, EndReason::TimedOut);

    stand.host.crash(&crashed, ExitCause::Died);
    assert_eq!(ended(&mut events, &crashed).await, EndReason::Crashed);
    assert_eq!(
        stand.host.alive(),
        vec![kept.id],
        "warm and unrecorded ones are swept"
    );
}

#[tokio::test]
async fn after_a_reboot_sandboxes_are_told_as_ended_by_it() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    let id = node.create(stand.request()).await.unwrap().id;
    node.stop(warren_node::StopMode::KeepSandboxes).await;
    stand.host.reboot();
    let node = stand.node(0).await;
    let mut events = node.take_events().unwrap();
    assert_eq!(ended(&mut events, &id).await, EndReason::HostRestarted);
    assert!(node.list().await.is_empty());
    assert_eq!(stand.records(), 0);
}
