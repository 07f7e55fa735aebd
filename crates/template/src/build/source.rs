//! The base phase: what a build starts from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use oci_client::secrets::RegistryAuth;
use warren_cluster::BuildImage;
use warren_service::{Chain, fault};
use warren_types::LogLevel;

use super::cache::State;
use super::engine::{Build, Wanted};
use super::phase::Phase;
use super::plan::{self, Context};
use super::port::{BuildFailure, RegistryCredentials, Source};
use super::roots::{self, Root};
use crate::agent::Program;
use crate::base::{self, Progress};
use crate::oci::{self, EcrError, LocalImage, PullError, Pulled};

const PROVISION_SCRIPT: &str = include_str!("scripts/provision.sh");
const PROVISION_LIMIT: Duration = Duration::from_secs(600);
const SUPPORTED: &str =
    "Supported are Debian, Ubuntu, Fedora, CentOS, Rocky Linux, AlmaLinux, Arch Linux and Alpine.";
/// Told when what a template is made of is gone.
const NO_BASE: &str = "error getting base template, you may need to rebuild it first";
/// The name that references without a registry have.
const DOCKER_HUB: &str = "docker.io";
/// What `from_base_image` asks for: always at hand.
const BASE_IMAGE: &str = "e2bdev/base";
/// Begins the names of images that were uploaded or that the operator has put on the disk.
const LOCAL: &str = "oci:";
/// Digits of the hash of an upload.
const HASH: usize = 64;

