//! The database by itself, in a temporary directory.

#![expect(clippy::unwrap_used, reason = "a failed step fails its test")]

mod builds;
mod events;
mod history;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use warren_store::{
    AuditFilter, By, IdempotencyClaim, SandboxRecord, Store, StoredAnswer, TeamRecord, UserRecord,
};
use warren_types::{
    BuildId, EndReason, MetricsPoint, Role, SandboxEnd, SandboxId, SandboxState, TeamId, TeamState,
    TemplateId, UserId,
};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn open(dir: &TempDir) -> Store {
    Store::open(&dir.path().join("warren.db")).await.unwrap()
}

fn at(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap()
}

fn sandbox(team_id: TeamId, started: i64) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::random(),
        team_id,
        key_id: None,
        template_id: TemplateId::random(),
        build_id: BuildId::random(),
        alias: Some("base".to_owned()),
        state: SandboxState::Running,
        started_at: at(started),
        end_at: at(started + 1),
        ended_at: None,
        end_reason: None,
        memory_peak: None,
        cpu_count: 2,
        memory_mib: 512,
        disk_mib: 1024,
        metadata: BTreeMap::from([("a b".to_owned(), "\"✓\" & '".to_owned())]),
        secure: true,
        private_traffic: true,
        allow_internet: Some(false),
        network: Some("{}".to_owned()),
        auto_pause: false,
        auto_resume: true,
        mcp: Some("{\"x\":1}".to_owned()),
        revision: 0,
        pause: None,
        auto_pause_memory: false,
        timeout_s: 60,
        volume_mounts: Vec::new(),
    }
}

#[tokio::test]
async fn what_is_written_is_there_after_opening_again() {
    let dir = dir();
    let team = TeamId::random();
    let record = sandbox(team, 1_234_567_890_123_456);
    let store = open(&dir).await;
    store.sandbox_insert(&record).await.unwrap();
    assert_eq!(
        store.sandbox_get(team, &record.id).await.unwrap(),
        Some(record.clone())
    );
    store.close().await;
    let store = open(&dir).await;
    assert_eq!(
        store.sandbox_get(team, &record.id).await.unwrap(),
        Some(record.clone())
    );
    assert_eq!(
        store
            .sandbox_get(TeamId::random(), &record.id)
            .await
            .unwrap(),
        None
    );
    assert_eq!(store.sandbox_list_live(team).await.unwrap(), [record]);
}

#[tokio::test]
async fn something_else_than_a_database_is_refused() {
    let dir = dir();
    let path = dir.path().join("warren.db");
    std::fs::write(
        &path,
        "this is not a database, and long enough to be read as one".repeat(99),
    )
    .unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(error.to_string().contains("warren.db"), "{error}");
}

#[tokio::test]
async fn the_first_reason_of_an_end_stays() {
    let (dir, team) = (dir(), TeamId::random());
    let store = open(&dir).await;
    let record = sandbox(team, 10);
    assert!(!store.sandbox_is_known(&record.id).await.unwrap());
    assert!(
        !store
            .sandbox_end(&record.id, &SandboxEnd::new(EndReason::Killed, at(20)))
            .await
            .unwrap()
    );
    store.sandbox_insert(&record).await.unwrap();
    assert!(
        store
            .sandbox_end(&record.id, &SandboxEnd::new(EndReason::TimedOut, at(20)))
            .await
            .unwrap()
    );
    assert!(
        !store
            .sandbox_end(&record.id, &SandboxEnd::new(EndReason::Killed, at(30)))
            .await
            .unwrap()
    );
    let ended = store.sandbox_get(team, &record.id).await.unwrap().unwrap();
    assert_eq!(
        (ended.ended_at, ended.end_reason),
        (Some(at(20)), Some(EndReason::TimedOut))
    );
    assert!(store.sandbox_list_live(team).await.unwrap().is_empty());
    store.sandbox_set_end(&record.id, at(99), 0).await.unwrap();
    let ended = store.sandbox_get(team, &record.id).await.unwrap().unwrap();
    assert_eq!(ended.end_at, record.end_at);
}

#[tokio::test]
async fn only_what_ended_long_ago_is_forgotten() {
    let (dir, team) = (dir(), TeamId::random());
    let store = open(&dir).await;
    let (living, old, young) = (sandbox(team, 1), sandbox(team, 2), sandbox(team, 3));
    for record in [&living, &old, &young] {
        store.sandbox_insert(record).await.unwrap();
    }
    store
        .sandbox_end(&old.id, &SandboxEnd::new(EndReason::Killed, at(10)))
        .await
        .unwrap();
    store
        .sandbox_end(&young.id, &SandboxEnd::new(EndReason::Killed, at(1000)))
        .await
        .unwrap();
    assert_eq!(store.sandbox_purge(at(100), 10).await.unwrap(), 1);
    assert!(store.sandbox_is_known(&living.id).await.unwrap());
    assert!(!store.sandbox_is_known(&old.id).await.unwrap());
    assert!(store.sandbox_is_known(&young.id).await.unwrap());
}

#[tokio::test]
async fn many_samples_go_in_and_old_ones_go_out() {
    let (dir, id) = (dir(), SandboxId::random());
    let store = open(&dir).await;
    let sample = |second: i64| {
        let point = MetricsPoint {
            at: at(second * 1_000_000),
            cpu_count: 2,
            cpu_used_pct: 12.5,
            mem_used: u64::from(u32::MAX) * 2,
            mem_total: 1,
            mem_cache: 2,
            disk_used: 3,
            disk_total: 4,
        };
        (id.clone(), point)
    };
    let samples: Vec<_> = (0..250).map(sample).collect();
    store.metrics_insert(&samples).await.unwrap();
    store.metrics_insert(&samples[..3]).await.unwrap();
    let read = store
        .metrics_range(&id, at(0), Timestamp::MAX, 1)
        .await
        .unwrap();
    assert_eq!(
        read,
        samples.iter().map(|(_, point)| *point).collect::<Vec<_>>()
    );
    assert_eq!(
        store
            .metrics_range(&id, at(0), Timestamp::MAX, 50)
            .await
            .unwrap()
            .len(),
        5
    );
    assert_eq!(
        store.metrics_purge(at(100_000_000), 1000).await.unwrap(),
        100
    );
    assert_eq!(
        store
            .metrics_range(&id, at(0), Timestamp::MAX, 1)
            .await
            .unwrap()
            .len(),
        150
    );
}

