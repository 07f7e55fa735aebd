//! What every runtime must do.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use warren_runtime::ns::NsRuntime;
use warren_runtime::{AdoptError, ExitCause, Runtime, RuntimeError, Sandbox};
use warren_types::ENVD_PORT;

use crate::harness::{Host, config, ok, sh, small, spec};

/// Waits that are not the thing under test end here.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_booted_sandbox_runs_commands_in_its_own_world() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    let world = ok(
        &sandbox,
        "id -u; hostname; cat /etc/hostname; nproc >/dev/null; echo $PPID",
    )
    .await;
    assert_eq!(world, "0\ne2b.local\ne2b.local\n1");
    let log = std::fs::read_to_string(sandbox.log_path()).unwrap();
    assert_eq!(log, "{\"message\":\"key secret\"}\n");
    ok(
        &sandbox,
        "echo x > /root/file && test -d /dev/pts && test -d /dev/shm",
    )
    .await;
    assert_eq!(
        std::fs::read(sandbox.upper_path().join("root/file")).unwrap(),
        b"x\n"
    );
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn a_user_becomes_root_with_sudo_and_pings_itself() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    ok(
        &sandbox,
        "useradd -m user && echo 'user ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/u",
    )
    .await;
    assert_eq!(
        ok(&sandbox, "su user -c 'id -un; sudo id -un'").await,
        "user\nroot"
    );
    ok(
        &sandbox,
        "su user -c 'ping -c 1 -W 2 127.0.0.1 && ping -c 1 -W 2 ::1'",
    )
    .await;
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn ports_on_each_address_are_reached_and_closed_ones_refused() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    let serve = |port: u16, at: &str| {
        format!(
            "python3 -c \"import socket; s=socket.create_server(('{at}',{port}),family=socket.\
             {}); exec('while 1: c=s.accept()[0]; c.send(b\\\"hi\\\"); c.close()')\" >/dev/null 2>&1 &",
            if at.contains(':') {
                "AF_INET6"
            } else {
                "AF_INET"
            }
        )
    };
    let own = ok(
        &sandbox,
        "ip -4 -br address show eth0 | awk '{print $3}' | cut -d/ -f1",
    )
    .await;
    let dialer = sandbox.dialer();
    for (port, at) in [(3001, "127.0.0.1"), (3002, "::1"), (3003, own.as_str())] {
        ok(&sandbox, &serve(port, at)).await;
        let mut stream = tokio::time::timeout(PATIENCE, async {
            loop {
                match dialer.dial(port).await {
                    Ok(stream) => return stream,
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused),
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "hi");
    }
    sandbox.destroy().await.unwrap();
    let gone = dialer.dial(ENVD_PORT).await.unwrap_err();
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn usage_tells_cpu_memory_and_disk() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    let before = sandbox.usage().await.unwrap();
    ok(
        &sandbox,
        "dd if=/dev/zero of=/root/big bs=1M count=20 status=none && sync",
    )
    .await;
    let after = sandbox.usage().await.unwrap();
    assert!(after.cpu_micros > before.cpu_micros, "{before:?} {after:?}");
    assert!(
        after.disk_used >= before.disk_used + (20 << 20),
        "{before:?} {after:?}"
    );
    assert!(
        after.memory_used > 0 && after.memory_cache >= 20 << 20,
        "{after:?}"
    );
    assert_eq!(after.oom_kills, 0);
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn a_crash_and_a_lack_of_memory_are_told_apart() {
    let host = Host::start(2);
    let (one, other) = (host.boot().await, host.boot().await);
    let pid = i32::try_from(one.record().pid).unwrap();
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert_eq!(one.exited().await, ExitCause::Died);
    // Everything but the first process asks to be killed first; then it fills /dev/shm.
    let (status, _) = sh(&other, "python3 -c 'b=bytearray(1<<30)'").await;
    assert_ne!(status, 0);
    assert!(other.usage().await.unwrap().oom_kills > 0);
    one.destroy().await.unwrap();
    one.destroy().await.unwrap();
    other.destroy().await.unwrap();
    assert_eq!(other.exited().await, ExitCause::Died);
    drop((one, other));
    host.stop().await;
}

#[tokio::test]
async fn a_missing_layer_and_a_missing_agent_are_named() {
    let host = Host::start(1);
    let mut missing = spec();
    missing.layers = vec!["/nonexistent/layer".into()];
    let error = host.runtime.boot(missing).await.unwrap_err();
    assert!(matches!(error, RuntimeError::LayerMissing(path) if path.ends_with("layer")));
    let mut wrong = spec();
    wrong.agent.executable = "/etc/passwd".into();
    let error = host.runtime.boot(wrong).await.unwrap_err();
    assert!(
        matches!(&error, RuntimeError::Agent(why) if why.contains("execute")),
        "{error}"
    );
    host.stop().await;
}

#[tokio::test]
async fn sandboxes_outlive_the_server_and_are_adopted_or_swept() {
    let host = Host::start(2);
    let (kept, lost) = (host.boot().await, host.boot().await);
    ok(&kept, "echo still here > /root/note").await;
    let (kept_record, lost_record) = (kept.record(), lost.record());
    drop((kept, lost));
    let Host { dir, runtime } = host;
    runtime.shutdown().await;
    drop(runtime);

    let runtime = NsRuntime::open(config(dir.path(), 1)).unwrap();
    let mut other_boot = kept_record.clone();
    other_boot.boot_id = "another".to_owned();
    assert!(matches!(
        runtime.adopt(other_boot).await,
        Err(AdoptError::HostRestarted)
    ));
    let mut reused = kept_record.clone();
    reused.pid_start_time += 1;
    assert!(matches!(runtime.adopt(reused).await, Err(AdoptError::Gone)));
    let adopted = runtime.adopt(kept_record.clone()).await.unwrap();
    let report = runtime
        .sweep(std::slice::from_ref(&kept_record.id))
        .await
        .unwrap();
    assert_eq!(report.sandboxes, 1);
    assert_eq!(
        runtime
            .sweep(std::slice::from_ref(&kept_record.id))
            .await
            .unwrap()
            .sandboxes,
        0
    );
    assert!(matches!(
        runtime.adopt(lost_record).await,
        Err(AdoptError::Gone)
    ));

    assert_eq!(adopted.record(), kept_record);
    assert_eq!(ok(&adopted, "cat /root/note").await, "still here");
    let log = std::fs::read_to_string(adopted.log_path()).unwrap();
    assert!(log.contains("key secret"));
    assert!(adopted.usage().await.unwrap().memory_used > 0);
    // The slots of the old process do not clash with new ones.
    let fresh = runtime.boot(spec()).await.unwrap();
    assert_ne!(fresh.record().slot, kept_record.slot);
    fresh.destroy().await.unwrap();
    adopted.destroy().await.unwrap();
    drop((fresh, adopted));
    Host { dir, runtime }.stop().await;
}

#[tokio::test]
async fn the_limits_of_a_sandbox_hold() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    let limit = u64::from(small().disk_mib);
    let (status, text) = sh(&sandbox, "dd if=/dev/zero of=/root/big bs=1M status=none").await;
    assert!(status != 0 && text.contains("No space left"), "{text}");
    let size = ok(&sandbox, "stat -c %s /root/big")
        .await
        .parse::<u64>()
        .unwrap();
    assert!(size > (limit / 2) << 20 && size < limit << 20, "{size}");
    ok(&sandbox, "rm /root/big").await;
    let (_, text) = sh(
        &sandbox,
        "for i in $(seq 200); do sleep 30 >/dev/null 2>&1 & done; echo end",
    )
    .await;
    assert!(text.contains("ork"), "{text}");
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}
