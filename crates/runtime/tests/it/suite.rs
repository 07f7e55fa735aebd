//! What every runtime must do, run on each there is. What a runtime can't do it declares;
//! then it must refuse it.
//!
//! Its sandboxes run an agent that takes one line per connection: `=write PATH TEXT`,
//! `=read PATH`, `=remember TEXT`, `=recall`, `=fill PATH MIB`, `=hold MIB` (of memory),
//! `=listen PORT` (where it answers with the number) and `=spawn COUNT`; it answers with what
//! it has to say and `=STATUS`.

use std::io;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_runtime::fake::{FakeHost, FakeRuntime};
use warren_runtime::ns::NsRuntime;
use warren_runtime::{
    AdoptError, Attachment, BootSpec, ExitCause, Restored, Runtime, RuntimeError, Sandbox,
};
use warren_types::{ENVD_PORT, NetworkPolicy};

use crate::harness::{config, small, spec, tools};

/// Longer than an agent that may answer takes.
const SILENCE: Duration = Duration::from_millis(300);

/// A runtime under test, which can be left by one server process and opened by the next.
trait Subject {
    type Runtime: Runtime;

    fn open(&self) -> Self::Runtime;
}

struct Namespaces(TempDir);

impl Subject for Namespaces {
    type Runtime = NsRuntime;

    fn open(&self) -> NsRuntime {
        NsRuntime::open(config(self.0.path(), 0)).unwrap()
    }
}

struct Fake(FakeHost);

impl Subject for Fake {
    type Runtime = FakeRuntime;

    fn open(&self) -> FakeRuntime {
        FakeRuntime::new(self.0.clone())
    }
}

async fn say(sandbox: &impl Sandbox, line: &str) -> io::Result<(i32, String)> {
    let mut stream = sandbox.dialer().dial(ENVD_PORT).await?;
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let (output, status) = text
        .trim_end()
        .rsplit_once('=')
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = status.parse().map_err(io::Error::other)?;
    Ok((status, output.trim_end().to_owned()))
}

async fn ok(sandbox: &impl Sandbox, line: &str) -> String {
    let (status, output) = say(sandbox, line).await.unwrap();
    assert_eq!(status, 0, "{line}: {output}");
    output
}

async fn end(runtime: impl Runtime) {
    runtime.drain().await;
    runtime.shutdown().await;
}

async fn runs_commands_and_has_files_of_its_own(subject: &impl Subject) {
    let runtime = subject.open();
    let (one, other) = (
        runtime.boot(spec()).await.unwrap(),
        runtime.boot(spec()).await.unwrap(),
    );
    ok(&one, "=write /root/note one").await;
    ok(&other, "=write /root/note other").await;
    assert_eq!(ok(&one, "=read /root/note").await, "one");
    assert_eq!(ok(&other, "=read /root/note").await, "other");
    assert_ne!(say(&one, "=read /root/none").await.unwrap().0, 0);
    assert_ne!(one.record().id, other.record().id);
    assert!(one.usage().await.unwrap().memory_used > 0);
    // A policy holds for what it is set on.
    let closed = NetworkPolicy {
        internet: false,
        ..NetworkPolicy::default()
    };
    one.set_policy(closed.clone()).await.unwrap();
    assert_eq!(one.record().policy, closed);
    assert_ne!(other.record().policy, closed);
    one.destroy().await.unwrap();
    one.destroy().await.unwrap();
    assert_eq!(one.exited().await, ExitCause::Died);
    let gone = one.dialer().dial(ENVD_PORT).await.unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    assert_eq!(ok(&other, "=read /root/note").await, "other");
    other.destroy().await.unwrap();
    drop((one, other));
    end(runtime).await;
}

async fn keeps_to_the_limit_of_its_disk(subject: &impl Subject) {
    let runtime = subject.open();
    let sandbox = runtime.boot(spec()).await.unwrap();
    let limit = small().disk_mib;
    let (status, text) = say(&sandbox, &format!("=fill /root/big {}", 2 * limit))
        .await
        .unwrap();
    assert!(status != 0 && text.contains("No space left"), "{text}");
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    end(runtime).await;
}

