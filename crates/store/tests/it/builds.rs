//! Builds and tags in the database.

use std::collections::BTreeMap;

use warren_store::{
    BuildContent, BuildOutcome, BuildReason, BuildRequest, BuildStatus, By, DeleteTemplateError,
    RequestBuildError, Store, TeamRecord,
};
use warren_types::{BuildId, Resources, SandboxEnd, TeamId, TeamState, TemplateId};

use crate::{at, dir, open, sandbox};

fn content(layer: &str) -> BuildContent {
    BuildContent {
        layers: vec![layer.to_owned()],
        env: BTreeMap::from([("A".to_owned(), "\"✓\"".to_owned())]),
        build_env: Some(BTreeMap::from([("PATH".to_owned(), "/x".to_owned())])),
        default_user: "user".to_owned(),
        default_workdir: Some("/app".to_owned()),
        start: None,
        capture: None,
        resources: Resources::default(),
        envd_version: "1.2.3".to_owned(),
    }
}

struct Team<'a> {
    store: &'a Store,
    id: TeamId,
    slug: &'static str,
}

impl<'a> Team<'a> {
    async fn new(store: &'a Store, slug: &'static str) -> Self {
        let id = TeamId::random();
        let record = TeamRecord {
            id,
            name: slug.to_owned(),
            slug: slug.to_owned(),
            max_sandboxes: None,
            state: TeamState::Active,
            created_at: at(1),
        };
        store.team_insert(&By::SYSTEM, &record).await.unwrap();
        Self { store, id, slug }
    }

    fn asked(&self, alias: &str, tag: &str, time: i64) -> BuildRequest {
        BuildRequest {
            team_id: self.id,
            namespace: self.slug.to_owned(),
            alias: alias.to_owned(),
            tags: vec![tag.to_owned()],
            content: content("none"),
            min_free_disk_mib: Some(7),
            superseded: "superseded".to_owned(),
            at: at(time),
        }
    }

    async fn request(&self, alias: &str, tag: &str, time: i64) -> (TemplateId, BuildId) {
        let request = self.asked(alias, tag, time);
        let made = self.store.build_request(&request).await.unwrap();
        (made.template.id, made.build)
    }

    async fn ready(&self, build: BuildId, time: i64) {
        let started = self.store.build_start(build, &[], "", at(time)).await;
        assert!(started.unwrap());
        let outcome = BuildOutcome::Ready(Box::new(content("made")));
        let store = self.store;
        assert!(store.build_finish(build, &outcome, at(time)).await.unwrap());
    }

    async fn status(&self, build: BuildId) -> BuildStatus {
        self.store.build_get(build).await.unwrap().unwrap().0.status
    }
}

#[tokio::test]
async fn a_build_lives_once() {
    let dir = dir();
    let store = open(&dir).await;
    let team = Team::new(&store, "a").await;
    let (_, build) = team.request("t", "default", 10).await;
    let failed = BuildOutcome::Failed(BuildReason {
        message: "why".to_owned(),
        step: Some("2".to_owned()),
    });
    let ready = BuildOutcome::Ready(Box::new(content("made")));
    assert!(
        !store.build_finish(build, &ready, at(11)).await.unwrap(),
        "it does not run"
    );
    assert!(store.build_start(build, &[], "", at(12)).await.unwrap());
    assert!(
        !store.build_start(build, &[], "", at(13)).await.unwrap(),
        "it runs already"
    );
    assert!(store.build_finish(build, &failed, at(14)).await.unwrap());
    assert!(
        !store.build_finish(build, &ready, at(15)).await.unwrap(),
        "it has failed"
    );
    store.close().await;
    let store = open(&dir).await;
    let (record, owner) = store.build_get(build).await.unwrap().unwrap();
    assert_eq!(owner, team.id);
    assert_eq!(record.status, BuildStatus::Error);
    assert_eq!(record.reason.unwrap().step.as_deref(), Some("2"));
    assert_eq!(
        (record.finished_at, record.min_free_disk_mib),
        (Some(at(14)), Some(7))
    );
    assert_eq!(record.content, content("none"));
}

#[tokio::test]
async fn the_newest_assignment_of_a_ready_build_counts() {
    let dir = dir();
    let store = open(&dir).await;
    let team = Team::new(&store, "a").await;
    let (template, first) = team.request("t", "default", 10).await;
    team.ready(first, 11).await;
    let (_, second) = team.request("t", "default", 20).await;
    let newest = async || {
        store
            .build_by_tag(&template, "default")
            .await
            .unwrap()
            .unwrap()
    };
    assert_eq!(newest().await.id, first, "an unfinished build hides none");
    team.ready(second, 21).await;
    assert_eq!(newest().await.id, second);
    assert_eq!(newest().await.content, content("made"));
    let tags = ["default".to_owned(), "old".to_owned()];
    store
        .tag_assign(&template, first, &tags, at(30))
        .await
        .unwrap();
    store
        .tag_assign(&template, first, &tags, at(30))
        .await
        .unwrap();
    assert_eq!(newest().await.id, first);
    let history = store.tag_history(&template).await.unwrap();
    let shown: Vec<_> = history
        .iter()
        .map(|tag| (tag.tag.as_str(), tag.build_id))
        .collect();
    let expected = [
        ("default", first),
        ("default", second),
        ("default", first),
        ("old", first),
    ];
    assert_eq!(shown, expected);
    store.tag_remove(&template, &tags).await.unwrap();
    assert!(store.tag_history(&template).await.unwrap().is_empty());
}

