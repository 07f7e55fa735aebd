//! A server that dies between any two steps loses nothing that it has acknowledged.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::runtime::Runtime;
use warren_types::VolumeId;
use warren_volume::{Bucket, BucketConfig};

use crate::support::{LONG, Pool, Service, config, open, read, write, written_back};

/// What the server that is to die works with: directory, address of the service, volume.
const VICTIM: &str = "WARREN_TEST_VICTIM";
const ABORT_AT: &str = "WARREN_TEST_ABORT_AT";
/// Every step of a life: made, written to, written back twice, let go, fetched, deleted.
const STEPS: [&str; 13] = [
    "volume.formatted",
    "volume.noted",
    "volume.cloned",
    "volume.uploaded",
    "volume.attempted",
    "volume.replaced",
    "volume.recorded",
    "volume.removed",
    "volume.clean",
    "volume.claimed",
    "volume.fetched",
    "volume.unnamed",
    "test.done",
];

/// No test of its own: lives until it is killed.
#[test]
#[ignore = "is started and killed by another"]
fn lives_until_it_is_killed() {
    let words = std::env::var(VICTIM).expect("what to work with");
    let words: Vec<_> = words.split(' ').collect();
    let [dir, address, id] = words[..] else {
        panic!("{words:?}")
    };
    let id: VolumeId = id.parse().unwrap();
    let runtime = Runtime::new().unwrap();
    let bucket = Bucket::new(config(address.parse().unwrap()), runtime.handle().clone());
    let volumes = open(dir.as_ref(), bucket.unwrap(), Duration::ZERO);
    let said = |what: &str| {
        let path = std::path::Path::new(dir).join(format!("said-{what}"));
        std::fs::write(path, "").unwrap();
    };
    // The first process makes the volume, later ones find it.
    if !std::path::Path::new(dir).join("said-made").exists() {
        volumes.create(id).unwrap();
        said("made");
    }
    write(&volumes, id, "/first", b"first").unwrap();
    said("first");
    written_back(&volumes);
    write(&volumes, id, "/second", &[7; 3_000_000]).unwrap();
    said("second");
    written_back(&volumes);
    said("written");
    let image = std::path::Path::new(dir).join(format!("{id}.img"));
    while image.exists() {
        written_back(&volumes);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(read(&volumes, id, "/first").unwrap(), b"first");
    said("deleting");
    volumes.delete(id).unwrap();
    warren_service::fault::point("test.done");
}

#[test]
fn a_server_killed_at_any_step_loses_nothing_acknowledged() {
    let (service, pool) = (Service::start(), Pool::new());
    for step in STEPS {
        let (dir, id) = (pool.server(step), VolumeId::random());
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "crash::lives_until_it_is_killed"])
            .env(
                VICTIM,
                format!("{} {} {id}", dir.display(), service.address),
            )
            .env(ABORT_AT, step)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(6), "it did not come to {step}: {status}");
        let said = |what: &str| dir.join(format!("said-{what}")).exists();
        let bucket = service.bucket(service.config());
        let volumes = open(&dir, bucket, LONG);
        if said("deleting") || !said("made") {
            // As what was asked to be removed, and what was never acknowledged.
            volumes.delete(id).unwrap();
            assert!(volumes.content(id).is_err(), "{step}");
        } else {
            volumes.sweep(&HashSet::from([id])).unwrap();
            check(&volumes, id, &said, step);
            // It can be written to and written back as if nothing had been.
            write(&volumes, id, "/after", b"after").unwrap();
            written_back(&volumes);
            let taking = service.bucket(BucketConfig {
                take_over: true,
                ..service.config()
            });
            let other = open(&pool.server(&format!("{step}-other")), taking, LONG);
            check(&other, id, &said, step);
            assert_eq!(read(&other, id, "/after").unwrap(), b"after", "{step}");
            other.delete(id).unwrap();
        }
        drop(volumes);
        assert_eq!(
            service.objects(),
            Vec::<std::path::PathBuf>::new(),
            "{step}"
        );
    }
}

fn check(volumes: &warren_volume::Volumes, id: VolumeId, said: &impl Fn(&str) -> bool, step: &str) {
    for (what, text) in [("first", vec![b'f'; 0]), ("second", vec![7; 3_000_000])] {
        if said(what) {
            let found = read(volumes, id, &format!("/{what}")).unwrap();
            let wanted = if what == "first" {
                b"first".to_vec()
            } else {
                text
            };
            assert!(found == wanted, "{step}: /{what}");
        }
    }
}