async fn is_reached_on_its_own_ports_and_no_others(subject: &impl Subject) {
    let runtime = subject.open();
    let (one, other) = (
        runtime.boot(spec()).await.unwrap(),
        runtime.boot(spec()).await.unwrap(),
    );
    let dial = async |sandbox: &_, port| {
        let mut stream = Sandbox::dialer(sandbox).dial(port).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok::<_, io::Error>(text)
    };
    let closed = dial(&one, 4000).await.unwrap_err();
    assert_eq!(closed.kind(), io::ErrorKind::ConnectionRefused);
    ok(&one, "=listen 4000").await;
    assert_eq!(dial(&one, 4000).await.unwrap(), "4000");
    // Each has a network of its own.
    let closed = dial(&other, 4000).await.unwrap_err();
    assert_eq!(closed.kind(), io::ErrorKind::ConnectionRefused);
    one.destroy().await.unwrap();
    let gone = dial(&one, 4000).await.unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    other.destroy().await.unwrap();
    drop((one, other));
    end(runtime).await;
}

async fn keeps_to_the_limits_of_processes_and_memory(subject: &impl Subject) {
    let runtime = subject.open();
    let sandbox = runtime.boot(spec()).await.unwrap();
    let wanted = 2 * small().max_processes;
    let started: u32 = ok(&sandbox, &format!("=spawn {wanted}"))
        .await
        .parse()
        .unwrap();
    assert!(started > 0 && started < wanted, "{started}");
    ok(&sandbox, "=hold 1").await;
    // The first process itself asks for more than there is.
    let limit = small().memory_mib;
    assert!(
        say(&sandbox, &format!("=hold {}", 2 * limit))
            .await
            .is_err()
    );
    assert_eq!(sandbox.exited().await, ExitCause::OutOfMemory);
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    end(runtime).await;
}

async fn stands_still_while_it_is_frozen(subject: &impl Subject) {
    let runtime = subject.open();
    let sandbox = runtime.boot(spec()).await.unwrap();
    assert!(!sandbox.is_frozen().await.unwrap());
    sandbox.freeze().await.unwrap();
    sandbox.freeze().await.unwrap();
    assert!(sandbox.is_frozen().await.unwrap());
    let answer = tokio::time::timeout(SILENCE, say(&sandbox, "=recall"));
    assert!(answer.await.is_err(), "it must not answer");
    sandbox.thaw().await.unwrap();
    ok(&sandbox, "=recall").await;
    sandbox.freeze().await.unwrap();
    sandbox.destroy().await.unwrap();
    assert!(sandbox.freeze().await.is_err());
    drop(sandbox);
    end(runtime).await;
}

async fn restore<R: Runtime>(
    runtime: &R,
    from: &std::path::Path,
    memory: bool,
) -> Result<Restored<R::Sandbox>, RuntimeError> {
    let spec = BootSpec {
        layers: Vec::new(),
        ..spec()
    };
    runtime
        .restore(spec, from, memory, Vec::<Attachment>::new())
        .await
}

async fn is_captured_with_its_files(subject: &impl Subject) {
    let runtime = subject.open();
    let source = runtime.boot(spec()).await.unwrap();
    ok(&source, "=write /root/note kept").await;
    ok(&source, "=remember this").await;
    let into = runtime.captures_dir().join("files");
    assert!(matches!(
        source.capture(&into, false).await,
        Err(RuntimeError::NotFrozen)
    ));
    source.freeze().await.unwrap();
    let info = source.capture(&into, false).await.unwrap();
    assert!(!info.has_memory && info.source == source.record().id);
    assert_eq!(runtime.inspect_capture(&into).await.unwrap(), info);
    assert!(source.is_frozen().await.unwrap());
    source.thaw().await.unwrap();
    ok(&source, "=write /root/note changed").await;
    let copy = restore(&runtime, &into, false).await.unwrap();
    assert!(!copy.memory);
    assert_eq!(ok(&copy.sandbox, "=read /root/note").await, "kept");
    assert_eq!(ok(&copy.sandbox, "=recall").await, "");
    let refused = restore(&runtime, &into, true).await;
    assert!(matches!(refused, Err(RuntimeError::NoCheckpoint(_))));
    assert_eq!(ok(&source, "=recall").await, "this");
    for sandbox in [&source, &copy.sandbox] {
        sandbox.destroy().await.unwrap();
    }
    runtime.forget_capture(&into).await.unwrap();
    runtime.forget_capture(&into).await.unwrap();
    let gone = restore(&runtime, &into, false).await;
    assert!(matches!(gone, Err(RuntimeError::NoCapture(_))));
    drop((source, copy));
    end(runtime).await;
}

