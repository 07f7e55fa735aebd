//! Setting aside and taking up again.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use warren_cluster::{
    CreateSandbox, Deadline, NodeError, NodeEvent, NodeHandle, PauseSandbox, ResumeSandbox,
};
use warren_node::{Node, PauseConfig, StopMode};
use warren_runtime::ExitCause;
use warren_runtime::fake::FakeRuntime;
use warren_types::{BuildId, CaptureKind, EndReason, OnTimeout, SandboxId, SandboxState};

use crate::support::{Stand, alive, ended};

const FULL: PauseSandbox = PauseSandbox {
    memory: true,
    healthy_guest: false,
};
const FILES: PauseSandbox = PauseSandbox {
    memory: false,
    healthy_guest: false,
};

fn resume(seconds: u64) -> ResumeSandbox {
    ResumeSandbox {
        timeout: Duration::from_secs(seconds),
        max_length: Duration::from_secs(3600),
        memory: true,
        on_timeout: None,
    }
}

/// Never by itself.
fn calm() -> PauseConfig {
    PauseConfig {
        files_after: Duration::from_secs(3600),
        memory_after: Duration::from_secs(3600),
        min_available_pct: 0,
        look_every: Duration::from_millis(10),
    }
}

fn eager() -> PauseConfig {
    PauseConfig {
        files_after: Duration::from_millis(1),
        memory_after: Duration::from_millis(1),
        ..calm()
    }
}

fn stand(pause: PauseConfig) -> Stand {
    Stand {
        pause,
        ..Stand::new()
    }
}

fn keep_memory(stand: &Stand, yes: bool) {
    stand
        .host
        .refuse_checkpoints((!yes).then_some("told not to"));
}

fn stored(stand: &Stand) -> Vec<String> {
    let dir = std::fs::read_dir(stand.dir.path().join("captures"));
    dir.into_iter()
        .flatten()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn until_stored(stand: &Stand, kind: &str) {
    while !stored(stand).iter().any(|name| name.ends_with(kind)) || stored(stand).len() != 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn paused(node: &Node<FakeRuntime>, stand: &Stand, request: PauseSandbox) -> SandboxId {
    let id = node.create(stand.request()).await.unwrap().id;
    node.pause(&id, request).await.unwrap();
    id
}

#[tokio::test]
async fn a_pause_stops_it_and_a_resume_lets_the_same_processes_go_on() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let made = node.create(stand.request()).await.unwrap();
    let route = node.route(&made.id).unwrap();
    let view = node.pause(&made.id, FULL).await.unwrap();
    assert_eq!((view.state, view.revision), (SandboxState::Paused, 1));
    assert!(view.pause.unwrap().memory);
    assert!(route.run.is_cancelled());
    assert!(node.route(&made.id).is_none());
    assert_eq!(stand.host.frozen().len(), 1);
    assert!(matches!(
        node.pause(&made.id, FULL).await,
        Err(NodeError::Paused(_))
    ));
    let later = Deadline::Set(Timestamp::now());
    assert!(matches!(
        node.set_deadline(&made.id, later).await,
        Err(NodeError::Paused(_))
    ));

    let resumed = node.resume(&made.id, resume(60)).await.unwrap();
    assert!(!resumed.was_running);
    assert_eq!(resumed.view.revision, 2);
    assert!(resumed.view.started_at > made.started_at);
    assert!(stand.host.frozen().is_empty());
    assert_eq!(stand.host.boots(), 1, "nothing was booted");
    let fresh = node.route(&made.id).unwrap();
    assert!(!fresh.run.is_cancelled());
    let token = |view: &warren_cluster::SandboxView| view.access_token.clone().unwrap();
    assert_eq!(token(&resumed.view).expose(), token(&made).expose());
    assert_eq!(stored(&stand).len(), 0);
}

#[tokio::test]
async fn many_resumes_at_once_share_one() {
    let stand = stand(calm());
    let node = Arc::new(stand.node(0).await);
    let id = paused(&node, &stand, FILES).await;
    assert!(stand.host.alive().is_empty());
    let asks = (0..50).map(|_| node.resume(&id, resume(60)));
    let answers = futures_util::future::join_all(asks).await;
    assert!(
        answers
            .iter()
            .all(|answer| !answer.as_ref().unwrap().was_running)
    );
    assert_eq!(stand.host.boots(), 2);
    assert!(node.resume(&id, resume(60)).await.unwrap().was_running);
    let pauses = (0..5).map(|_| node.pause(&id, FULL));
    let answers = futures_util::future::join_all(pauses).await;
    assert!(answers.iter().all(Result::is_ok), "late ones join");
    assert_eq!(node.get(&id).await.unwrap().revision, 3);
}

#[tokio::test]
async fn a_resume_of_what_runs_only_extends() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let made = node.create(stand.request()).await.unwrap();
    let shorter = node.resume(&made.id, resume(10)).await.unwrap();
    assert!(shorter.was_running);
    assert_eq!(shorter.view.end_at, made.end_at);
    let longer = node.resume(&made.id, resume(600)).await.unwrap();
    assert!(longer.view.end_at > made.end_at);
    let most = node.resume(&made.id, resume(100_000)).await.unwrap();
    assert_eq!(
        most.view.end_at,
        made.started_at + Duration::from_secs(3600)
    );
}

