//! Volumes in a bucket, against a real S3 service on loopback. These need root, as volumes do.

mod bucket;
mod crash;
mod support;
