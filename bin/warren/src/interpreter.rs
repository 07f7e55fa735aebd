//! The templates of the code interpreter: registered when their layers are there, made in
//! the background when not.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use warren_cluster::BuildHost;
use warren_control::{BuildSpec, Control};
use warren_service::{Chain, Tasks};
use warren_template::LayerStore;
use warren_template::interpreter::{self, InterpreterError, Maker, Progress, Variant};
use warren_types::Resources;

use crate::cli::Up;
use crate::up::say;

/// What it takes to have the templates.
pub(crate) struct Preparation {
    pub(crate) control: Arc<Control>,
    pub(crate) host: Arc<dyn BuildHost>,
    pub(crate) store: LayerStore,
    pub(crate) mirror: Option<String>,
    pub(crate) tasks: Tasks,
}

impl Preparation {
    /// Registers what is there, and has the rest made.
    pub(crate) async fn start(self, args: &Up) -> anyhow::Result<()> {
        let resources = Resources {
            cpu_count: args.base_cpus,
            memory_mib: args.interpreter_memory_mib,
            disk_mib: args.base_disk_mib,
            ..Resources::default()
        };
        let mut wanted: Vec<Variant> = Vec::new();
        for variant in args
            .templates
            .iter()
            .filter_map(|name| Variant::of_name(name))
        {
            if !wanted.contains(&variant) {
                wanted.push(variant);
            }
        }
        let mut missing = Vec::new();
        for variant in wanted {
            match interpreter::find(&self.store, variant)? {
                Some(layers) => self.register(variant, layers, resources).await?,
                None => missing.push(variant),
            }
        }
        for variant in &missing {
            let how =
                "is being made, which takes some minutes: the server's output tells how far it is";
            self.control.set_unprepared(variant.name(), how);
        }
        let wait = args.wait_templates;
        let tasks = self.tasks.clone();
        let make = async move {
            for variant in missing {
                self.make(variant, resources).await?;
            }
            anyhow::Ok(())
        };
        if wait {
            return make.await;
        }
        // A failure is told where it happened.
        tasks.spawn_until_stopped(make);
        Ok(())
    }

    /// Makes one template and registers it. A failure is told and remembered.
    async fn make(&self, variant: Variant, resources: Resources) -> anyhow::Result<()> {
        let name = variant.name();
        say(&format!(
            "Making the template {name} from packages. This takes some minutes, once; everything else works meanwhile."
        ));
        let maker = Maker {
            host: self.host.as_ref(),
            store: &self.store,
            mirror: self.mirror.as_deref(),
            tasks: &self.tasks,
        };
        let made = maker.ensure(variant, move |event| match event {
            Progress::Started(step) => say(&format!("  {name}: {step} ...")),
            Progress::Line(line) => tracing::debug!(template = name, "{line}"),
            Progress::Finished => {}
        });
        let done = match made.await {
            Ok(layers) => self.register(variant, layers, resources).await,
            Err(error) => Err(self.failed(name, error)),
        };
        if done.is_ok() {
            say(&format!("The template {name} is ready."));
        }
        done
    }

    fn failed(&self, name: &str, error: InterpreterError) -> anyhow::Error {
        let why = Chain(&error).to_string();
        tracing::error!(template = name, error = why, "could not make a template");
        let how = "could not be made: the server's output tells why; it is tried again when the server starts";
        self.control.set_unprepared(name, how);
        anyhow::Error::new(error).context(format!("make the template {name}"))
    }

    async fn register(
        &self,
        variant: Variant,
        layers: Vec<String>,
        resources: Resources,
    ) -> anyhow::Result<()> {
        let spec = BuildSpec {
            alias: variant.name().to_owned(),
            public: true,
            layers,
            env: BTreeMap::new(),
            default_user: "user".to_owned(),
            default_workdir: None,
            start: Some(variant.start()),
            resources,
            warm: true,
        };
        let registered = self.control.register_build(spec).await;
        registered.with_context(|| format!("register the template {}", variant.name()))?;
        Ok(())
    }
}
