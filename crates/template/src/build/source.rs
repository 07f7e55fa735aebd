//! The base phase: what a build starts from.

use std::collections::BTreeMap;

use warren_cluster::BuildImage;
use warren_types::LogLevel;

use super::cache::State;
use super::engine::{Build, Wanted};
use super::phase::Phase;
use super::plan::{self, Context};
use super::port::{BuildFailure, RegistryCredentials, Source};
use super::roots::{self, Root};
use crate::base::{self, Progress};

/// Scope of what is known of finished builds, whoever's.
const FINISHED: &str = "finished builds";

fn finished_key(image: &BuildImage) -> String {
    plan::key("", &["template", &image.build_id.to_string()])
}

impl Build<'_> {
    /// The state that the first phase of a user starts from.
    pub(super) async fn base(&self, phase: &Phase) -> Result<State, BuildFailure> {
        match &self.request.source {
            Source::Template { name, image } => self.template(phase, name, image),
            Source::Image {
                reference,
                credentials,
            } => self.image(phase, reference, credentials.as_ref()).await,
        }
    }

    fn template(
        &self,
        phase: &Phase,
        name: &str,
        image: &BuildImage,
    ) -> Result<State, BuildFailure> {
        let key = finished_key(image);
        let context = match self.engine.cache.get(FINISHED, &key) {
            Some(state) => state.context,
            None => Context {
                user: image.default_user.clone(),
                workdir: image.default_workdir.clone(),
                env: image.env.clone(),
            },
        };
        let state = State::new(key, image.layers.clone(), context);
        if !self.engine.has_layers(&state) {
            let text = "error getting base template, you may need to rebuild it first";
            return Err(phase.failure(text));
        }
        phase.info(&format!(
            "CACHED [base] FROM TEMPLATE {name} [{}]",
            plan::short(&state.key)
        ));
        Ok(state)
    }

    /// Keeps the whole context of a finished build, for those that start from it.
    pub(super) fn remember(&self, state: &State) -> Result<(), BuildFailure> {
        let build = self.request.build_id.to_string();
        let state = State::new(
            plan::key("", &["template", &build]),
            state.layers.clone(),
            state.context.clone(),
        );
        self.engine
            .cache
            .put(FINISHED, &state)
            .map_err(|error| self.internal("keep the context of a build", &error))
    }

    async fn image(
        &self,
        phase: &Phase,
        reference: &str,
        _credentials: Option<&RegistryCredentials>,
    ) -> Result<State, BuildFailure> {
        let Some(root) = roots::known(reference, &self.engine.config.mirror) else {
            return Err(phase.failure(format!(
                "failed to pull image '{reference}': unable to retrieve image from registry"
            )));
        };
        let root = root.map_err(|text| phase.failure(text))?;
        let wanted = Wanted {
            key: plan::key("", &["image", reference, &root.recipe.digest()]),
            force: self.request.force,
            line: format!("FROM IMAGE {reference}"),
            phase,
            tells_cached: true,
        };
        self.obtain(wanted, async || {
            let layer = self.packages(phase, reference, root).await?;
            Ok((vec![layer], Context::of_image(BTreeMap::new())))
        })
        .await
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
                warren_service::Chain(&error)
            ))
        })
    }
}