#[tokio::test]
async fn a_key_is_claimed_once() {
    let (dir, team) = (dir(), TeamId::random());
    let store = open(&dir).await;
    let claim = |fingerprint: &'static str| {
        let store = store.clone();
        async move {
            store
                .idempotency_claim(team, "k", fingerprint, at(5))
                .await
                .unwrap()
        }
    };
    assert_eq!(claim("a").await, IdempotencyClaim::Claimed);
    assert_eq!(claim("a").await, IdempotencyClaim::Running);
    assert_eq!(claim("b").await, IdempotencyClaim::Mismatch);
    store.idempotency_release(team, "k").await.unwrap();
    assert_eq!(claim("b").await, IdempotencyClaim::Claimed);
    let answer = StoredAnswer {
        status: 201,
        body: "{}".to_owned(),
    };
    store
        .idempotency_complete(team, "k", &answer)
        .await
        .unwrap();
    // An answer stays, whatever comes later.
    store.idempotency_release(team, "k").await.unwrap();
    store.idempotency_abandon().await.unwrap();
    assert_eq!(claim("b").await, IdempotencyClaim::Answered(answer));
    assert_eq!(store.idempotency_purge(at(6)).await.unwrap(), 1);
    assert_eq!(claim("c").await, IdempotencyClaim::Claimed);
    store.idempotency_abandon().await.unwrap();
    assert_eq!(claim("c").await, IdempotencyClaim::Unknown);
}

#[tokio::test]
async fn a_person_has_one_default_team() {
    let dir = dir();
    let store = open(&dir).await;
    let team = |slug: &str| TeamRecord {
        id: TeamId::random(),
        name: slug.to_owned(),
        slug: slug.to_owned(),
        max_sandboxes: None,
        state: TeamState::Active,
        created_at: at(1),
    };
    let (a, b) = (team("a"), team("b"));
    let by = By::SYSTEM;
    assert!(store.team_insert(&by, &a).await.unwrap());
    assert!(store.team_insert(&by, &b).await.unwrap());
    let again = TeamRecord {
        id: TeamId::random(),
        ..a.clone()
    };
    assert!(!store.team_insert(&by, &again).await.unwrap());
    let user = UserRecord {
        id: UserId::random(),
        email: "a@b.c".to_owned(),
        created_at: at(1),
    };
    assert!(store.user_insert(&by, &user).await.unwrap());
    assert!(!store.user_insert(&by, &user).await.unwrap());
    let set = |team: &TeamRecord, role, make_default| {
        let (by, store, team) = (by.clone(), store.clone(), team.id);
        async move {
            let done = store.member_set(&by, team, user.id, role, make_default);
            done.await.unwrap();
        }
    };
    let found = || async {
        let teams = store.membership_list(user.id).await.unwrap();
        let found = teams.into_iter();
        found
            .map(|m| (m.team.slug, m.role, m.is_default))
            .collect::<Vec<_>>()
    };
    let entry = |slug: &str, role, is_default| (slug.to_owned(), role, is_default);
    set(&a, Role::Member, false).await;
    set(&b, Role::Viewer, true).await;
    let expected = [
        entry("b", Role::Viewer, true),
        entry("a", Role::Member, false),
    ];
    assert_eq!(found().await, expected);
    // Without its default team a person has another one.
    assert!(store.member_remove(&by, b.id, user.id).await.unwrap());
    assert!(!store.member_remove(&by, b.id, user.id).await.unwrap());
    assert_eq!(found().await, [entry("a", Role::Member, true)]);
    let filter = AuditFilter {
        target: Some(user.id.to_string()),
        limit: 10,
        ..AuditFilter::default()
    };
    let trail = store.audit_list(&filter).await.unwrap();
    let actions: Vec<_> = trail.iter().map(|entry| entry.action.as_str()).collect();
    let expected = ["member.remove", "member.set", "member.set", "user.create"];
    assert_eq!(actions, expected);
}

#[tokio::test]
async fn a_grown_log_is_carried_over_without_a_commit_waiting_for_it() {
    let (dir, team) = (dir(), TeamId::random());
    let store = open(&dir).await;
    let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
    let mut record = sandbox(team, 1);
    record
        .metadata
        .insert("x".to_owned(), "y".repeat(256 * 1024));
    while size("warren.db-wal") < 17 * 1024 * 1024 {
        record.id = SandboxId::random();
        store.sandbox_insert(&record).await.unwrap();
    }
    assert!(
        size("warren.db") < 1024 * 1024,
        "commits leave the database alone"
    );
    store.checkpoint().await.unwrap();
    assert!(size("warren.db") > 8 * 1024 * 1024);
    // The next commits begin the log anew.
    record.id = SandboxId::random();
    store.sandbox_insert(&record).await.unwrap();
    let bound = Duration::from_secs(10);
    tokio::time::timeout(bound, async {
        while size("warren.db-wal") >= 16 * 1024 * 1024 {
            record.id = SandboxId::random();
            store.sandbox_insert(&record).await.unwrap();
        }
    })
    .await
    .expect("the log is cut");
}
