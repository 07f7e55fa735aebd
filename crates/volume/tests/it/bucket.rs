//! What volumes in a bucket promise.

use std::collections::HashSet;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Duration;

use warren_service::{Chain, Secret};
use warren_types::VolumeId;
use warren_volume::{BucketConfig, BucketError, VolumeError};

use crate::support::{LONG, Pool, Service, open, read, write, written_back};

/// Text that no other chunk has.
fn noise(seed: u8) -> Vec<u8> {
    (0..2_000_000u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
        .collect()
}

#[test]
fn a_volume_goes_on_at_another_server_that_takes_it_over() {
    let (service, pool) = (Service::start(), Pool::new());
    let bucket = service.bucket(service.config());
    bucket.check().unwrap();
    let here = open(&pool.server("here"), bucket.clone(), LONG);
    let id = VolumeId::random();
    here.create(id).unwrap();
    write(&here, id, "/note", b"one").unwrap();
    write(&here, id, "/noise", &noise(0)).unwrap();
    written_back(&here);

    // Another server is told who has it.
    let there = open(&pool.server("there"), bucket, LONG);
    let refused = there.content(id).unwrap_err();
    assert!(matches!(refused, VolumeError::Elsewhere(_)), "{refused}");
    let taking = service.bucket(BucketConfig {
        take_over: true,
        ..service.config()
    });
    let there = open(&pool.server("there"), taking, LONG);
    assert_eq!(read(&there, id, "/note").unwrap(), b"one");
    assert_eq!(read(&there, id, "/noise").unwrap(), noise(0));
    write(&there, id, "/note", b"two").unwrap();
    written_back(&there);

    // The first can't write over it, finds out, and keeps its hands off from then on.
    write(&here, id, "/note", b"stale").unwrap();
    here.write_back();
    let refused = here.content(id).unwrap_err();
    assert!(matches!(refused, VolumeError::Elsewhere(_)), "{refused}");
    here.delete(id).unwrap();
    written_back(&there);
    drop(here);
    let third = service.bucket(BucketConfig {
        take_over: true,
        ..service.config()
    });
    let third = open(&pool.server("third"), third, LONG);
    assert_eq!(read(&third, id, "/note").unwrap(), b"two");
    third.delete(id).unwrap();
    assert_eq!(service.objects(), Vec::<std::path::PathBuf>::new());
    third.delete(id).unwrap();
    let gone = there.mount(VolumeId::random()).unwrap_err();
    assert!(matches!(gone, VolumeError::NoVolume), "{gone}");
}

#[test]
fn only_what_changed_is_written_and_what_is_unused_goes() {
    let (service, pool) = (Service::start(), Pool::new());
    let volumes = open(&pool.server("one"), service.bucket(service.config()), LONG);
    let id = VolumeId::random();
    volumes.create(id).unwrap();
    write(&volumes, id, "/noise", &noise(1)).unwrap();
    written_back(&volumes);
    let before = service.chunks();
    // Nothing has changed.
    written_back(&volumes);
    assert_eq!(service.chunks(), before);
    write(&volumes, id, "/note", b"small").unwrap();
    written_back(&volumes);
    let after: HashSet<_> = service.chunks().into_iter().collect();
    let kept = before.iter().filter(|path| after.contains(*path)).count();
    assert!(
        kept > 0 && kept < before.len(),
        "{kept} of {}",
        before.len()
    );
    // What is gone from the volume goes from the bucket when its blocks are used again.
    write(&volumes, id, "/noise", &noise(2)).unwrap();
    write(&volumes, id, "/more", &noise(3)).unwrap();
    written_back(&volumes);
    assert!(before.iter().any(|path| !path.exists()));
}

#[test]
fn an_image_that_nobody_uses_is_let_go_and_fetched_again() {
    let (service, pool) = (Service::start(), Pool::new());
    let dir = pool.server("one");
    let volumes = open(&dir, service.bucket(service.config()), Duration::ZERO);
    let id = VolumeId::random();
    volumes.create(id).unwrap();
    write(&volumes, id, "/note", b"kept").unwrap();
    let image = dir.join(format!("{id}.img"));
    for _ in 0..10 {
        written_back(&volumes);
        if !image.exists() {
            break;
        }
        // The kernel lets go of the device in its own time.
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!image.exists());
    assert_eq!(read(&volumes, id, "/note").unwrap(), b"kept");
    // While something holds it, it stays.
    let held = volumes.mount(id).unwrap();
    for _ in 0..3 {
        written_back(&volumes);
        assert!(image.exists());
    }
    drop(held);
}

#[test]
fn work_goes_on_while_the_bucket_is_away() {
    let (service, pool) = (Service::start(), Pool::new());
    let bucket = service.bucket(service.config());
    let volumes = open(&pool.server("one"), bucket.clone(), LONG);
    let (id, other) = (VolumeId::random(), VolumeId::random());
    volumes.create(id).unwrap();
    service.is_down.store(true, Ordering::Relaxed);
    // A service that does not answer takes long to be given up; one that is not there does not.
    drop(bucket);
    let closed = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let nowhere = service.bucket(crate::support::config(closed));
    let error = nowhere.check().unwrap_err();
    assert!(
        Chain(&error)
            .to_string()
            .contains("disks at http://127.0.0.1"),
        "{error}"
    );
    drop(volumes);
    let volumes = open(&pool.server("one"), nowhere, LONG);
    write(&volumes, id, "/note", b"here").unwrap();
    assert_eq!(read(&volumes, id, "/note").unwrap(), b"here");
    assert_eq!(volumes.write_back().len(), 1);
    assert!(matches!(volumes.create(other), Err(VolumeError::Bucket(_))));
    drop(volumes);
    service.is_down.store(false, Ordering::Relaxed);
    let volumes = open(&pool.server("one"), service.bucket(service.config()), LONG);
    volumes.sweep(&HashSet::from([id])).unwrap();
    written_back(&volumes);
    let there = service.bucket(BucketConfig {
        take_over: true,
        ..service.config()
    });
    let there = open(&pool.server("two"), there, LONG);
    assert_eq!(read(&there, id, "/note").unwrap(), b"here");
}

#[test]
fn a_chunk_that_is_not_what_its_name_says_is_refused() {
    let (service, pool) = (Service::start(), Pool::new());
    let config = BucketConfig {
        take_over: true,
        ..service.config()
    };
    let volumes = open(&pool.server("one"), service.bucket(config.clone()), LONG);
    let id = VolumeId::random();
    volumes.create(id).unwrap();
    for chunk in service.chunks() {
        fs::write(chunk, b"forged").unwrap();
    }
    let there = open(&pool.server("two"), service.bucket(config), LONG);
    let refused = there.content(id).unwrap_err();
    assert!(
        matches!(&refused, VolumeError::Bucket(BucketError::Damaged(_))),
        "{refused}"
    );
}

#[test]
fn a_bucket_that_wont_do_is_told_with_the_reason() {
    let service = Service::start();
    let told = |config: BucketConfig| {
        let error = service.bucket(config).check().unwrap_err();
        Chain(&error).to_string()
    };
    let text = told(BucketConfig {
        bucket: "nowhere".to_owned(),
        ..service.config()
    });
    assert!(
        text.contains("nowhere") && text.contains("NoSuchBucket"),
        "{text}"
    );
    let text = told(BucketConfig {
        credentials: Some(("AKEXAMPLE".to_owned(), Secret::new("wrong".to_owned()))),
        ..service.config()
    });
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    let careless = Service::careless();
    let error = careless.bucket(careless.config()).check().unwrap_err();
    assert!(matches!(error, BucketError::Unconditional(_)), "{error}");
}
