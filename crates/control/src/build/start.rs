//! Starting a build.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use warren_service::fault;
use warren_store::{BuildOutcome, BuildReason, BuildRecord};
use warren_template::build::{BuildRequest, RegistryCredentials, Source, Step};
use warren_types::{BuildId, TeamId};

use super::error::BuildStartError;
use super::run::CANCELLED;
use super::{Builds, Running};
use crate::{Caller, Control, Team, TemplateError};

/// Phase of what a build starts from.
const BASE: &str = "base";
/// Begins the name of an image that was uploaded, before its hash.
const UPLOADED: &str = "oci:";

/// How to sign in to an image's registry, as the client said.
#[derive(Debug, Clone)]
pub enum Registry {
    /// A way that is known.
    Known(RegistryCredentials),
    /// Another.
    Unknown,
}

/// What to build.
#[derive(Debug, Clone, Default)]
pub struct BuildStart {
    /// Image to start from.
    pub from_image: Option<String>,
    /// Template to start from.
    pub from_template: Option<String>,
    /// How to sign in to the image's registry.
    pub registry: Option<Registry>,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Use no cached layer.
    pub force: bool,
    /// Command that sandboxes have running.
    pub start_cmd: Option<String>,
    /// Command that tells that a sandbox is ready.
    pub ready_cmd: Option<String>,
}

/// Why there is nothing to start from.
enum NoSource {
    /// The request makes no sense.
    Request(&'static str),
    /// The template does not resolve.
    Template(TemplateError),
}

impl Control {
    /// Starts a waiting build and gives up those that it replaces. When it returns the
    /// build is under way, or has failed because its template does not resolve. Must run to
    /// its end once begun.
    ///
    /// # Errors
    /// [`BuildStartError`].
    pub async fn build_start(
        self: &Arc<Self>,
        caller: &Caller,
        template: &str,
        build: &str,
        start: BuildStart,
    ) -> Result<(), BuildStartError> {
        let id: BuildId = build
            .parse()
            .map_err(|_| BuildStartError::Id(build.to_owned()))?;
        let _turn = self.build_turn.lock().await;
        let found = self.store.build_get(id).await?;
        let found = found.filter(|(record, _)| record.template_id.as_str() == template);
        let (record, team) = found.ok_or_else(|| BuildStartError::Unknown {
            template: template.to_owned(),
            build: id,
        })?;
        if team != caller.team.id {
            return Err(BuildStartError::Foreign);
        }
        if record.status != warren_store::BuildStatus::Waiting {
            return Err(BuildStartError::NotWaiting);
        }
        let builds = self.building.clone().ok_or(BuildStartError::NoBuilder)?;
        let source = match self.source(&caller.team, &start).await {
            Ok(source) => source,
            Err(NoSource::Request(why)) => {
                self.fail_unstarted(id, format!("error when building env: {why}"), None)
                    .await?;
                return Err(BuildStartError::Source(why));
            }
            Err(NoSource::Template(TemplateError::Store(error))) => return Err(error.into()),
            Err(NoSource::Template(error)) => {
                let message = match error {
                    TemplateError::Reference(error) => {
                        format!("invalid template reference: {error}")
                    }
                    error => error.to_string(),
                };
                self.note_failure(&builds, id, &message, Some(BASE)).await?;
                self.fail_unstarted(id, message, Some(BASE)).await?;
                return Ok(());
            }
        };
        let files = builds.archives_of(team, &start).await?;
        let request = build_request(&record, team, source, start, files);
        self.launch(&builds, request).await
    }

