use std::time::Duration;

use jiff::Timestamp;
use warren_cluster::{Deadline, LogQuery, NodeError, NodeEvent, NodeHandle};
use warren_node::StopMode;
use warren_runtime::ExitCause;
use warren_types::{EndReason, SandboxState};

use crate::support::{Stand, alive, ended, load_warm};

#[tokio::test]
async fn a_created_sandbox_is_reachable_listed_and_gone_after_its_end() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    let view = node.create(stand.request()).await.unwrap();
    assert_eq!(view.state, SandboxState::Running);
    assert_eq!(view.access_token.as_ref().unwrap().expose().len(), 64);
    assert!(view.traffic_access_token.is_none());
    assert!(view.end_at > Timestamp::now());
    let route = node.route(&view.id).unwrap();
    assert!(route.dial.dial(49983).await.is_ok());
    assert_eq!(node.list().await.len(), 1);

    node.end(&view.id, EndReason::Killed).await.unwrap();
    assert!(route.run.is_cancelled());
    assert!(route.dial.dial(49983).await.is_err());
    assert!(node.route(&view.id).is_none());
    assert!(matches!(
        node.get(&view.id).await,
        Err(NodeError::NotFound(_))
    ));
    assert!(matches!(
        node.end(&view.id, EndReason::Killed).await,
        Err(NodeError::NotFound(_))
    ));
    assert_eq!(stand.records(), 0);
    assert!(stand.host.alive().is_empty());
}

#[tokio::test]
async fn simultaneous_ends_all_succeed() {
    let stand = Stand::new();
    let node = std::sync::Arc::new(stand.node(0).await);
    let id = node.create(stand.request()).await.unwrap().id;
    let (a, b) = tokio::join!(
        node.end(&id, EndReason::Killed),
        node.end(&id, EndReason::Killed)
    );
    a.unwrap();
    b.unwrap();
}

#[tokio::test]
async fn time_outs_and_crashes_end_with_their_reason() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    let mut events = node.take_events().unwrap();
    assert!(node.take_events().is_none());

    let short = node.create(stand.request()).await.unwrap().id;
    node.set_deadline(&short, Deadline::Set(Timestamp::now()))
        .await
        .unwrap();
    assert_eq!(ended(&mut events, &short).await, EndReason::TimedOut);

    let crashed = node.create(stand.request()).await.unwrap().id;
    stand.host.crash(&crashed, ExitCause::Died);
    assert_eq!(ended(&mut events, &crashed).await, EndReason::Crashed);

    let hungry = node.create(stand.request()).await.unwrap().id;
    stand.host.crash(&hungry, ExitCause::OutOfMemory);
    assert_eq!(ended(&mut events, &hungry).await, EndReason::OutOfMemory);
    let all = LogQuery {
        from: None,
        limit: 10,
        backward: true,
        min_level: None,
        until: None,
        logger: None,
        search: None,
    };
    let log = node.logs(&hungry, all).await.unwrap();
    assert_eq!(
        log[0].message,
        "sandbox ended: out_of_memory: it ran out of memory"
    );
}

#[tokio::test]
async fn an_extension_never_shortens() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    let view = node.create(stand.request()).await.unwrap();
    let sooner = Timestamp::now();
    let same = node
        .set_deadline(&view.id, Deadline::Extend(sooner))
        .await
        .unwrap();
    assert_eq!(same.end_at, view.end_at);
    let later = view.end_at + Duration::from_secs(60);
    let extended = node
        .set_deadline(&view.id, Deadline::Extend(later))
        .await
        .unwrap();
    assert_eq!(extended.end_at, later);
    assert_eq!(node.get(&view.id).await.unwrap().end_at, later);
}

#[tokio::test]
async fn warm_sandboxes_are_used_refilled_and_given_up() {
    let stand = Stand::new();
    let node = stand.node(3).await;
    node.set_warm_builds(vec![stand.image.clone()]).await;
    load_warm(&node, 3).await;
    let id = node.create(stand.request()).await.unwrap().id;
    assert_eq!(node.load().await.running, 1);
    load_warm(&node, 3).await;
    assert_eq!(stand.host.boots(), 4);

    // Another team's traffic token is not a matter of the pool: it is set at the claim.
    let mut private = stand.request();
    private.private_traffic = true;
    let view = node.create(private).await.unwrap();
    assert_eq!(view.traffic_access_token.unwrap().expose().len(), 64);

    node.stop(StopMode::KeepSandboxes).await;
    assert!(stand.host.alive().contains(&id));
    assert_eq!(stand.host.alive().len(), 2, "warm ones are destroyed");
}

#[tokio::test]
async fn a_dead_warm_sandbox_is_replaced_by_a_fresh_one() {
    let stand = Stand::new();
    let node = stand.node(1).await;
    node.set_warm_builds(vec![stand.image.clone()]).await;
    load_warm(&node, 1).await;
    let warm = stand.host.alive()[0].clone();
    stand.host.crash(&warm, ExitCause::Died);
    let view = node.create(stand.request()).await.unwrap();
    assert_ne!(view.id, warm);
}

#[tokio::test]
async fn figures_arrive_in_batches() {
    let stand = Stand::new();
    let node = stand.node(0).await;
    let mut events = node.take_events().unwrap();
    let id = node.create(stand.request()).await.unwrap().id;
    loop {
        if let Some(NodeEvent::Metrics(points)) = events.recv().await {
            let (subject, point) = &points[0];
            assert_eq!(*subject, id);
            assert_eq!(point.mem_total, 512 * 1024 * 1024);
            break;
        }
    }
}

#[tokio::test]
async fn stopping_can_end_everything() {
    let stand = Stand::new();
    let node = stand.node(2).await;
    for _ in 0..3 {
        node.create(stand.request()).await.unwrap();
    }
    node.stop(StopMode::EndSandboxes).await;
    alive(&stand.host, 0).await;
    assert_eq!(stand.records(), 0);
    assert!(matches!(
        node.create(stand.request()).await,
        Err(NodeError::Stopping)
    ));
}
