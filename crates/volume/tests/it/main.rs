//! Volumes in a bucket, against a real S3 service on loopback. These need root, as volumes do.
#![expect(clippy::unwrap_used, reason = "tests panic on purpose")]

mod bucket;
mod crash;
mod support;