#[tokio::test]
async fn a_pause_without_memory_boots_afresh_from_the_files() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let id = paused(&node, &stand, FILES).await;
    assert!(stand.host.alive().is_empty());
    assert!(!node.get(&id).await.unwrap().pause.unwrap().memory);
    assert_eq!(stored(&stand).len(), 1);
    node.resume(&id, resume(60)).await.unwrap();
    assert_eq!(stand.host.boots(), 2);
    assert_eq!(stored(&stand).len(), 0);
    assert!(node.route(&id).is_some());
}

#[tokio::test]
async fn a_kill_of_a_paused_one_deletes_everything() {
    for (config, request) in [(calm(), FULL), (calm(), FILES), (eager(), FULL)] {
        let stand = stand(config);
        keep_memory(&stand, true);
        let node = stand.node(0).await;
        let id = paused(&node, &stand, request).await;
        if config.files_after < Duration::from_secs(1) {
            until_stored(&stand, "memory").await;
        }
        node.end(&id, EndReason::Killed).await.unwrap();
        assert!(stand.host.alive().is_empty());
        assert_eq!((stand.records(), stored(&stand).len()), (0, 0));
        assert!(matches!(
            node.resume(&id, resume(9)).await,
            Err(NodeError::NotFound(_))
        ));
    }
}

#[tokio::test]
async fn time_out_pauses_where_that_was_asked_for_and_pauses_again_after_a_resume() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let mut events = node.take_events().unwrap();
    let request = CreateSandbox {
        timeout: Duration::from_millis(20),
        on_timeout: OnTimeout::Pause { memory: true },
        ..stand.request()
    };
    let id = node.create(request).await.unwrap().id;
    let mut pauses = Vec::new();
    while pauses.len() < 2 {
        match events.recv().await.unwrap() {
            NodeEvent::Changed(view) if view.state == SandboxState::Paused => {
                pauses.push(view.revision);
                let request = ResumeSandbox {
                    timeout: Duration::from_millis(20),
                    ..resume(0)
                };
                node.resume(&id, request).await.unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(pauses, [1, 3]);
}

#[tokio::test]
async fn a_full_disk_leaves_it_running() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    stand.host.fail_next_capture(ErrorKind::StorageFull);
    let id = node.create(stand.request()).await.unwrap().id;
    assert!(matches!(
        node.pause(&id, FILES).await,
        Err(NodeError::PauseFailed(_))
    ));
    assert!(
        node.route(&id)
            .is_some_and(|route| !route.run.is_cancelled())
    );
    assert!(stand.host.frozen().is_empty());
    stand.host.fail_next_capture(ErrorKind::StorageFull);
    assert!(matches!(
        node.capture(&id, BuildId::random(), true).await,
        Err(NodeError::CaptureFailed(_))
    ));
    assert!(stand.host.frozen().is_empty());
    assert!(node.captures().await.unwrap().is_empty());
    node.pause(&id, FILES).await.unwrap();
}

#[tokio::test]
async fn a_silent_agent_is_paused_only_with_its_memory() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let id = node.create(stand.request()).await.unwrap().id;
    stand.host.set_agent_status(500);
    let strict = PauseSandbox {
        healthy_guest: true,
        ..FULL
    };
    for request in [strict, FILES] {
        assert!(matches!(
            node.pause(&id, request).await,
            Err(NodeError::AgentSilent(_))
        ));
    }
    assert!(node.route(&id).is_some());
    node.pause(&id, FULL).await.unwrap();
    assert!(node.get(&id).await.unwrap().pause.unwrap().agent_silent);
    // Its memory is of no use any more; its files are.
    stand.host.set_agent_status(204);
    assert!(matches!(
        node.resume(&id, resume(9)).await,
        Err(NodeError::AgentSilent(_))
    ));
    assert_eq!(stand.host.frozen().len(), 1);
    assert_eq!(node.get(&id).await.unwrap().state, SandboxState::Paused);
    let from_files = ResumeSandbox {
        memory: false,
        ..resume(9)
    };
    node.resume(&id, from_files).await.unwrap();
}

#[tokio::test]
async fn a_resume_that_the_agent_refuses_leaves_it_paused() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let id = node.create(stand.request()).await.unwrap().id;
    node.pause(&id, FULL).await.unwrap();
    stand.host.set_agent_status(500);
    assert!(matches!(
        node.resume(&id, resume(9)).await,
        Err(NodeError::ResumeFailed(_))
    ));
    assert_eq!(stand.host.frozen().len(), 1);
    assert_eq!(node.get(&id).await.unwrap().state, SandboxState::Paused);
    stand.host.set_agent_status(204);
    node.resume(&id, resume(9)).await.unwrap();
}