#[tokio::test]
async fn requests_supersede_and_count() {
    let dir = dir();
    let store = open(&dir).await;
    let team = Team::new(&store, "a").await;
    let (_, waiting) = team.request("t", "default", 10).await;
    let (_, other_tag) = team.request("t", "v1", 20).await;
    let (_, running) = team.request("u", "default", 30).await;
    assert!(store.build_start(running, &[], "", at(31)).await.unwrap());
    let tags = ["default".to_owned()];
    let count = async |name: &str, running: i64, waiting: i64| {
        let since = (at(running), at(waiting));
        store
            .build_count_open(team.id, ("a", name), &tags, since)
            .await
            .unwrap()
    };
    assert_eq!(count("x", 0, 0).await, 3);
    assert_eq!(count("t", 0, 0).await, 2);
    assert_eq!(
        count("x", 0, 15).await,
        2,
        "who waits for long does not count"
    );
    assert_eq!(count("x", 35, 0).await, 2);
    let (_, newer) = team.request("t", "default", 40).await;
    assert_eq!(team.status(waiting).await, BuildStatus::Error);
    assert_eq!(team.status(other_tag).await, BuildStatus::Waiting);
    let (_, rival) = team.request("u", "default", 50).await;
    assert_eq!(store.build_rivals(rival).await.unwrap(), [running]);
    assert!(
        store
            .build_start(rival, &[running], "gave way", at(51))
            .await
            .unwrap()
    );
    assert_eq!(team.status(running).await, BuildStatus::Error);
    assert_eq!(store.build_list_running().await.unwrap(), [rival]);
    assert_eq!(
        store
            .build_expire_waiting(at(30), "late", at(60))
            .await
            .unwrap(),
        1
    );
    assert_eq!(team.status(other_tag).await, BuildStatus::Error);
    assert_eq!(team.status(newer).await, BuildStatus::Waiting);
}

#[tokio::test]
async fn names_are_unique_and_free_after_deletion() {
    let dir = dir();
    let store = open(&dir).await;
    let (ours, theirs) = (Team::new(&store, "a").await, Team::new(&store, "b").await);
    let (template, build) = ours.request("t", "default", 10).await;
    let taken = BuildRequest {
        namespace: "a".to_owned(),
        ..theirs.asked("t", "default", 11)
    };
    let refused = store.build_request(&taken).await;
    assert!(matches!(refused, Err(RequestBuildError::NameTaken(_))));
    assert!(store.alias_claim(&template, "t", at(12)).await.unwrap());
    assert!(store.alias_claim(&template, "t", at(13)).await.unwrap());
    let (other, _) = theirs.request("t", "default", 14).await;
    assert!(!store.alias_claim(&other, "t", at(15)).await.unwrap());

    let mut record = sandbox(ours.id, 20);
    record.template_id = template.clone();
    store.sandbox_insert(&record).await.unwrap();
    let refused = store.template_delete(&template, "gone", at(30)).await;
    assert!(matches!(refused, Err(DeleteTemplateError::Running(_))));
    let ended = warren_types::EndReason::Killed;
    store
        .sandbox_end(&record.id, &SandboxEnd::new(ended, at(31)))
        .await
        .unwrap();
    let mut foreign = sandbox(theirs.id, 20);
    foreign.template_id = template.clone();
    store.sandbox_insert(&foreign).await.unwrap();
    let mut paused = sandbox(ours.id, 20);
    paused.template_id = template.clone();
    paused.state = warren_types::SandboxState::Paused;
    store.sandbox_insert(&paused).await.unwrap();
    let refused = store.template_delete(&template, "gone", at(32)).await;
    assert!(matches!(refused, Err(DeleteTemplateError::Paused(_))));
    store
        .sandbox_end(&paused.id, &SandboxEnd::new(ended, at(33)))
        .await
        .unwrap();
    store
        .template_delete(&template, "gone", at(34))
        .await
        .unwrap();
    assert_eq!(ours.status(build).await, BuildStatus::Error);
    let again = store.template_delete(&template, "gone", at(35)).await;
    assert!(matches!(again, Err(DeleteTemplateError::Gone(_))));
    let (fresh, _) = ours.request("t", "default", 40).await;
    assert_ne!(fresh, template);
    let reserved = ours.asked(template.as_str(), "default", 41);
    let refused = store.build_request(&reserved).await;
    assert!(matches!(refused, Err(RequestBuildError::NameIsId(_))));
}