async fn is_captured_with_its_memory_or_declares_that_it_is_not(subject: &impl Subject) {
    let runtime = subject.open();
    let source = runtime.boot(spec()).await.unwrap();
    ok(&source, "=remember this").await;
    ok(&source, "=write /root/note kept").await;
    let into = runtime.captures_dir().join("memory");
    source.freeze().await.unwrap();
    let captured = source.capture(&into, true).await;
    assert!(source.is_frozen().await.unwrap());
    source.thaw().await.unwrap();
    if let Err(reason) = runtime.capabilities().checkpoint {
        assert!(!reason.is_empty());
        assert!(matches!(captured, Err(RuntimeError::NoCheckpoint(_))));
    } else {
        assert!(captured.unwrap().has_memory);
        let (one, other) = tokio::join!(
            restore(&runtime, &into, true),
            restore(&runtime, &into, true)
        );
        let forks = [one.unwrap(), other.unwrap()];
        for (at, fork) in forks.iter().enumerate() {
            assert!(fork.memory);
            assert_eq!(ok(&fork.sandbox, "=recall").await, "this");
            assert_eq!(ok(&fork.sandbox, "=read /root/note").await, "kept");
            ok(&fork.sandbox, &format!("=remember {at}")).await;
        }
        assert_eq!(ok(&forks[0].sandbox, "=recall").await, "0");
        for fork in &forks {
            fork.sandbox.destroy().await.unwrap();
        }
    }
    assert_eq!(ok(&source, "=recall").await, "this");
    source.destroy().await.unwrap();
    drop(source);
    end(runtime).await;
}

async fn outlives_the_server_and_is_adopted_or_swept(subject: &impl Subject) {
    let runtime = subject.open();
    let (kept, lost) = (
        runtime.boot(spec()).await.unwrap(),
        runtime.boot(spec()).await.unwrap(),
    );
    ok(&kept, "=remember this").await;
    kept.freeze().await.unwrap();
    let (record, lost_record) = (kept.record(), lost.record());
    drop((kept, lost));
    runtime.shutdown().await;
    drop(runtime);
    let runtime = subject.open();
    let mut before = record.clone();
    before.boot_id = "another".to_owned();
    let refused = runtime.adopt(before).await;
    assert!(matches!(refused, Err(AdoptError::HostRestarted)));
    let adopted = runtime.adopt(record.clone()).await.unwrap();
    let keep = [record.id.clone()];
    assert_eq!(runtime.sweep(&keep).await.unwrap().sandboxes, 1);
    assert_eq!(runtime.sweep(&keep).await.unwrap().sandboxes, 0);
    let refused = runtime.adopt(lost_record).await;
    assert!(matches!(refused, Err(AdoptError::Gone)));
    assert_eq!(adopted.record(), record);
    assert!(adopted.is_frozen().await.unwrap());
    adopted.thaw().await.unwrap();
    assert_eq!(ok(&adopted, "=recall").await, "this");
    adopted.destroy().await.unwrap();
    drop(adopted);
    end(runtime).await;
}

macro_rules! suite {
    ($name:ident, $subject:expr) => {
        mod $name {
            use super::*;

            suite!(@ $subject;
                runs_commands_and_has_files_of_its_own
                keeps_to_the_limit_of_its_disk
                is_reached_on_its_own_ports_and_no_others
                keeps_to_the_limits_of_processes_and_memory
                stands_still_while_it_is_frozen
                is_captured_with_its_files
                is_captured_with_its_memory_or_declares_that_it_is_not
                outlives_the_server_and_is_adopted_or_swept
            );
        }
    };
    (@ $subject:expr; $($check:ident)*) => {
        $(
            #[tokio::test]
            async fn $check() {
                super::$check(&$subject).await;
            }
        )*
    };
}

suite!(namespaces, {
    tools();
    Namespaces(TempDir::new().unwrap())
});
suite!(fake, Fake(FakeHost::new(std::env::temp_dir())));
suite!(fake_without_checkpoints, {
    let host = FakeHost::new(std::env::temp_dir());
    host.refuse_checkpoints(Some("it is a fake"));
    Fake(host)
});
