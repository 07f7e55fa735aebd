//! Captures of sandboxes: of paused ones, and of builds made from sandboxes. They are in the
//! runtime's directory, where they share blocks with disks. Those of paused sandboxes that
//! no record names are swept at start.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use warren_cluster::BuildImage;
use warren_runtime::{Runtime, RuntimeError};
use warren_service::{Chain, Secret, file};
use warren_types::{BuildId, CaptureKind};

/// Extension of the file beside a build's capture.
const META: &str = "json";
/// The same of its ready state.
const READY_META: &str = "ready";

/// What is known of a build's capture. The file is readable by root only: it holds the key
/// that the captured agent knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// Image of the sandbox that was captured.
    pub(crate) image: BuildImage,
    /// Variables of its processes beyond those of the image.
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) init_key: Secret,
    pub(crate) memory: bool,
}

impl Meta {
    /// What sandboxes of `build` are made from.
    pub(crate) fn image_of(&self, build: BuildId) -> BuildImage {
        BuildImage {
            build_id: build,
            capture: Some(if self.memory {
                CaptureKind::Memory
            } else {
                CaptureKind::Filesystem
            }),
            ..self.image.clone()
        }
    }
}

/// What is known of a build's ready state. Readable by root only, as above.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadyMeta {
    pub(crate) init_key: Secret,
    /// The programs of the server that run in it: those of another version won't do.
    pub(crate) programs: Vec<PathBuf>,
    /// Made with the build, and kept as long as that.
    pub(crate) is_kept: bool,
}

const PAUSED: &str = "paused-";
const BUILD: &str = "build-";
const READY: &str = "ready-";

/// Where captures are, and what is known of those of builds.
#[derive(Debug, Clone)]
pub(crate) struct Captures {
    dir: PathBuf,
    metas: PathBuf,
}