    async fn source(&self, team: &Team, start: &BuildStart) -> Result<Source, NoSource> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        match (filled(&start.from_image), filled(&start.from_template)) {
            (Some(reference), None) => {
                let credentials = match &start.registry {
                    Some(Registry::Unknown) => {
                        return Err(NoSource::Request("unknown registry type"));
                    }
                    Some(Registry::Known(credentials)) => Some(credentials.clone()),
                    None => None,
                };
                Ok(Source::Image {
                    reference,
                    credentials,
                })
            }
            (None, Some(name)) => {
                let image = self
                    .image_of(team, &name)
                    .await
                    .map_err(NoSource::Template)?;
                Ok(Source::Template {
                    name,
                    image: Box::new(image),
                })
            }
            (Some(_), Some(_)) => Err(NoSource::Request(
                "only one of fromImage and fromTemplate can be set",
            )),
            (None, None) => Err(NoSource::Request("fromImage or fromTemplate must be set")),
        }
    }

    /// Writes why a build ends before it ran into its log.
    async fn note_failure(
        &self,
        builds: &Arc<Builds>,
        id: BuildId,
        message: &str,
        step: Option<&str>,
    ) -> Result<(), BuildStartError> {
        let log = builds.create_log(&self.tasks, id).await;
        log.map_err(BuildStartError::Log)?
            .finish(super::run::failed_line(message, step));
        Ok(())
    }

    async fn fail_unstarted(
        &self,
        id: BuildId,
        message: String,
        step: Option<&str>,
    ) -> Result<(), BuildStartError> {
        let outcome = BuildOutcome::Failed(BuildReason {
            message,
            step: step.map(str::to_owned),
        });
        self.store
            .build_finish(id, &outcome, Timestamp::now())
            .await?;
        Ok(())
    }

    /// Makes the build a running one and hands it to the builder.
    async fn launch(
        self: &Arc<Self>,
        builds: &Arc<Builds>,
        request: BuildRequest,
    ) -> Result<(), BuildStartError> {
        let id = request.build_id;
        let log = builds.create_log(&self.tasks, id).await;
        let log = log.map_err(BuildStartError::Log)?;
        let rivals = self.store.build_rivals(id).await?;
        for rival in &rivals {
            builds.give_up(*rival, CANCELLED);
        }
        let now = Timestamp::now();
        let started = self.store.build_start(id, &rivals, CANCELLED, now).await?;
        if !started {
            return Err(BuildStartError::NotWaiting);
        }
        fault::point("build.started");
        let running = Running {
            cancel: self.tasks.stop_token().child_token(),
            log,
        };
        builds.running().insert(id, running.clone());
        let (control, builds) = (Arc::clone(self), Arc::clone(builds));
        self.tasks
            .spawn(async move { control.run_build(&builds, request, running).await });
        Ok(())
    }
}

impl Builds {
    /// The archives that the steps and the image name, as far as they are there.
    async fn archives_of(
        &self,
        team: TeamId,
        start: &BuildStart,
    ) -> Result<BTreeMap<String, PathBuf>, BuildStartError> {
        let mut files = BTreeMap::new();
        let image = start.from_image.as_deref();
        // An image may have been uploaded: its tag follows the hash.
        let image = image.and_then(|name| name.strip_prefix(UPLOADED)?.split(':').next());
        let steps = start.steps.iter();
        let copied = steps.filter_map(|step| step.files_hash.as_deref());
        for hash in image.into_iter().chain(copied) {
            if files.contains_key(hash) {
                continue;
            }
            let found = self.archives.find(team, hash).await;
            if let Some(path) = found.map_err(BuildStartError::Archives)? {
                files.insert(hash.to_owned(), path);
            }
        }
        Ok(files)
    }
}

fn build_request(
    record: &BuildRecord,
    team: TeamId,
    source: Source,
    start: BuildStart,
    files: BTreeMap<String, PathBuf>,
) -> BuildRequest {
    BuildRequest {
        scope: team.to_string(),
        template_id: record.template_id.clone(),
        build_id: record.id,
        source,
        steps: start.steps,
        force: start.force,
        start_cmd: start.start_cmd.filter(|command| !command.is_empty()),
        ready_cmd: start.ready_cmd.filter(|command| !command.is_empty()),
        resources: record.content.resources,
        min_free_disk_mib: record.min_free_disk_mib,
        files,
    }
}
