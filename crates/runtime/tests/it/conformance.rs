//! What every runtime must do.

use warren_runtime::Sandbox;

use crate::harness::{Host, ok};

#[tokio::test]
async fn a_booted_sandbox_runs_commands_in_its_own_world() {
    let host = Host::start(1);
    let sandbox = host.boot().await;
    assert_eq!(
        ok(&sandbox, "id -u; cat /proc/sys/kernel/hostname; hostname").await,
        "0\ne2b.local\ne2b.local"
    );
    let log = std::fs::read_to_string(sandbox.log_path()).unwrap();
    assert_eq!(log, "{\"message\":\"key secret\"}\n");
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}
