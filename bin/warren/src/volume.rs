//! Opens the volumes as the flags say.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::runtime::Handle;
use warren_runtime::Runtime;
use warren_runtime::ns::NsRuntime;
use warren_service::{Chain, Secret, Tasks};
use warren_volume::{Bucket, BucketConfig, Volumes};

use crate::cli::volume::{Backend, Volume};
use crate::data::DataDir;

/// Directory of volumes, of either backend.
const VOLUMES: &str = "volumes";

/// Opens the volumes. A bucket that won't do is an error.
pub(crate) async fn open(
    args: &Volume,
    data: &DataDir,
    runtime: &NsRuntime,
) -> anyhow::Result<Volumes> {
    let opened = match args.volume_backend {
        Backend::Directory => Volumes::open(data.path().join(VOLUMES), args.volume_size_mib),
        Backend::S3 => {
            let bucket = Bucket::new(config(args)?, Handle::current())?;
            // Beside the captures, where files can share blocks.
            let captures = runtime.captures_dir();
            let disks = captures.parent().context("the directory of disks")?;
            let dir = disks.join(VOLUMES);
            check(&bucket, dir.exists()).await?;
            let keep = Duration::from_secs(args.volume_keep_secs);
            Volumes::open_in_bucket(dir, args.volume_size_mib, bucket, keep)
        }
    };
    opened.context("open the directory of volumes")
}

/// Asks the bucket. What can't be right is an error; one that is away is none for a server
/// that has used it before: its sandboxes need their server, and volumes in use are here.
async fn check(bucket: &Bucket, is_known: bool) -> anyhow::Result<()> {
    let asked = bucket.clone();
    let checked = Tasks::new().spawn_blocking(move || asked.check()).await?;
    match checked {
        Err(error) if is_known && error.is_outage() => {
            tracing::error!(error = %Chain(&error),
                "volumes that are not on this server are not to be had");
            Ok(())
        }
        other => other.context(
            "use the bucket for volumes\nhint: see --volume-s3-bucket and the flags after it",
        ),
    }
}

fn config(args: &Volume) -> anyhow::Result<BucketConfig> {
    let bucket = args.volume_s3_bucket.clone();
    let file = args.volume_s3_credentials_file.as_deref();
    Ok(BucketConfig {
        bucket: bucket.context("--volume-backend s3 needs --volume-s3-bucket")?,
        prefix: args.volume_s3_prefix.clone(),
        endpoint: args.volume_s3_endpoint.clone(),
        region: args.volume_s3_region.clone(),
        credentials: file.map(credentials).transpose()?,
        take_over: args.volume_take_over,
    })
}

fn credentials(file: &Path) -> anyhow::Result<(String, Secret)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    parse(&text).with_context(|| format!("read credentials in {}", file.display()))
}

/// Reads the format of the AWS tools, of which only one profile is taken.
fn parse(text: &str) -> anyhow::Result<(String, Secret)> {
    let (mut id, mut key) = (None, None);
    for line in text.lines() {
        let Some((name, value)) = line.split_once('=') else {
            continue;
        };
        let place = match name.trim() {
            "aws_access_key_id" => &mut id,
            "aws_secret_access_key" => &mut key,
            _ => continue,
        };
        if place.replace(value.trim().to_owned()).is_some() {
            bail!("it has more than one profile");
        }
    }
    let id = id.context("it has no aws_access_key_id")?;
    let key = key.context("it has no aws_secret_access_key")?;
    Ok((id, Secret::new(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_the_aws_tools_write_them() {
        let (id, key) =
            parse("[default]\naws_access_key_id = A\n# note\naws_secret_access_key=b/c=\n")
                .unwrap();
        assert_eq!((id.as_str(), key.expose()), ("A", "b/c="));
        for bad in [
            "",
            "aws_access_key_id = A",
            "aws_access_key_id=A\naws_secret_access_key=b\naws_access_key_id=C",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