#[tokio::test]
async fn a_server_that_starts_again_finds_paused_ones_as_they_were() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let frozen = paused(&node, &stand, FULL).await;
    let on_disk = paused(&node, &stand, FILES).await;
    node.stop(StopMode::KeepSandboxes).await;
    std::fs::create_dir(stand.dir.path().join("captures/paused-unnamed")).unwrap();
    let node = stand.node(0).await;
    assert_eq!(stored(&stand).len(), 1, "what no record names is swept");
    assert_eq!(stand.host.frozen().len(), 1);
    for id in [frozen, on_disk] {
        assert!(node.route(&id).is_none());
        node.resume(&id, resume(60)).await.unwrap();
        assert!(node.route(&id).is_some());
    }
}

#[tokio::test]
async fn after_a_reboot_memory_comes_back_if_it_was_stored_and_files_otherwise() {
    for keeps_memory in [true, false] {
        let stand = stand(eager());
        keep_memory(&stand, keeps_memory);
        let node = stand.node(0).await;
        let id = paused(&node, &stand, FULL).await;
        until_stored(&stand, if keeps_memory { "memory" } else { "files" }).await;
        assert_eq!(stand.host.alive().is_empty(), keeps_memory);
        node.stop(StopMode::KeepSandboxes).await;
        stand.host.reboot();

        let node = stand.node(0).await;
        let pause = node.get(&id).await.unwrap().pause.unwrap();
        assert_eq!(pause.memory, keeps_memory);
        assert_eq!(pause.note.is_some(), !keeps_memory, "a loss is told");
        node.resume(&id, resume(60)).await.unwrap();
        assert!(node.route(&id).is_some());
        assert_eq!(stored(&stand).len(), 0);
    }
}

#[tokio::test]
async fn a_reboot_right_after_a_pause_is_told_as_the_end() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let id = paused(&node, &stand, FULL).await;
    node.stop(StopMode::KeepSandboxes).await;
    stand.host.reboot();
    let node = stand.node(0).await;
    let mut events = node.take_events().unwrap();
    assert_eq!(ended(&mut events, &id).await, EndReason::HostRestarted);
}

#[tokio::test]
async fn frozen_processes_that_die_leave_the_stored_files() {
    let stand = stand(PauseConfig {
        files_after: Duration::from_millis(1),
        ..calm()
    });
    let node = stand.node(0).await;
    let id = paused(&node, &stand, FULL).await;
    until_stored(&stand, "files").await;
    let run = stand.host.frozen().remove(0);
    stand.host.crash(&run, ExitCause::OutOfMemory);
    while node.get(&id).await.unwrap().pause.unwrap().memory {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    node.resume(&id, resume(60)).await.unwrap();
    alive(&stand.host, 1).await;
}

#[tokio::test]
async fn a_capture_starts_sandboxes_and_goes_when_forgotten() {
    for keeps_memory in [true, false] {
        let stand = stand(calm());
        keep_memory(&stand, keeps_memory);
        let node = stand.node(0).await;
        let id = node.create(stand.request()).await.unwrap().id;
        let build = BuildId::random();
        let captured = node.capture(&id, build, true).await.unwrap();
        assert!(stand.host.frozen().is_empty());
        assert_eq!(
            captured.image.capture,
            Some(if keeps_memory {
                CaptureKind::Memory
            } else {
                CaptureKind::Filesystem
            })
        );
        node.end(&id, EndReason::Killed).await.unwrap();
        let request = CreateSandbox {
            image: captured.image,
            ..stand.request()
        };
        let child = node.create(request.clone()).await.unwrap();
        assert_ne!(child.id, id);
        assert_eq!(child.build_id, build);
        assert_eq!(node.captures().await.unwrap(), [build]);
        node.forget_capture(build).await.unwrap();
        node.forget_capture(build).await.unwrap();
        assert!(node.captures().await.unwrap().is_empty());
        assert!(matches!(
            node.create(request).await,
            Err(NodeError::LayerMissing(_))
        ));
        assert!(node.route(&child.id).is_some());
    }
}

#[tokio::test]
async fn stopping_with_the_sandboxes_keeps_paused_ones_on_disk() {
    let stand = stand(calm());
    keep_memory(&stand, true);
    let node = stand.node(0).await;
    let id = paused(&node, &stand, FULL).await;
    let running = node.create(stand.request()).await.unwrap().id;
    node.stop(StopMode::EndSandboxes).await;
    assert!(stand.host.alive().is_empty());
    let node = stand.node(0).await;
    assert!(node.get(&running).await.is_err());
    node.resume(&id, resume(60)).await.unwrap();
}

#[tokio::test]
async fn a_hundred_cycles_leave_nothing() {
    let stand = stand(calm());
    let node = stand.node(0).await;
    let id = node.create(stand.request()).await.unwrap().id;
    for round in 0..100 {
        let request = if round % 10 == 0 { FILES } else { FULL };
        node.pause(&id, request).await.unwrap();
        node.resume(&id, resume(60)).await.unwrap();
    }
    assert_eq!(stand.host.alive().len(), 1);
    assert_eq!((stand.records(), stored(&stand).len()), (1, 0));
    node.end(&id, EndReason::Killed).await.unwrap();
    alive(&stand.host, 0).await;
}
