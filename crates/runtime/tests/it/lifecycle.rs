//! Freezing, capturing and restoring.

use std::time::Duration;

use futures_util::future::join_all;
use warren_runtime::ns::NsRuntime;
use warren_runtime::{Runtime, RuntimeError, Sandbox};

use crate::harness::{Host, config, ok, spec};

/// A loop that counts in a file.
const COUNT: &str = "python3 -c \"exec('n=0\\nimport time\\nwhile 1:\\n n+=1\\n \
                     open(\\'/root/n\\',\\'w\\').write(str(n))\\n time.sleep(.002)')\" \
                     >/dev/null 2>&1 &";

#[tokio::test]
async fn a_frozen_sandbox_uses_no_cpu_and_goes_on_when_thawed() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    ok(&sandbox, "while :; do :; done >/dev/null 2>&1 &").await;
    assert!(!sandbox.is_frozen().await.unwrap());
    sandbox.freeze().await.unwrap();
    sandbox.freeze().await.unwrap();
    assert!(sandbox.is_frozen().await.unwrap());
    let before = sandbox.usage().await.unwrap().cpu_micros;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = sandbox.usage().await.unwrap().cpu_micros;
    assert_eq!(before, after);
    sandbox.thaw().await.unwrap();
    assert!(!sandbox.is_frozen().await.unwrap());
    ok(&sandbox, "true").await;
    assert!(sandbox.usage().await.unwrap().cpu_micros > after);
    sandbox.freeze().await.unwrap();
    sandbox.destroy().await.unwrap();
    assert!(sandbox.freeze().await.is_err());
    drop(sandbox);
    host.stop().await;
}

#[tokio::test]
async fn a_capture_keeps_files_and_serves_many_at_once() {
    let host = Host::start(2);
    let source = host.boot().await;
    let into = host.runtime.captures_dir().join("one");
    ok(
        &source,
        "mkdir /root/d && head -c 5000000 /dev/urandom > /root/d/big && rm /etc/motd && \
         sha256sum /root/d/big > /root/sum; touch /etc/debian_version",
    )
    .await;
    ok(&source, COUNT).await;
    ok(&source, "until test -s /root/n; do sleep .01; done").await;
    assert!(matches!(
        source.capture(&into, false).await,
        Err(RuntimeError::NotFrozen)
    ));
    source.freeze().await.unwrap();
    let info = source.capture(&into, false).await.unwrap();
    assert!(source.is_frozen().await.unwrap());
    assert!(!info.has_memory && info.bytes >= 5_000_000, "{info:?}");
    assert_eq!(host.runtime.inspect_capture(&into).await.unwrap(), info);
    let again = source.capture(&into, false).await.unwrap_err();
    assert!(matches!(again, RuntimeError::Step { .. }), "{again}");
    source.thaw().await.unwrap();
    ok(&source, "rm -r /root/d && echo changed > /root/later").await;

    let restores = (0..4).map(|_| {
        let mut spec = spec();
        spec.layers = Vec::new();
        host.runtime.restore(spec, &into, false)
    });
    let restored: Vec<_> = join_all(restores).await;
    for (at, restored) in restored.into_iter().enumerate() {
        let restored = restored.unwrap();
        assert!(!restored.memory);
        let sandbox = restored.sandbox;
        ok(&sandbox, "sha256sum -c /root/sum && test ! -e /etc/motd").await;
        ok(&sandbox, "test ! -e /root/later && test -s /root/n").await;
        ok(&sandbox, &format!("echo {at} > /root/own")).await;
        assert_eq!(ok(&sandbox, "cat /root/own").await, at.to_string());
        // Its log is its own.
        let log = std::fs::read_to_string(sandbox.log_path()).unwrap();
        assert_eq!(log.lines().count(), 1);
        sandbox.destroy().await.unwrap();
    }
    assert_eq!(ok(&source, "cat /root/later").await, "changed");
    source.destroy().await.unwrap();
    host.runtime.forget_capture(&into).await.unwrap();
    host.runtime.forget_capture(&into).await.unwrap();
    let gone = host.runtime.restore(spec(), &into, false).await;
    assert!(matches!(gone, Err(RuntimeError::NoCapture(_))));
    drop(source);
    host.stop().await;
}

#[tokio::test]
async fn captures_and_frozen_sandboxes_outlive_the_server() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    ok(&sandbox, "echo kept > /root/note").await;
    let into = host.runtime.captures_dir().join("kept");
    sandbox.freeze().await.unwrap();
    sandbox.capture(&into, false).await.unwrap();
    let unfinished = host.runtime.captures_dir().join(".draft-other");
    std::fs::create_dir(&unfinished).unwrap();
    let record = sandbox.record();
    drop(sandbox);
    let Host { dir, runtime } = host;
    runtime.shutdown().await;
    drop(runtime);

    let runtime = NsRuntime::open(config(dir.path(), 1)).unwrap();
    let adopted = runtime.adopt(record.clone()).await.unwrap();
    runtime
        .sweep(std::slice::from_ref(&record.id))
        .await
        .unwrap();
    assert!(!unfinished.exists());
    assert!(adopted.is_frozen().await.unwrap());
    adopted.thaw().await.unwrap();
    assert_eq!(ok(&adopted, "cat /root/note").await, "kept");
    adopted.destroy().await.unwrap();
    // As the same sandbox: its log goes on.
    let mut same = spec();
    same.id = record.id;
    let back = runtime.restore(same, &into, false).await.unwrap().sandbox;
    assert_eq!(ok(&back, "cat /root/note").await, "kept");
    let log = std::fs::read_to_string(back.log_path()).unwrap();
    assert_eq!(log.lines().count(), 2);
    // A capture of a restored sandbox stands by itself.
    ok(&back, "echo more > /root/more").await;
    back.freeze().await.unwrap();
    let second = runtime.captures_dir().join("second");
    back.capture(&second, false).await.unwrap();
    back.destroy().await.unwrap();
    runtime.forget_capture(&into).await.unwrap();
    let third = runtime
        .restore(spec(), &second, false)
        .await
        .unwrap()
        .sandbox;
    assert_eq!(ok(&third, "cat /root/note /root/more").await, "kept\nmore");
    third.destroy().await.unwrap();
    drop((adopted, back, third));
    Host { dir, runtime }.stop().await;
}
