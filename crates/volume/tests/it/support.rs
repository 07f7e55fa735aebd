//! An S3 service, a file system that can share blocks, and servers' directories on it.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use warren_service::{Chain, Secret, Tasks};
use warren_types::VolumeId;
use warren_volume::{Bucket, BucketConfig, NewNode, VolumeError, VolumePath, Volumes};

pub(crate) const BUCKET: &str = "disks";
const KEY: (&str, &str) = ("AKEXAMPLE", "secret");
pub(crate) const SIZE_MIB: u32 = 32;
/// Images that nobody uses stay for longer than a test.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// An S3 service with one bucket.
pub(crate) struct Service {
    runtime: Runtime,
    tasks: Tasks,
    pub(crate) root: TempDir,
    pub(crate) address: SocketAddr,
    /// Answers nothing.
    pub(crate) is_down: Arc<AtomicBool>,
}

impl Service {
    pub(crate) fn start() -> Self {
        Self::with(false)
    }

    /// One that overlooks that nothing was to be there.
    pub(crate) fn careless() -> Self {
        Self::with(true)
    }

    fn with(is_careless: bool) -> Self {
        let root = TempDir::new().unwrap();
        fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY.0, KEY.1));
        let service = builder.build();
        let runtime = Runtime::new().unwrap();
        let tasks = Tasks::new();
        let is_down = Arc::new(AtomicBool::new(false));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, down) = (tasks.clone(), Arc::clone(&is_down));
        let place = root.path().to_owned();
        let _context = runtime.enter();
        tasks.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, down) = (service.clone(), Arc::clone(&down));
                let place = place.clone();
                let answer = service_fn(move |request: Request<Incoming>| {
                    if is_careless && request.headers().contains_key("if-none-match") {
                        let object = format!(".{}", request.uri().path());
                        // It need not be there.
                        let _gone = fs::remove_file(place.join(object));
                    }
                    let answer = HttpService::call(&service, request);
                    let is_down = down.load(Ordering::Relaxed);
                    async move {
                        if is_down {
                            std::future::pending::<()>().await;
                        }
                        answer.await
                    }
                });
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    // A client that goes away is no failure.
                    let _end = builder.serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        drop(_context);
        Self {
            runtime,
            tasks,
            root,
            address,
            is_down,
        }
    }

    pub(crate) fn config(&self) -> BucketConfig {
        config(self.address)
    }

    pub(crate) fn bucket(&self, config: BucketConfig) -> Bucket {
        Bucket::new(config, self.runtime.handle().clone()).unwrap()
    }

    /// Files below the bucket.
    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.root.path().join(BUCKET)];
        while let Some(dir) = open.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    open.push(path);
                } else {
                    found.push(path);
                }
            }
        }
        found.sort();
        found
    }

    /// Chunks of volumes.
    pub(crate) fn chunks(&self) -> Vec<PathBuf> {
        let mut objects = self.objects();
        objects.retain(|path| path.parent().unwrap().ends_with("chunks"));
        objects
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.tasks.stop_token().cancel();
    }
}

pub(crate) fn config(address: SocketAddr) -> BucketConfig {
    BucketConfig {
        bucket: BUCKET.to_owned(),
        prefix: "some/where".to_owned(),
        endpoint: Some(format!("http://{address}")),
        region: Some("us-east-1".to_owned()),
        credentials: Some((KEY.0.to_owned(), Secret::new(KEY.1.to_owned()))),
        take_over: false,
    }
}

/// A file system whose files can share blocks.
pub(crate) struct Pool(TempDir);

impl Pool {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let image = dir.path().join("image");
        fs::File::create(&image)
            .unwrap()
            .set_len(512 << 20)
            .unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).status().unwrap();
            assert!(status.success(), "{program}");
        };
        let image = image.to_str().unwrap();
        run("mkfs.xfs", &["-q", "-m", "reflink=1", image]);
        let pool = Self(dir);
        fs::create_dir(pool.path()).unwrap();
        run(
            "mount",
            &["-o", "loop", image, pool.path().to_str().unwrap()],
        );
        pool
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("mounted")
    }

    /// The directory of a server of this name.
    pub(crate) fn server(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.path()).status().unwrap();
        assert!(status.success());
    }
}

pub(crate) fn open(dir: &Path, bucket: Bucket, keep: Duration) -> Volumes {
    Volumes::open_in_bucket(dir.to_owned(), SIZE_MIB, bucket, keep).unwrap()
}

/// Writes a file as clients do; it is acknowledged on return.
pub(crate) fn write(
    volumes: &Volumes,
    id: VolumeId,
    at: &str,
    text: &[u8],
) -> Result<(), VolumeError> {
    let new = NewNode {
        force: true,
        ..NewNode::default()
    };
    let draft = volumes.content(id)?.write(&path(at), new)?;
    draft.file()?.write_all(text).unwrap();
    draft.publish().map(drop)
}

pub(crate) fn read(volumes: &Volumes, id: VolumeId, at: &str) -> Result<Vec<u8>, VolumeError> {
    let (mut file, _) = volumes.content(id)?.read(&path(at))?;
    let mut text = Vec::new();
    file.read_to_end(&mut text).unwrap();
    Ok(text)
}

/// Writes everything back, which must succeed.
pub(crate) fn written_back(volumes: &Volumes) {
    let failed = volumes.write_back();
    let told: Vec<_> = failed.iter().map(|one| Chain(one).to_string()).collect();
    assert_eq!(told, Vec::<String>::new());
}

fn path(text: &str) -> VolumePath {
    VolumePath::parse(text).unwrap()
}