impl Captures {
    /// Takes the runtime's directory of captures, and makes the node's own of what is known
    /// of them.
    pub(crate) fn open(dir: PathBuf, data_dir: &Path) -> io::Result<Self> {
        let metas = data_dir.join("snapshots");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&metas)?;
        Ok(Self { dir, metas })
    }

    /// Where a paused sandbox's capture of this name is.
    pub(crate) fn paused(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{PAUSED}{name}"))
    }

    /// Where the capture of a build is.
    pub(crate) fn build(&self, build: BuildId) -> PathBuf {
        self.dir.join(format!("{BUILD}{build}"))
    }

    /// Where the ready state of a build's sandboxes is.
    pub(crate) fn ready(&self, build: BuildId) -> PathBuf {
        self.dir.join(format!("{READY}{build}"))
    }

    fn meta(&self, build: BuildId) -> PathBuf {
        self.metas.join(format!("{build}.{META}"))
    }

    fn ready_meta(&self, build: BuildId) -> PathBuf {
        self.metas.join(format!("{build}.{READY_META}"))
    }

    /// Completes a build's capture.
    pub(crate) fn write_meta(&self, build: BuildId, meta: &Meta) -> io::Result<()> {
        self.write(&self.meta(build), meta)
    }

    /// Completes a build's ready state.
    pub(crate) fn write_ready(&self, build: BuildId, meta: &ReadyMeta) -> io::Result<()> {
        self.write(&self.ready_meta(build), meta)
    }

    /// The ready states that are complete.
    pub(crate) fn ready_states(&self) -> io::Result<Vec<(BuildId, ReadyMeta)>> {
        let mut found = Vec::new();
        for name in names(&self.metas)? {
            let Some((id, READY_META)) = name.split_once('.') else {
                continue;
            };
            let Ok(build) = id.parse::<BuildId>() else {
                continue;
            };
            let meta = fs::read(self.metas.join(&name))?;
            // One that another version wrote is swept.
            if let Ok(meta) = serde_json::from_slice(&meta)
                && self.ready(build).exists()
            {
                found.push((build, meta));
            }
        }
        Ok(found)
    }

    /// Makes a build's ready state incomplete, before its files are removed.
    pub(crate) fn forget_ready_meta(&self, build: BuildId) -> io::Result<()> {
        absent(fs::remove_file(self.ready_meta(build)))
    }

    fn write(&self, to: &Path, meta: &impl Serialize) -> io::Result<()> {
        file::replace(to, &serde_json::to_vec(meta)?, 0o600)
    }

    /// What is known of a build's capture.
    pub(crate) fn read_meta(&self, build: BuildId) -> io::Result<Meta> {
        Ok(serde_json::from_slice(&fs::read(self.meta(build))?)?)
    }

    /// Deletes a paused sandbox's capture. A failure is left to the next start.
    pub(crate) async fn forget_paused<R: Runtime>(&self, runtime: &R, name: &str) {
        self.forget_one(runtime, &format!("{PAUSED}{name}")).await;
    }

    /// Deletes a build's capture.
    pub(crate) async fn forget_build<R: Runtime>(
        &self,
        runtime: &R,
        build: BuildId,
    ) -> Result<(), RuntimeError> {
        let removed = absent(fs::remove_file(self.meta(build)));
        removed.map_err(|source| RuntimeError::Step {
            step: "delete a capture's description".to_owned(),
            source,
        })?;
        runtime.forget_capture(&self.build(build)).await
    }

    /// The builds that have a capture, complete or not.
    pub(crate) fn builds(&self) -> io::Result<Vec<BuildId>> {
        let mut builds = HashSet::new();
        for name in names(&self.metas)? {
            builds.extend(
                name.split('.')
                    .next()
                    .and_then(|stem| stem.parse::<BuildId>().ok()),
            );
        }
        for name in names(&self.dir)? {
            let id = name
                .strip_prefix(BUILD)
                .or_else(|| name.strip_prefix(READY));
            builds.extend(id.and_then(|id| id.parse::<BuildId>().ok()));
        }
        Ok(builds.into_iter().collect())
    }

    /// Deletes the captures of paused sandboxes that no record names, and ready states other
    /// than these.
    pub(crate) async fn sweep<R: Runtime>(
        &self,
        runtime: &R,
        named: &HashSet<String>,
        ready: &HashSet<BuildId>,
    ) -> io::Result<usize> {
        let mut swept = 0;
        for name in names(&self.dir)? {
            let is_stray = match (name.strip_prefix(PAUSED), name.strip_prefix(READY)) {
                (Some(paused), _) => !named.contains(paused),
                (None, Some(id)) => !id.parse().is_ok_and(|build| ready.contains(&build)),
                (None, None) => false,
            };
            if is_stray {
                self.forget_one(runtime, &name).await;
                swept += 1;
            }
        }
        for name in names(&self.metas)? {
            let id = name
                .strip_suffix(READY_META)
                .and_then(|id| id.strip_suffix('.'));
            if let Some(build) = id.and_then(|id| id.parse().ok())
                && !ready.contains(&build)
            {
                self.forget_ready_meta(build)?;
            }
        }
        Ok(swept)
    }

    async fn forget_one<R: Runtime>(&self, runtime: &R, name: &str) {
        if let Err(error) = runtime.forget_capture(&self.dir.join(name)).await {
            tracing::error!(name, error = %Chain(&error), "could not delete a capture");
        }
    }
}

fn absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Names in a directory, which need not be there.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for file in files {
        names.extend(file?.file_name().into_string().ok());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use warren_types::{Resources, TemplateId};

    use super::*;

    #[test]
    fn a_builds_capture_is_listed_even_if_it_is_incomplete() {
        let dir = tempfile::tempdir().unwrap();
        let captures = Captures::open(dir.path().join("c"), dir.path()).unwrap();
        let (whole, torn) = (BuildId::random(), BuildId::random());
        let meta = Meta {
            image: BuildImage {
                template_id: TemplateId::random(),
                build_id: BuildId::random(),
                layers: vec!["a".to_owned()],
                resources: Resources::default(),
                default_user: "user".to_owned(),
                default_workdir: None,
                env: BTreeMap::new(),
                start: None,
                capture: None,
            },
            env: BTreeMap::new(),
            init_key: Secret::new("k".to_owned()),
            memory: true,
        };
        captures.write_meta(whole, &meta).unwrap();
        fs::create_dir_all(captures.build(torn)).unwrap();
        let mut listed = captures.builds().unwrap();
        listed.sort();
        let mut expected = vec![whole, torn];
        expected.sort();
        assert_eq!(listed, expected);
        let image = captures.read_meta(whole).unwrap().image_of(whole);
        assert_eq!(image.capture, Some(CaptureKind::Memory));
        assert_eq!(image.build_id, whole);
        assert!(captures.read_meta(torn).is_err());
    }
}
