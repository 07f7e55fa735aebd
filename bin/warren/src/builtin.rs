//! Templates that come with the server, as code in `templates/`: built through its own API
//! like anybody's, in the background, and again when their code has changed.

use std::sync::Arc;

use anyhow::Context;
use hyper_util::service::TowerToHyperService;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use warren_client::{BuildOptions, Client, Config, Template};
use warren_control::Control;
use warren_proxy::{ListenerConfig, serve};
use warren_service::{CancellationToken, Secret, Tasks};

use crate::cli::Up;
use crate::template::project::{self, Project};
use crate::up::say;

/// Begins the tags that tell from what code a build was made.
const TAG: &str = "builtin-";

/// A template that comes with the server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    dockerfile: &'static str,
    project: &'static str,
}

macro_rules! builtin {
    ($name:literal) => {
        Builtin {
            name: $name,
            dockerfile: include_str!(concat!("../../../templates/", $name, "/e2b.Dockerfile")),
            project: include_str!(concat!("../../../templates/", $name, "/e2b.toml")),
        }
    };
}

/// All of them.
pub(crate) const ALL: [Builtin; 7] = [
    builtin!("desktop"),
    builtin!("node"),
    builtin!("python"),
    builtin!("golang"),
    builtin!("ubuntu"),
    builtin!("httpbin"),
    builtin!("mcp-gateway"),
];

impl Builtin {
    /// Tag of what is built from this code.
    fn tag(&self) -> String {
        let mut hasher = Sha256::new();
        for part in [self.dockerfile, self.project] {
            // Lengths keep the parts apart.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut digest = hex::encode(hasher.finalize());
        digest.truncate(12);
        format!("{TAG}{digest}")
    }

    fn template(&self) -> anyhow::Result<(Template, Project)> {
        let project = project::parse(self.project)?;
        let (mut template, _) = Template::from_dockerfile(self.dockerfile)?;
        if let (Some(start), Some(ready)) = (&project.start_cmd, &project.ready_cmd) {
            template = template.start(start, ready);
        }
        Ok((template, project))
    }
}

/// What it takes to have them.
pub(crate) struct Builtins {
    pub(crate) control: Arc<Control>,
    pub(crate) api: axum::Router,
    pub(crate) key: Secret,
    pub(crate) tasks: Tasks,
}

impl Builtins {
    /// Has those built that are asked for and not there.
    pub(crate) async fn start(self, args: &Up) -> anyhow::Result<()> {
        let mut wanted = Vec::new();
        for builtin in ALL {
            if args.templates.iter().any(|name| name == builtin.name) {
                wanted.push(builtin);
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
        for builtin in &wanted {
            let how = "is being built: the server's output tells how far it is";
            self.control.set_unprepared(builtin.name, how);
        }
        let tasks = self.tasks.clone();
        let make = async move { self.make_all(&wanted).await };
        if args.wait_templates {
            return make.await;
        }
        // A failure is told where it happened.
        tasks.spawn_until_stopped(make);
        Ok(())
    }

    /// Builds one after the other. One that fails does not keep the rest from being built;
    /// the first failure is the result.
    async fn make_all(&self, wanted: &[Builtin]) -> anyhow::Result<()> {
        // The API on a port of its own: the server's is not served before it is ready.
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let _stops_serving = stop.clone().drop_guard();
        let service = TowerToHyperService::new(self.api.clone());
        let serving = serve(listener, service, stop, ListenerConfig::default());
        self.tasks.spawn(serving);
        let client = Client::new(Config::new(url, self.key.expose()))?;
        let mut outcome = Ok(());
        for builtin in wanted {
            let name = builtin.name;
            let made = make(&client, builtin).await;
            let made = made.with_context(|| format!("make the template {name}"));
            match made {
                Ok(()) => self.control.set_prepared(name),
                Err(error) => {
                    tracing::error!(
                        template = name,
                        error = format!("{error:#}"),
                        "could not make a template"
                    );
                    let how = "could not be built: the server's output tells why; it is tried \
                               again when the server starts";
                    self.control.set_unprepared(name, how);
                    outcome = outcome.and(Err(error));
                }
            }
        }
        outcome
    }
}

/// Builds one unless it is there, and gives it to all teams.
async fn make(client: &Client, builtin: &Builtin) -> anyhow::Result<()> {
    let name = builtin.name;
    let tag = builtin.tag();
    let tags = client.template_tags(name).await?;
    let (mut is_ours, mut is_current) = (true, false);
    if let Some(tags) = &tags {
        is_current = tags.contains(&tag);
        // One that was never ready has no tags yet.
        is_ours = tags.is_empty() || tags.iter().any(|tag| tag.starts_with(TAG));
    }
    if !is_ours {
        tracing::warn!(
            template = name,
            "a template of this name is there already and stays as it is"
        );
        return Ok(());
    }
    if !is_current {
        say(&format!(
            "Building the template {name}. Everything else works meanwhile."
        ));
        let (template, project) = builtin.template()?;
        let options = BuildOptions {
            name: name.to_owned(),
            tags: vec!["default".to_owned(), tag],
            cpu_count: project.cpu_count,
            memory_mib: project.memory_mb,
            ..BuildOptions::default()
        };
        let built = client.build(&template, &options, |line| {
            tracing::debug!(template = name, "{}", line.message);
        });
        built.await?;
    }
    client.publish_template_by_bare_name(name).await?;
    if !is_current {
        say(&format!("The template {name} is ready."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_reads_and_bears_its_name() {
        for builtin in ALL {
            let (_, project) = builtin.template().unwrap();
            assert_eq!(project.template_name.as_deref(), Some(builtin.name));
            let (_, notes) = Template::from_dockerfile(builtin.dockerfile).unwrap();
            assert_eq!(notes, Vec::<String>::new(), "{}", builtin.name);
        }
    }

    #[test]
    fn a_tag_follows_the_code() {
        let tags: std::collections::BTreeSet<_> = ALL.iter().map(Builtin::tag).collect();
        assert_eq!(tags.len(), ALL.len());
        assert!(tags.iter().all(|tag| tag.len() == TAG.len() + 12));
    }
}
