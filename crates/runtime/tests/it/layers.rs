//! Many layers, joined in both ways.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use warren_runtime::ns::{NsRuntime, Overlay};
use warren_runtime::{Runtime, Sandbox};

use crate::harness::{Host, config, ok, rootfs, spec};

const LAYERS: usize = 30;

/// The root file system and thin layers above it, each with a file of its own, one that all
/// have, and one that belongs to a user.
fn layers(dir: &TempDir) -> Vec<PathBuf> {
    let mut layers = vec![rootfs()];
    for number in 1..LAYERS {
        let layer = dir.path().join(format!("layer-{number}"));
        let own = layer.join("srv").join(number.to_string());
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("file"), number.to_string()).unwrap();
        std::os::unix::fs::chown(own.join("file"), Some(1000), Some(1000)).unwrap();
        fs::write(layer.join("srv/top"), number.to_string()).unwrap();
        layers.push(layer);
    }
    layers
}

async fn many_layers_make_one_root(overlay: Overlay) {
    let dir = TempDir::new().unwrap();
    // The runtime enters layers as users of the sandboxes.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(dir.path(), open).unwrap();
    let data = TempDir::new().unwrap();
    let mut config = config(data.path(), 1);
    config.overlay = overlay;
    let runtime = NsRuntime::open(config).unwrap();
    let host = Host { dir: data, runtime };
    let mut layered = spec();
    layered.layers = layers(&dir);
    // The second use of a disk, and of a joining thread's places.
    for _ in 0..3 {
        let sandbox = host.runtime.boot(layered.clone()).await.unwrap();
        let seen = ok(&sandbox, "cat /srv/top; cat /srv/*/file | wc -c").await;
        assert_eq!(seen, "2949");
        assert_eq!(ok(&sandbox, "stat -c %u:%g /srv/7/file").await, "1000:1000");
        ok(
            &sandbox,
            "rm -r /srv/3 && echo new > /srv/4/file && chown 5:5 /srv/4/file && mv /srv/5 /srv/x",
        )
        .await;
        let seen = ok(
            &sandbox,
            "ls -d /srv/3 /srv/x 2>/dev/null; cat /srv/4/file; stat -c %u /srv/4/file",
        )
        .await;
        assert_eq!(seen, "/srv/x\nnew\n5");
        sandbox.destroy().await.unwrap();
        host.runtime.drain().await;
    }
    assert_eq!(
        fs::read_to_string(layered.layers[4].join("srv/4/file")).unwrap(),
        "4"
    );
    host.stop().await;
}

#[tokio::test]
async fn many_layers_make_one_root_in_the_kernels_way() {
    many_layers_make_one_root(Overlay::Probe).await;
}

#[tokio::test]
async fn many_layers_make_one_root_by_path() {
    many_layers_make_one_root(Overlay::ByPath).await;
}

#[tokio::test]
async fn a_missing_part_by_path_fails_and_the_next_boot_works() {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path(), 1);
    config.overlay = Overlay::ByPath;
    let runtime = NsRuntime::open(config).unwrap();
    let host = Host { dir: data, runtime };
    let mut wrong = spec();
    // Twice the same layer: overlayfs refuses overlapping ones.
    wrong.layers.push(rootfs());
    for _ in 0..4 {
        host.runtime.boot(wrong.clone()).await.unwrap_err();
    }
    let sandbox = host.boot().await;
    ok(&sandbox, "true").await;
    sandbox.destroy().await.unwrap();
    drop(sandbox);
    host.stop().await;
}
