//! What is left on the host: nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::task::Poll;

use warren_runtime::ns::Step;
use warren_runtime::{Runtime, Sandbox};

use crate::harness::{Host, ok, spec};

/// Everything on the host that belongs to the instance of a data directory.
fn remains(data_dir: &Path, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = data_dir.to_string_lossy();
    for line in mounts
        .lines()
        .filter(|line| line.contains(&*dir) || line.contains(name))
    {
        found.insert(format!("mount {line}"));
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let path = hierarchy.unwrap().path();
        for path in [path.join(format!("warren-{name}")), path] {
            if path.ends_with(format!("warren-{name}")) && path.exists() {
                found.insert(format!("cgroup {}", path.display()));
            }
        }
    }
    for device in fs::read_dir("/sys/block").unwrap() {
        let path = device.unwrap().path().join("loop/backing_file");
        if let Ok(file) = fs::read_to_string(path)
            && (file.contains(&*dir) || file.contains(&format!("warren-{name}")))
        {
            found.insert(format!("loop device {file}"));
        }
    }
    if Path::new("/sys/class/net")
        .join(format!("wrn{name}"))
        .exists()
    {
        found.insert("link".to_owned());
    }
    let tables = Command::new("nft")
        .args(["list", "tables"])
        .output()
        .unwrap();
    if String::from_utf8_lossy(&tables.stdout).contains(name) {
        found.insert("firewall table".to_owned());
    }
    for dir in ["/run/warren", "/run/warren/forwarding"] {
        if Path::new(dir).join(name).exists() {
            found.insert(format!("{dir}/{name}"));
        }
    }
    for slots in fs::read_dir("/run/warren/slots").unwrap().flatten() {
        if fs::read_to_string(slots.path()).is_ok_and(|owner| owner == name) {
            found.insert(format!("slots {:?}", slots.path()));
        }
    }
    found
}

fn images(data_dir: &Path) -> usize {
    let dir = [
        data_dir.join("pool/disks/images"),
        data_dir.join("disks/images"),
    ];
    dir.iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .count()
}

#[tokio::test]
async fn thirty_lives_leave_the_host_as_it_was() {
    lives_leave_the_host_as_it_was(10).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn a_thousand_lives_leave_the_host_as_it_was() {
    lives_leave_the_host_as_it_was(334).await;
}

/// Descriptors, threads and mounts of this process: what could grow with each life.
fn figures() -> [usize; 3] {
    let count = |dir: &str| fs::read_dir(dir).unwrap().count();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    [
        count("/proc/self/fd"),
        count("/proc/self/task"),
        mounts.lines().count(),
    ]
}

/// Three sandboxes live and end per round.
async fn lives_leave_the_host_as_it_was(rounds: usize) {
    let host = Host::start(2);
    let data_dir = host.dir.path().to_owned();
    let name = host.runtime.instance().to_owned();
    let mut early = None;
    for round in 0..rounds {
        let (a, b, c) = tokio::join!(host.boot(), host.boot(), host.boot());
        ok(&a, "sleep 1000 >/dev/null 2>&1 & echo started").await;
        for sandbox in [&a, &b, &c] {
            sandbox.destroy().await.unwrap();
        }
        drop((a, b, c));
        if round == 4 {
            host.runtime.drain().await;
            host.settle_prepared(2).await;
            early = Some(figures());
        }
    }
    host.runtime.drain().await;
    host.settle_prepared(2).await;
    // Each life has tens of descriptors. Other tests, which may run beside a short one, have too.
    if rounds > 100 {
        for (early, late) in early.unwrap().into_iter().zip(figures()) {
            assert!(late < early + 50, "{early} has become {late}");
        }
    }
    let Host { dir, runtime } = host;
    assert!(
        !remains(&data_dir, &name).is_empty(),
        "the search finds what there is"
    );
    runtime.shutdown().await;
    drop(runtime);
    assert_eq!(remains(&data_dir, &name), BTreeSet::new());
    drop(dir);
}

#[tokio::test]
async fn a_failure_at_any_step_leaves_nothing_of_the_sandbox() {
    // Nothing is made ahead, so that each boot goes through every step.
    let host = Host::start_idle();
    for step in Step::ALL {
        host.runtime.fail_next(step);
        let mut denied = spec();
        denied.policy.internet = false;
        host.runtime
            .boot(denied)
            .await
            .expect_err("the step was asked to fail");
        host.runtime.drain().await;
        assert_eq!(host.runtime.slots_in_use(), 0, "{step:?}");
        assert_eq!(host.groups(), Vec::<String>::new(), "{step:?}");
        assert!(images(host.dir.path()) <= 1, "{step:?}");
        assert_eq!(
            host.router("nft list set inet warren denied")
                .matches("100.64")
                .count(),
            0
        );
    }
    let sandbox = host.boot().await;
    ok(&sandbox, "true").await;
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn a_boot_given_up_leaves_nothing_of_the_sandbox() {
    let host = Host::start_idle();
    for polls in 1..6 {
        {
            let mut boot = std::pin::pin!(host.runtime.boot(spec()));
            for _ in 0..polls {
                if let Poll::Ready(sandbox) = poll_once(boot.as_mut()).await {
                    // It was too fast to be given up, and would live on.
                    sandbox.unwrap().destroy().await.unwrap();
                    break;
                }
                tokio::time::sleep(std::time::Duration::from_millis(polls)).await;
            }
        }
        // The next boot goes through the same threads, so what was begun before has ended.
        let sandbox = host.boot().await;
        sandbox.destroy().await.unwrap();
        host.runtime.drain().await;
    }
    host.settle().await;
    assert_eq!(host.groups(), Vec::<String>::new());
    host.stop().await;
}

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}
