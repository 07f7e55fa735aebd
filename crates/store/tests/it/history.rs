//! Keeping history below a size, and copies of the database.

use warren_store::{AuditFilter, By, History, NewAudit, Store};
use warren_types::{MetricsPoint, SandboxId};

use crate::{at, dir, open};

fn point(second: i64) -> MetricsPoint {
    MetricsPoint {
        at: at(second * 1_000_000),
        cpu_count: 1,
        cpu_used_pct: 1.0,
        mem_used: 1,
        mem_total: 2,
        mem_cache: 0,
        disk_used: 1,
        disk_total: 2,
    }
}

async fn audit(store: &Store, target: &str) {
    let entry = NewAudit {
        by: &By::SYSTEM,
        team: None,
        action: "test",
        target: Some(target),
        status: None,
        reason: None,
        data: serde_json::json!({ "x": "y".repeat(1000) }),
    };
    store.audit_insert(&entry).await.unwrap();
}

#[tokio::test]
async fn the_oldest_go_once_a_table_is_too_large() {
    let dir = dir();
    let store = open(&dir).await;
    let id = SandboxId::random();
    let samples: Vec<_> = (0..1000)
        .map(|second| (id.clone(), point(second)))
        .collect();
    store.metrics_insert(&samples).await.unwrap();
    let left = || async {
        let range = store.metrics_range(&id, at(0), at(10_000_000_000), 1).await;
        range.unwrap()
    };
    // There is room for all, or none at all.
    assert_eq!(
        store
            .history_trim(History::Metrics, 1 << 20, 500)
            .await
            .unwrap(),
        0
    );
    assert_eq!(left().await.len(), 1000);
    let size = 100 * 180;
    while store
        .history_trim(History::Metrics, size, 300)
        .await
        .unwrap()
        > 0
    {}
    let kept = left().await;
    assert_eq!((kept.len(), kept[0].at), (100, point(900).at));
    assert_eq!(store.history_trim(History::Events, 0, 10).await.unwrap(), 0);

    for number in 0..10 {
        audit(&store, &number.to_string()).await;
    }
    // Of some 1,500 bytes each there is room for six.
    assert_eq!(
        store
            .history_trim(History::Audit, 10_000, 100)
            .await
            .unwrap(),
        4
    );
    let filter = AuditFilter {
        limit: 100,
        ..AuditFilter::default()
    };
    let entries = store.audit_list(&filter).await.unwrap();
    assert_eq!(entries.len(), 6);
    assert_eq!(entries[5].target.as_deref(), Some("4"));
    assert!(store.size().await.unwrap().bytes > 0);
}

#[tokio::test]
async fn a_copy_is_that_of_one_moment() {
    let dir = dir();
    let store = open(&dir).await;
    audit(&store, "before").await;
    let reader = Store::open_as_is(&dir.path().join("warren.db"))
        .await
        .unwrap();
    let place = dir.path().join("copy.db");
    reader.copy_to(&place).await.unwrap();
    audit(&store, "after").await;
    assert!(
        reader.copy_to(&place).await.is_err(),
        "nothing is written over"
    );
    let copy = Store::open(&place).await.unwrap();
    let filter = AuditFilter {
        limit: 10,
        ..AuditFilter::default()
    };
    let entries = copy.audit_list(&filter).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].target.as_deref(), Some("before"));
    assert!(copy.layers_of_builds().await.unwrap().is_empty());
    assert!(
        Store::open_as_is(&dir.path().join("none.db"))
            .await
            .is_err()
    );
}
