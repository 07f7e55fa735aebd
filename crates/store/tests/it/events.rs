//! Events and their deliveries.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use warren_service::Secret;
use warren_store::{
    AttemptRecord, By, DeliveryState, EventFilter, PauseRecord, SandboxChange, Store, TeamRecord,
    WebhookRecord,
};
use warren_types::{EndReason, EventKind, SandboxEnd, TeamId, TeamState, WebhookId};

use crate::{at, dir, open, sandbox};

fn of(team: TeamId) -> EventFilter {
    EventFilter {
        team,
        sandbox: None,
        kinds: Vec::new(),
        ascending: true,
        offset: 0,
        limit: 100,
    }
}

async fn kinds(store: &Store, filter: &EventFilter) -> Vec<EventKind> {
    let events = store.event_list(filter).await.unwrap();
    events.iter().map(|event| event.kind).collect()
}

async fn team(store: &Store) -> TeamId {
    let id = TeamId::random();
    let team = TeamRecord {
        id,
        name: "t".to_owned(),
        slug: id.to_string(),
        max_sandboxes: None,
        state: TeamState::Active,
        created_at: at(1),
    };
    store.team_insert(&By::SYSTEM, &team).await.unwrap();
    id
}

fn webhook(team_id: TeamId, kinds: &[EventKind]) -> WebhookRecord {
    WebhookRecord {
        id: WebhookId::random(),
        team_id,
        name: "w".to_owned(),
        url: "http://example.com/".to_owned(),
        enabled: true,
        kinds: BTreeSet::from_iter(kinds.iter().copied()),
        secret: Secret::new("s".to_owned()),
        created_at: at(5),
    }
}

#[tokio::test]
async fn every_change_is_told_once() {
    let dir = dir();
    let store = open(&dir).await;
    let record = sandbox(TeamId::random(), 1_000_000);
    store.sandbox_insert(&record).await.unwrap();
    let change = |revision, pause| SandboxChange {
        revision,
        started_at: at(i64::try_from(revision).unwrap() * 1_000_000),
        end_at: at(9_000_000),
        pause,
    };
    let kept = |memory| {
        Some(PauseRecord {
            memory,
            note: None,
            agent_silent: false,
        })
    };
    let paused = SandboxChange {
        started_at: at(1_000_000),
        ..change(1, kept(true))
    };
    assert!(store.sandbox_change(&record.id, &paused).await.unwrap());
    assert!(!store.sandbox_change(&record.id, &paused).await.unwrap());
    // Its memory was lost: no other pause.
    assert!(
        store
            .sandbox_change(&record.id, &change(2, kept(false)))
            .await
            .unwrap()
    );
    assert!(
        store
            .sandbox_change(&record.id, &change(3, None))
            .await
            .unwrap()
    );
    store.sandbox_set_end(&record.id, at(77), 3).await.unwrap();
    store.sandbox_set_end(&record.id, at(77), 3).await.unwrap();
    store.sandbox_set_end(&record.id, at(78), 2).await.unwrap();
    let end = SandboxEnd {
        memory_peak: Some(123),
        ..SandboxEnd::new(EndReason::OutOfMemory, at(9_500_000))
    };
    assert!(store.sandbox_end(&record.id, &end).await.unwrap());
    assert!(!store.sandbox_end(&record.id, &end).await.unwrap());

    let events = store.event_list(&of(record.team_id)).await.unwrap();
    let told: Vec<_> = events.iter().map(|event| event.kind).collect();
    use EventKind as K;
    assert_eq!(
        told,
        [K::Created, K::Paused, K::Resumed, K::Updated, K::Killed]
    );
    let metadata = json!(record.metadata);
    assert!(
        events
            .iter()
            .all(|event| event.data["sandbox_metadata"] == metadata)
    );
    assert_eq!(events[1].run_id, events[0].run_id);
    assert_ne!(events[2].run_id, events[1].run_id);
    assert_eq!(events[4].run_id, events[2].run_id);
    let run = &events[1].data["execution"];
    assert_eq!(run["execution_time"], 8000);
    assert_eq!(
        (&run["vcpu_count"], &run["memory_mb"]),
        (&json!(2), &json!(512))
    );
    assert_eq!(events[1].data["pause_mode"], "full");
    assert_eq!(events[3].data["set_timeout"], "1970-01-01T00:00:00.000077Z");
    assert_eq!(events[4].data["reason"], "out_of_memory");
    assert_eq!(events[4].data["memory_peak_bytes"], 123);
    assert_eq!(events[4].data["execution"]["execution_time"], 6500);

    // A guess gives way in the event too.
    let known = SandboxEnd::new(EndReason::Crashed, at(9_400_000));
    store.sandbox_correct_end(&record.id, &known).await.unwrap();
    let events = store.event_list(&of(record.team_id)).await.unwrap();
    assert_eq!((events.len(), events[4].at), (5, at(9_400_000)));
    assert_eq!(events[4].data["reason"], "crashed");
    assert_eq!(events[4].data.get("memory_peak_bytes"), None);
}

