//! Freezing, capturing and restoring.

use std::time::Duration;

use futures_util::future::join_all;
use warren_runtime::ns::NsRuntime;
use warren_runtime::{Runtime, RuntimeError, Sandbox};

use crate::harness::{Host, config, ok, sh, spec, tools};

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
        host.runtime.restore(spec, &into, false, Vec::new())
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
    let gone = host.runtime.restore(spec(), &into, false, Vec::new()).await;
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
    let back = runtime
        .restore(same, &into, false, Vec::new())
        .await
        .unwrap()
        .sandbox;
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
        .restore(spec(), &second, false, Vec::new())
        .await
        .unwrap()
        .sandbox;
    assert_eq!(ok(&third, "cat /root/note /root/more").await, "kept\nmore");
    third.destroy().await.unwrap();
    drop((adopted, back, third));
    Host { dir, runtime }.stop().await;
}

/// Fills memory with random bytes, keeps their sum, listens, counts.
const WORLD: &str = "\
import hashlib, os, socket, sys, threading, time
data = bytearray(os.urandom(20 << 20))
whole = hashlib.sha256(data).hexdigest()
unlinked = open('/root/unlinked', 'w+'); unlinked.write('still here'); unlinked.flush()
os.unlink('/root/unlinked')
n = 0
def count():
    global n
    while True:
        n += 1
        time.sleep(.001)
threading.Thread(target=count, daemon=True).start()
server = socket.create_server(('0.0.0.0', 3100))
inner = socket.create_server(('127.0.0.1', 3101))
near = socket.create_connection(('127.0.0.1', 3101)); far = inner.accept()[0]
open('/root/ready', 'w').close()
while True:
    peer = server.accept()[0]
    word = peer.recv(100).decode()
    if word == 'sum':
        said = str(hashlib.sha256(data).hexdigest() == whole)
    elif word == 'count':
        said = str(n)
    elif word == 'random':
        said = os.urandom(16).hex()
    elif word == 'pair':
        near.sendall(b'over'); said = far.recv(100).decode()
    elif word == 'hold':
        held = peer; continue
    elif word == 'held':
        try: said = 'open' if held.send(b'x') else ''
        except OSError: said = 'closed'
    elif word == 'unlinked':
        unlinked.seek(0); said = unlinked.read()
    peer.sendall(said.encode()); peer.close()
";

/// Starts the program above and waits until it serves.
async fn start_world(sandbox: &warren_runtime::ns::NsSandbox) {
    let path = sandbox.upper_path().join("root/world.py");
    ok(sandbox, "mkdir -p /root/watched && touch /root/world.py").await;
    std::fs::write(path, WORLD).unwrap();
    ok(
        sandbox,
        "python3 /root/world.py >/root/out 2>&1 & for i in $(seq 500); do test -e /root/ready && \
         exit; sleep .01; done; cat /root/out; exit 1",
    )
    .await;
    ok(sandbox, "=watch /root/watched").await;
}

/// Leaves a connection open, whose other end is outside.
async fn hold(sandbox: &warren_runtime::ns::NsSandbox) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt;
    let mut stream = sandbox.dialer().dial(3100).await.unwrap();
    stream.write_all(b"hold").await.unwrap();
    stream
}