impl Build<'_> {
    /// The state that the first phase of a user starts from.
    pub(super) async fn base(&self, phase: &Phase) -> Result<State, BuildFailure> {
        match &self.request.source {
            Source::Template { name, image } => self.template(phase, name, image).await,
            Source::Image {
                reference,
                credentials,
            } => self.image(phase, reference, credentials.as_ref()).await,
        }
    }

    async fn template(
        &self,
        phase: &Phase,
        name: &str,
        image: &BuildImage,
    ) -> Result<State, BuildFailure> {
        let key = plan::key("", &["template", &image.build_id.to_string()]);
        let context = Context {
            user: image.default_user.clone(),
            workdir: image.default_workdir.clone(),
            env: image.env.clone(),
        };
        let state = State::new(key, image.layers.clone(), context);
        if !self.engine.has_layers(&state) {
            return Err(phase.failure(NO_BASE));
        }
        if image.capture.is_some() {
            return self.snapshot(phase, name, image, state).await;
        }
        phase.info(&format!(
            "CACHED [base] FROM TEMPLATE {name} [{}]",
            plan::short(&state.key)
        ));
        Ok(state)
    }

    /// A snapshot as layers: those of the template below it, and what its sandbox had
    /// written. The latter becomes a layer with the first build that needs it.
    async fn snapshot(
        &self,
        phase: &Phase,
        name: &str,
        image: &BuildImage,
        below: State,
    ) -> Result<State, BuildFailure> {
        let wanted = Wanted {
            key: below.key,
            // What was captured never changes.
            force: false,
            line: format!("FROM TEMPLATE {name}"),
            phase,
            tells_cached: true,
        };
        self.obtain(wanted, async || {
            let image = BuildImage {
                resources: self.request.resources,
                ..image.clone()
            };
            let opened = self.engine.host.open_build(&image).await;
            let sandbox = opened.map_err(|error| {
                tracing::warn!(build_id = %self.request.build_id, error = %Chain(&error),
                    "a snapshot can't be built on");
                phase.failure(NO_BASE)
            })?;
            fault::point("build.snapshot-opened");
            let mut layers = below.layers.clone();
            layers.extend(self.commit(sandbox).await?);
            Ok((layers, below.context.clone()))
        })
        .await
    }

    async fn image(
        &self,
        phase: &Phase,
        reference: &str,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<State, BuildFailure> {
        if let Some(name) = reference.strip_prefix(LOCAL) {
            return self.local(phase, reference, name).await;
        }
        let config = &self.engine.config;
        // Where the operator has named a mirror of Docker Hub, images come from there.
        let known = match config.registries.mirrors.contains_key(DOCKER_HUB) {
            true if reference != BASE_IMAGE => None,
            _ => roots::known(reference, &config.mirror),
        };
        let root = known.transpose().map_err(|text| phase.failure(text))?;
        let key = match &root {
            Some(root) => plan::key("", &["image", reference, &root.recipe.digest()]),
            None => plan::key("", &["image", reference, PROVISION_SCRIPT]),
        };
        let wanted = Wanted {
            key,
            force: self.request.force,
            line: format!("FROM IMAGE {reference}"),
            phase,
            tells_cached: true,
        };
        self.obtain(wanted, async || match root {
            Some(root) => {
                let layer = self.packages(phase, reference, root).await?;
                Ok((vec![layer], Context::of_image(BTreeMap::new())))
            }
            None => {
                let pulled = self.pull(phase, reference, credentials).await?;
                self.provisioned(phase, pulled).await
            }
        })
        .await
    }

    /// An image on the server's disk.
    async fn local(
        &self,
        phase: &Phase,
        reference: &str,
        name: &str,
    ) -> Result<State, BuildFailure> {
        let (path, tag) = self.local_path(phase, reference, name)?;
        let opening = {
            let reference = reference.to_owned();
            self.engine
                .tasks
                .spawn_blocking(move || LocalImage::open(&path, tag.as_deref(), &reference))
        };
        let opened = opening
            .await
            .map_err(|error| self.internal("open an image", &error))?;
        let image = opened.map_err(|error| self.no_image(phase, error))?;
        let wanted = Wanted {
            // What it is counts, not what it is called.
            key: plan::key("", &["oci", image.digest(), PROVISION_SCRIPT]),
            force: self.request.force,
            line: format!("FROM IMAGE {reference}"),
            phase,
            tells_cached: true,
        };
        self.obtain(wanted, async || {
            let stores = (
                &self.engine.config.layers,
                self.request.scope.as_str(),
                &self.engine.tasks,
            );
            let tell = |line: String| phase.info(&line);
            let pulled = image.unpack(stores, &tell).await;
            let pulled = pulled.map_err(|error| self.no_image(phase, error))?;
            self.provisioned(phase, pulled).await
        })
        .await
    }

    /// Where a local image is. Clients name uploads of their team by hash, and the
    /// operator's images by plain names: no path of theirs is ever followed.
    fn local_path(
        &self,
        phase: &Phase,
        reference: &str,
        name: &str,
    ) -> Result<(PathBuf, Option<String>), BuildFailure> {
        let (name, tag) = match name.split_once(':') {
            Some((name, tag)) => (name, Some(tag.to_owned())),
            None => (name, None),
        };
        let is_hash = name.len() == HASH && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            let found = self.request.files.get(name).cloned();
            let text = format!("image '{reference}' not found: nothing was uploaded as that");
            return found
                .map(|path| (path, tag))
                .ok_or_else(|| phase.failure(text));
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
            return Err(phase.failure(format!(
                "invalid image reference '{reference}': names of local images have letters, \
                 digits, '.', '_' and '-'"
            )));
        }
        let Some(dir) = &self.engine.config.images else {
            return Err(phase.failure(format!(
                "image '{reference}' not found: the server has no directory of images \
                 (--images-dir)"
            )));
        };
        let places = [dir.join(name), dir.join(format!("{name}.tar"))];
        let found = places.into_iter().find(|path| path.exists());
        let text = format!("image '{reference}' not found: it is not among the server's images");
        found
            .map(|path| (path, tag))
            .ok_or_else(|| phase.failure(text))
    }

    /// The failure to get an image, as the user is told it.
    fn no_image(&self, phase: &Phase, error: PullError) -> BuildFailure {
        match error {
            PullError::Store(_) | PullError::Thread(_) => self.internal("get an image", &error),
            PullError::Registry { .. } => {
                tracing::warn!(build_id = %self.request.build_id, error = %Chain(&error),
                    "an image can't be pulled");
                phase.failure(error.to_string())
            }
            told => phase.failure(told.to_string()),
        }
    }

    /// The layers of an image of a registry.
    async fn pull(
        &self,
        phase: &Phase,
        reference: &str,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<Pulled, BuildFailure> {
        let auth = self.sign_in(phase, reference, credentials).await?;
        let config = &self.engine.config;
        let stores = (
            &config.layers,
            self.request.scope.as_str(),
            &self.engine.tasks,
        );
        let tell = |line: String| phase.info(&line);
        let pulled = oci::pull(&config.registries, stores, reference, &auth, &tell).await;
        pulled.map_err(|error| self.no_image(phase, error))
    }

    /// The layers of an image with what a sandbox expects of it.
    async fn provisioned(
        &self,
        phase: &Phase,
        pulled: Pulled,
    ) -> Result<(Vec<String>, Context), BuildFailure> {
        let mut layers = self.few(pulled.layers).await?;
        phase.info("Provisioning sandbox template");
        let sandbox = self.open(&layers).await?;
        let script = Program {
            shell: "/bin/sh",
            args: ["-c", PROVISION_SCRIPT].map(str::to_owned).to_vec(),
            env: BTreeMap::from([("SUPPORTED".to_owned(), SUPPORTED.to_owned())]),
            ..Program::script("", &[], PROVISION_LIMIT)
        };
        let ran = self
            .program(phase, sandbox.as_ref(), script, LogLevel::Debug)
            .await;
        let (outcome, tail) = match ran {
            Ok((outcome, tail)) => (outcome, tail),
            Err(error) => {
                let reason = Chain(&error);
                return Err(
                    phase.failure(format!("error waiting for provisioning sandbox: {reason}"))
                );
            }
        };
        if !outcome.succeeded() {
            let code = outcome.code;
            return Err(phase.failure(format!(
                "error waiting for provisioning sandbox: exit status: {code}; \
                 provisioning output tail:\n{tail}"
            )));
        }
        layers.extend(self.commit(sandbox).await?);
        phase.info("Sandbox template provisioned");
        Ok((layers, Context::of_image(pulled.env)))
    }

    async fn sign_in(
        &self,
        phase: &Phase,
        reference: &str,
        credentials: Option<&RegistryCredentials>,
    ) -> Result<RegistryAuth, BuildFailure> {
        match credentials {
            None => Ok(RegistryAuth::Anonymous),
            Some(RegistryCredentials::Basic { username, password }) => {
                // What the registry is told is the secret itself.
                let password = password.expose().to_owned();
                Ok(RegistryAuth::Basic(username.clone(), password))
            }
            Some(RegistryCredentials::Gcp {
                service_account_json,
            }) => {
                let json = service_account_json.expose().to_owned();
                Ok(RegistryAuth::Basic("_json_key".to_owned(), json))
            }
            Some(RegistryCredentials::Aws {
                access_key_id,
                secret_access_key,
                region,
            }) => {
                let endpoint = self.engine.config.registries.ecr_endpoint.as_deref();
                let keys = oci::Keys {
                    id: access_key_id,
                    secret: secret_access_key,
                    region,
                };
                let signed_in = oci::ecr_sign_in(endpoint, keys).await;
                let (user, password) = signed_in.map_err(|error| {
                    tracing::warn!(build_id = %self.request.build_id, error = %Chain(&error),
                        "AWS gives no token for its registry");
                    phase.failure(match error {
                        EcrError::Refused(_) => {
                            PullError::Unauthorized(reference.to_owned()).to_string()
                        }
                        error => format!("failed to pull image '{reference}': {error}"),
                    })
                })?;
                Ok(RegistryAuth::Basic(user, password))
            }
        }
    }

    /// The layer of a root that packages make.
    async fn packages(
        &self,
        phase: &Phase,
        reference: &str,
        root: Root,
    ) -> Result<String, BuildFailure> {
        if let Some(warning) = &root.warning {
            phase.say(LogLevel::Warn, warning);
        }
        let (store, log) = (self.engine.config.shared.clone(), phase.clone());
        let made = self.engine.tasks.spawn_blocking(move || {
            base::ensure(&store, &root.recipe, |progress| match progress {
                Progress::Started => log.info("Creating file system from Debian packages"),
                Progress::Line(line) => log.say(LogLevel::Debug, &line),
                Progress::Finished => log.info("Layers extracted"),
            })
        });
        let made = made
            .await
            .map_err(|error| self.internal("make a root of packages", &error))?;
        made.map_err(|error| {
            phase.failure(format!(
                "failed to pull image '{reference}': {}",
                Chain(&error)
            ))
        })
    }
}