#[tokio::test]
async fn lists_are_filtered_ordered_and_cut() {
    let dir = dir();
    let store = open(&dir).await;
    let team = TeamId::random();
    let (first, second) = (sandbox(team, 10), sandbox(team, 20));
    store.sandbox_insert(&first).await.unwrap();
    store.sandbox_insert(&second).await.unwrap();
    store
        .sandbox_insert(&sandbox(TeamId::random(), 20))
        .await
        .unwrap();
    let end = SandboxEnd::new(EndReason::Killed, at(30));
    store.sandbox_end(&first.id, &end).await.unwrap();
    let (created, killed) = (EventKind::Created, EventKind::Killed);
    assert_eq!(kinds(&store, &of(team)).await, [created, created, killed]);
    let newest = EventFilter {
        ascending: false,
        limit: 1,
        ..of(team)
    };
    assert_eq!(kinds(&store, &newest).await, [killed]);
    let rest = EventFilter {
        offset: 1,
        ..of(team)
    };
    assert_eq!(kinds(&store, &rest).await, [created, killed]);
    let one = EventFilter {
        sandbox: Some(first.id.clone()),
        ..of(team)
    };
    assert_eq!(kinds(&store, &one).await, [created, killed]);
    let ends = EventFilter {
        kinds: vec![killed, EventKind::Paused],
        ..of(team)
    };
    assert_eq!(kinds(&store, &ends).await, [killed]);
}

#[tokio::test]
async fn what_a_webhook_wants_is_in_its_outbox_also_after_a_crash() {
    let dir = dir();
    let store = open(&dir).await;
    let team = team(&store).await;
    let hook = webhook(team, &[EventKind::Created, EventKind::Killed]);
    let mut off = webhook(team, &EventKind::ALL);
    off.enabled = false;
    assert!(store.webhook_insert(&hook, 2).await.unwrap());
    assert!(store.webhook_insert(&off, 2).await.unwrap());
    assert!(
        !store
            .webhook_insert(&webhook(team, &EventKind::ALL), 2)
            .await
            .unwrap()
    );
    let record = sandbox(team, 1_000_000);
    store.sandbox_insert(&record).await.unwrap();
    store.sandbox_set_end(&record.id, at(77), 0).await.unwrap();
    let end = SandboxEnd::new(EndReason::Killed, at(30));
    store.sandbox_end(&record.id, &end).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(5), store.outbox_changed()).await;
    told.expect("somebody was told");
    // No close: what was acknowledged is there for the next process.
    let store = open(&dir).await;
    let outbox = store.outbox().await.unwrap();
    assert_eq!(
        outbox.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        [hook.id]
    );
    let now = jiff::Timestamp::now();
    let due = store.deliveries_due(hook.id, now, 10).await.unwrap();
    let kinds: Vec<_> = due.iter().map(|delivery| delivery.event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Killed]);

    let [mut first, mut second] = <[_; 2]>::try_from(due).unwrap();
    first.state = DeliveryState::Delivered;
    first.attempts.push(AttemptRecord {
        at: at(40),
        duration_ms: 3,
        status: Some(200),
        error: None,
    });
    store.delivery_tried(&first).await.unwrap();
    second.next_at = now + Duration::from_secs(60);
    store.delivery_tried(&second).await.unwrap();
    assert!(
        store
            .deliveries_due(hook.id, now, 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        store.outbox().await.unwrap().len(),
        1,
        "it waits for its time"
    );
    let all = store.delivery_list(hook.id, 10, 0).await.unwrap();
    assert_eq!(all.len(), 2);
    let kept = all.iter().find(|delivery| delivery.id == first.id).unwrap();
    assert_eq!(kept.attempts, first.attempts);
    assert_eq!(kept.state, DeliveryState::Delivered);

    assert!(
        !store
            .webhook_delete(TeamId::random(), hook.id)
            .await
            .unwrap()
    );
    assert!(store.webhook_delete(team, hook.id).await.unwrap());
    assert!(store.outbox().await.unwrap().is_empty());
}

#[tokio::test]
async fn old_events_are_forgotten_with_their_deliveries() {
    let dir = dir();
    let store = open(&dir).await;
    let team = team(&store).await;
    let hook = webhook(team, &EventKind::ALL);
    store.webhook_insert(&hook, 9).await.unwrap();
    store.sandbox_insert(&sandbox(team, 10)).await.unwrap();
    store.sandbox_insert(&sandbox(team, 1000)).await.unwrap();
    assert_eq!(store.event_purge(at(500), 100).await.unwrap(), 1);
    assert_eq!(kinds(&store, &of(team)).await.len(), 1);
    assert_eq!(store.delivery_list(hook.id, 10, 0).await.unwrap().len(), 1);
}