async fn ask(sandbox: &warren_runtime::ns::NsSandbox, word: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = sandbox.dialer().dial(3100).await.unwrap();
    stream.write_all(word.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Processes, memory, watches, open files, listeners and identity of what is restored.
async fn check_world(sandbox: &warren_runtime::ns::NsSandbox, at_least: u64) {
    assert_eq!(ask(sandbox, "sum").await, "True");
    let count: u64 = ask(sandbox, "count").await.parse().unwrap();
    assert!(count >= at_least, "{count} < {at_least}");
    assert_eq!(ask(sandbox, "unlinked").await, "still here");
    assert_eq!(ask(sandbox, "pair").await, "over");
    ok(sandbox, "rm -f /root/watched/new; touch /root/watched/new").await;
    assert_eq!(ok(sandbox, "=event").await, "new");
    assert_eq!(ok(sandbox, "hostname; id -u").await, "e2b.local\n0");
    ok(
        sandbox,
        "test $(stat -c %u /dev/shm) = 0 && touch /dev/shm/x",
    )
    .await;
    ok(sandbox, "grep -q ^0::/$ /proc/self/cgroup").await;
    let slot = sandbox.record().slot;
    let address = std::net::Ipv4Addr::from_bits(
        std::net::Ipv4Addr::new(100, 64, 0, 0).to_bits() + 2 * slot + 1,
    );
    let shown = ok(sandbox, "ip -4 -br address show eth0").await;
    assert!(shown.contains(&format!("{address}/31")), "{shown}");
    // What it may do is what it could before.
    assert_ne!(sh(sandbox, "mount -t tmpfs x /mnt").await.0, 0);
    let caps = ok(sandbox, "grep -E 'CapEff|Seccomp:' /proc/self/status").await;
    assert!(caps.contains("a80425fb") && caps.ends_with('2'), "{caps}");
    let ids = ok(sandbox, "cat /proc/self/uid_map").await;
    let first = 100_000 + 65_536 * (slot + 1);
    let map: Vec<_> = ids.split_whitespace().map(str::to_owned).collect();
    assert_eq!(map, ["0", &first.to_string(), "65536"]);
}

#[tokio::test]
async fn processes_run_on_in_each_restore_with_an_identity_of_its_own() {
    let host = Host::start(2);
    tools();
    assert!(host.runtime.capabilities().checkpoint.is_ok());
    let source = host.boot().await;
    start_world(&source).await;
    let before: u64 = ask(&source, "count").await.parse().unwrap();
    let held = hold(&source).await;
    // The next question is answered after that one was taken.
    ask(&source, "count").await;
    let into = host.runtime.captures_dir().join("whole");
    source.freeze().await.unwrap();
    let info = source.capture(&into, true).await.unwrap();
    assert!(info.has_memory && info.bytes > 20 << 20, "{info:?}");
    assert!(source.is_frozen().await.unwrap());
    source.thaw().await.unwrap();
    check_world(&source, before).await;
    assert_eq!(ask(&source, "held").await, "open");
    drop(held);

    let restores = (0..3).map(|_| host.runtime.restore(spec(), &into, true, Vec::new()));
    let mut seen = std::collections::BTreeSet::new();
    let mut forks = Vec::new();
    for restored in join_all(restores).await {
        let restored = restored.unwrap();
        assert!(restored.memory);
        check_world(&restored.sandbox, before).await;
        assert_eq!(ask(&restored.sandbox, "held").await, "closed");
        assert!(seen.insert(ask(&restored.sandbox, "random").await));
        assert!(seen.insert(restored.sandbox.record().slot.to_string()));
        assert_eq!(std::fs::read(restored.sandbox.log_path()).unwrap(), b"");
        forks.push(restored.sandbox);
    }
    // A restored sandbox is captured like any other, also where its source is gone.
    source.destroy().await.unwrap();
    let child = forks.pop().unwrap();
    ok(&child, "echo of the child > /root/note").await;
    child.freeze().await.unwrap();
    let second = host.runtime.captures_dir().join("second");
    child.capture(&second, true).await.unwrap();
    let same = child.record().id;
    child.destroy().await.unwrap();
    let mut again = spec();
    again.id = same;
    let back = host
        .runtime
        .restore(again, &second, true, Vec::new())
        .await
        .unwrap();
    check_world(&back.sandbox, before).await;
    assert_eq!(ok(&back.sandbox, "cat /root/note").await, "of the child");
    back.sandbox.destroy().await.unwrap();
    // Without its memory the same capture boots.
    let booted = host
        .runtime
        .restore(spec(), &second, false, Vec::new())
        .await
        .unwrap();
    assert_eq!(ok(&booted.sandbox, "cat /root/note").await, "of the child");
    booted.sandbox.destroy().await.unwrap();
    for fork in &forks {
        fork.destroy().await.unwrap();
    }
    drop((source, forks, child, back, booted));
    host.settle().await;
    host.stop().await;
}
