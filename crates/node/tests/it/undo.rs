//! A create that fails at any step leaves nothing behind.

use warren_cluster::{NodeError, NodeHandle};

use crate::support::{Stand, alive};

#[tokio::test]
async fn a_failed_boot_leaves_nothing() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    stand.host.fail_next_boot("mount the root");
    let error = node.create(stand.request()).await.unwrap_err();
    assert!(matches!(error, NodeError::StartFailed(_)));
    assert!(stand.host.alive().is_empty());
    assert_eq!(stand.records(), 0);
    assert!(node.list().await.is_empty());
    node.create(stand.request()).await.unwrap();
}

#[tokio::test]
async fn an_agent_that_refuses_leaves_nothing() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    stand.host.set_agent_status(401);
    assert!(matches!(
        node.create(stand.request()).await,
        Err(NodeError::StartFailed(_))
    ));
    alive(&stand.host, 0).await;
    assert_eq!(stand.records(), 0);
    assert!(node.list().await.is_empty());
}

#[tokio::test]
async fn a_ledger_that_cannot_be_written_leaves_nothing() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    let records = stand.dir.path().join("data/sandboxes");
    std::fs::remove_dir(&records).unwrap();
    assert!(matches!(
        node.create(stand.request()).await,
        Err(NodeError::Records { .. })
    ));
    alive(&stand.host, 0).await;
    assert!(node.list().await.is_empty());
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_nothing_unowned() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    for polls in 0..20 {
        let mut create = Box::pin(node.create(stand.request()));
        let mut finished = false;
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut create => { finished = true; break; }
                () = tokio::task::yield_now() => {}
            }
        }
        drop(create);
        if finished {
            break;
        }
    }
    // What is alive is exactly what is owned and on record.
    let owned = node.list().await.len();
    alive(&stand.host, owned).await;
    assert_eq!(stand.records(), owned);
}
