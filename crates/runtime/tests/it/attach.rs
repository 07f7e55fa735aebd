//! Directories of the host in sandboxes that run.

use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rustix::fs::CWD;
use tempfile::TempDir;
use warren_runtime::ns::NsRuntime;
use warren_runtime::{Attachment, Runtime, Sandbox};
use warren_sys::mount;

use crate::harness::{Host, config, ok, spec};

fn tree(dir: &Path) -> OwnedFd {
    mount::clone_tree(CWD, dir, false).unwrap()
}

fn attachment(dir: &Path, path: &str, read_only: bool) -> Vec<Attachment> {
    vec![Attachment {
        tree: tree(dir),
        path: path.to_owned(),
        read_only,
    }]
}

#[tokio::test]
async fn sandboxes_share_a_directory_with_the_owners_that_they_see() {
    let shared = TempDir::new().unwrap();
    fs::set_permissions(shared.path(), Permissions::from_mode(0o777)).unwrap();
    fs::write(shared.path().join("given"), "given").unwrap();
    chown(shared.path().join("given"), Some(1000), Some(1000)).unwrap();
    let host = Host::start(2);
    let one = host.runtime.boot(spec()).await.unwrap();
    let other = host.runtime.boot(spec()).await.unwrap();
    let at = attachment(shared.path(), "/mnt/deep/er", false);
    one.attach(at).await.unwrap();
    assert_eq!(ok(&one, "stat -c %u /mnt/deep").await, "0");
    assert_eq!(ok(&one, "stat -c %u /mnt/deep/er/given").await, "1000");
    ok(
        &one,
        "echo from one > /mnt/deep/er/new && chown 33:34 /mnt/deep/er/new",
    )
    .await;
    let made = fs::metadata(shared.path().join("new")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 33);
    other
        .attach(attachment(shared.path(), "/v", true))
        .await
        .unwrap();
    assert_eq!(
        ok(&other, "cat /v/new; stat -c %u:%g /v/new").await,
        "from one\n33:34"
    );
    let refused = ok(&other, "touch /v/x 2>&1 || true").await;
    assert!(refused.contains("Read-only file system"), "{refused}");

    // It stays when the server goes and comes.
    let record = one.record();
    let Host { dir, runtime } = host;
    drop((one, other));
    runtime.drain().await;
    drop(runtime);
    let runtime = NsRuntime::open(config(dir.path(), 0)).unwrap();
    let host = Host { dir, runtime };
    let one = host.runtime.adopt(record).await.unwrap();
    host.runtime.sweep(&[one.record().id]).await.unwrap();
    assert_eq!(ok(&one, "cat /mnt/deep/er/new").await, "from one");
    one.destroy().await.unwrap();
    host.runtime.drain().await;
    assert!(shared.path().join("new").exists());
    host.runtime.shutdown().await;
}

#[tokio::test]
async fn a_link_at_the_path_leads_nowhere_on_the_host() {
    let shared = TempDir::new().unwrap();
    let trap = TempDir::new().unwrap();
    let host = Host::start(1);
    let sandbox = host.runtime.boot(spec()).await.unwrap();
    let outside = trap.path().display();
    ok(
        &sandbox,
        &format!("ln -s {outside} /a; ln -s /proc/1/root/{outside} /b; ln -s /srv /c"),
    )
    .await;
    for path in ["/a/x", "/b/x"] {
        let attached = sandbox.attach(attachment(shared.path(), path, false)).await;
        assert!(attached.is_err(), "{path}");
    }
    assert_eq!(fs::read_dir(trap.path()).unwrap().count(), 0);
    sandbox
        .attach(attachment(shared.path(), "/c/x", false))
        .await
        .unwrap();
    ok(&sandbox, "touch /srv/x/here").await;
    assert!(shared.path().join("here").exists());
    sandbox.destroy().await.unwrap();
    host.runtime.drain().await;
    host.runtime.shutdown().await;
}
