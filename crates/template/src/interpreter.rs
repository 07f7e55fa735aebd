//! The templates of the code interpreter: layers on top of a `base` of their own, each made
//! by a script that runs in a sandbox and named by what it is made of.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sha2::{Digest, Sha256};
use warren_cluster::{BuildHost, BuildImage, BuildSandbox, CommitError, NodeError};
use warren_service::{Chain, Tasks};
use warren_types::{BuildId, Resources, StartCommand, TemplateId};

use crate::agent::{self, AgentError, Program};
use crate::base;
use crate::layers::{LayerError, LayerStore};

/// Changes the digests when the way of building changes but no script does.
const FORMAT: &str = "warren-interpreter-1";
/// Python is new enough here.
const SUITE: &str = "trixie";
/// A step downloads hundreds of megabytes.
const STEP_LIMIT: Duration = Duration::from_secs(3600);
const DISK_MIB: u32 = 10_240;
const MEMORY_MIB: u32 = 2048;
/// Where the host's certificates are, and where a step finds them.
const HOST_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const CERTIFICATES: &str = "/tmp/certificates.crt";
/// Settings of this process that steps follow: how the package registries are reached.
const PASSED_ON: [&str; 8] = [
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
const SHOWN_LINES: usize = 15;
const LONGEST_LINE: usize = 400;
const READY_LIMIT: Duration = Duration::from_secs(60);

/// Directory inside every sandbox with the programs that the server brings.
pub const PROGRAMS: &str = "/.warren";

#[derive(Debug, Clone, Copy)]
struct Step {
    name: &'static str,
    script: &'static str,
    packages: &'static str,
}

const CORE: Step = Step {
    name: "python, javascript, bash",
    script: include_str!("interpreter/core.sh"),
    packages: include_str!("interpreter/core.txt"),
};
const LANGUAGES: Step = Step {
    name: "r, java",
    script: include_str!("interpreter/languages.sh"),
    packages: include_str!("interpreter/languages.txt"),
};
const SCIENCE: Step = Step {
    name: "data science",
    script: include_str!("interpreter/science.sh"),
    packages: include_str!("interpreter/science.txt"),
};

/// Which template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// All languages and the whole set of packages.
    Full,
    /// Python, JavaScript, TypeScript and Bash with the usual packages.
    Lean,
}

impl Variant {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Full, Self::Lean];

    /// The template's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "code-interpreter-v1",
            Self::Lean => "code-interpreter-lean",
        }
    }

    /// The variant of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.name() == name)
    }

    fn steps(self) -> &'static [Step] {
        match self {
            Self::Full => &[CORE, LANGUAGES, SCIENCE],
            Self::Lean => &[CORE],
        }
    }

    /// What its sandboxes have running: the interpreter, kept alive, from the directory of
    /// the server's programs.
    #[must_use]
    pub fn start(self) -> StartCommand {
        let service = format!(
            "export JUPYTER_PATH={PROGRAMS}/jupyter; \
             while :; do {PROGRAMS}/bin/interpreter; sleep 0.2; done"
        );
        StartCommand {
            command: Some(service),
            ready: format!("exec {PROGRAMS}/bin/interpreter --wait"),
            user: "root".to_owned(),
            workdir: Some("/home/user".to_owned()),
            env: BTreeMap::new(),
            ready_timeout_secs: READY_LIMIT.as_secs(),
        }
    }
}

/// What happens while layers are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The layer of this name is not there and is being made.
    Started(&'static str),
    /// A line of output.
    Line(String),
    /// All layers are there.
    Finished,
}

/// Why a template of the code interpreter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InterpreterError {
    /// Its base could not be made.
    #[error("make the base of the code interpreter")]
    Base(#[from] base::BaseError),
    /// The layer store failed.
    #[error("use the layer store")]
    Layers(#[from] LayerError),
    /// No sandbox for a step.
    #[error("start a sandbox for a step")]
    Sandbox(#[source] NodeError),
    /// A sandbox died or stopped answering.
    #[error("run the step {step:?}: {reason}")]
    Run {
        /// The step.
        step: &'static str,
        /// The causes, outermost first.
        reason: String,
    },
    /// A step failed.
    #[error(
        "the step {step:?} failed ({how}): {output}\nhint: check that sandboxes reach the package registries"
    )]
    Failed {
        /// The step.
        step: &'static str,
        /// How it ended.
        how: String,
        /// The last lines of its output.
        output: String,
    },
    /// The host's certificates can't be read.
    #[error("read {HOST_CERTIFICATES}")]
    Certificates(#[source] std::io::Error),
    /// What a step has written could not be kept.
    #[error("keep the result of a step")]
    Commit(#[source] CommitError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// The digest of a layer: of what is below it and of what makes it.
fn digest(below: &str, step: &Step) -> String {
    let mut hasher = Sha256::new();
    for part in [FORMAT, below, step.script, step.packages] {
        // Lengths keep the parts apart.
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex::encode(hasher.finalize())
}

fn base_recipe(mirror: Option<&str>) -> base::Recipe {
    let mut recipe = base::Recipe {
        suite: SUITE.to_owned(),
        ..base::Recipe::default()
    };
    if let Some(mirror) = mirror {
        mirror.clone_into(&mut recipe.mirror);
    }
    recipe
}

/// The layers of a variant, lowest first, whether they are there or not.
#[must_use]
pub fn layers(variant: Variant) -> Vec<String> {
    let mut layers = vec![base_recipe(None).digest()];
    for step in variant.steps() {
        layers.push(digest(&layers[layers.len() - 1], step));
    }
    layers
}

/// The layers of a variant, lowest first, if all of them are there.
///
/// # Errors
/// [`LayerError`].
pub fn find(store: &LayerStore, variant: Variant) -> Result<Option<Vec<String>>, LayerError> {
    let layers = layers(variant);
    for layer in &layers {
        if store.get(layer)?.is_none() {
            return Ok(None);
        }
    }
    Ok(Some(layers))
}

/// Makes templates of the code interpreter.
#[derive(Debug, Clone, Copy)]
pub struct Maker<'a> {
    /// Where steps run.
    pub host: &'a dyn BuildHost,
    /// Where layers go, named by content; servers may share it.
    pub store: &'a LayerStore,
    /// Debian mirror; `None` for the usual one.
    pub mirror: Option<&'a str>,
    /// Blocking work runs as part of these.
    pub tasks: &'a Tasks,
}

impl Maker<'_> {
    /// Returns the layers of a variant, lowest first, and makes those that are not there,
    /// which takes minutes. Dropped or killed at any time, it leaves whole layers only.
    ///
    /// # Errors
    /// [`InterpreterError`].
    pub async fn ensure(
        &self,
        variant: Variant,
        progress: impl Fn(Progress) + Clone + Send + Sync + 'static,
    ) -> Result<Vec<String>, InterpreterError> {
        let recipe = base_recipe(self.mirror);
        let (store, told) = (self.store.clone(), progress.clone());
        let base = self.blocking(move || {
            base::ensure(&store, &recipe, |event| match event {
                base::Progress::Started => told(Progress::Started("debian")),
                base::Progress::Line(line) => told(Progress::Line(line)),
                base::Progress::Finished => {}
            })
        });
        let mut layers = vec![base.await??];
        for step in variant.steps() {
            let digest = digest(&layers[layers.len() - 1], step);
            if self.store.get(&digest)?.is_none() {
                self.make(step, &layers, &digest, &progress).await?;
            }
            layers.push(digest);
        }
        progress(Progress::Finished);
        Ok(layers)
    }

    async fn make(
        &self,
        step: &Step,
        below: &[String],
        digest: &str,
        progress: &(impl Fn(Progress) + Sync),
    ) -> Result<(), InterpreterError> {
        let (store, name) = (self.store.clone(), digest.to_owned());
        let making = self.blocking(move || store.make(&name)).await??;
        if making.already_made().is_some() {
            return Ok(());
        }
        progress(Progress::Started(step.name));
        let image = BuildImage {
            template_id: TemplateId::random(),
            build_id: BuildId::random(),
            layers: below.to_vec(),
            resources: Resources {
                memory_mib: MEMORY_MIB,
                disk_mib: DISK_MIB,
                ..Resources::default()
            },
            default_user: "root".to_owned(),
            default_workdir: None,
            env: BTreeMap::new(),
            start: None,
            capture: None,
        };
        let sandbox = self.host.open_build(&image).await;
        let sandbox = sandbox.map_err(InterpreterError::Sandbox)?;
        run(sandbox.as_ref(), step, progress).await?;
        sandbox
            .commit(making.root().to_owned())
            .await
            .map_err(InterpreterError::Commit)?;
        sandbox.end().await;
        self.blocking(move || making.commit()).await??;
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, InterpreterError> {
        let done = self.tasks.spawn_blocking(work).await;
        done.map_err(|_| InterpreterError::Stopping)
    }
}

/// Runs a step in a sandbox and tells what it writes.
async fn run(
    sandbox: &dyn BuildSandbox,
    step: &Step,
    progress: &(impl Fn(Progress) + Sync),
) -> Result<(), InterpreterError> {
    let broken = |error: &AgentError| InterpreterError::Run {
        step: step.name,
        reason: Chain(error).to_string(),
    };
    let mut program = Program::script(step.script, &[step.packages], STEP_LIMIT);
    for name in PASSED_ON {
        if let Ok(value) = std::env::var(name) {
            program.env.insert(name.to_owned(), value);
        }
    }
    // A host behind a proxy of its own trusts more than the usual authorities.
    if Path::new(HOST_CERTIFICATES).exists() {
        let file = tokio::fs::File::open(HOST_CERTIFICATES).await;
        let file = file.map_err(InterpreterError::Certificates)?;
        let metadata = file.metadata().await;
        let length = metadata.map_err(InterpreterError::Certificates)?.len();
        agent::upload(sandbox, CERTIFICATES, file, length)
            .await
            .map_err(|error| broken(&error))?;
        for name in ["PIP_CERT", "SSL_CERT_FILE"] {
            program.env.insert(name.to_owned(), CERTIFICATES.to_owned());
        }
    }
    let mut lines = Lines::default();
    let ran = agent::run(sandbox, program, |_, bytes| lines.push(bytes, progress)).await;
    let outcome = ran.map_err(|error| broken(&error))?;
    if outcome.succeeded() {
        return Ok(());
    }
    Err(InterpreterError::Failed {
        step: step.name,
        how: outcome.to_string(),
        output: lines.last.join(" | "),
    })
}

/// Lines of output; the last are kept.
#[derive(Debug, Default)]
struct Lines {
    unfinished: Vec<u8>,
    last: Vec<String>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], progress: impl Fn(Progress)) {
        for &byte in bytes {
            if byte != b'\n' {
                if self.unfinished.len() < LONGEST_LINE {
                    self.unfinished.push(byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&self.unfinished);
            let line: String = line.chars().filter(|c| !c.is_control()).collect();
            self.unfinished.clear();
            if self.last.len() == SHOWN_LINES {
                self.last.remove(0);
            }
            self.last.push(line.clone());
            progress(Progress::Line(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_variants() {
        for variant in Variant::ALL {
            assert_eq!(Variant::of_name(variant.name()), Some(variant));
        }
        assert_eq!(Variant::of_name("base"), None);
    }

    #[test]
    fn a_layers_name_follows_what_is_below_it() {
        assert_ne!(digest("a", &CORE), digest("b", &CORE));
        assert_ne!(digest("a", &CORE), digest("a", &SCIENCE));
        assert_eq!(digest("a", &CORE), digest("a", &CORE));
    }

    #[test]
    fn every_package_is_pinned() {
        for step in [CORE, LANGUAGES, SCIENCE] {
            for line in step.packages.lines() {
                assert!(line.contains("=="), "{line}");
            }
        }
    }

    #[test]
    fn a_template_is_found_when_all_its_layers_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(dir.path()).unwrap();
        let put = |digest: &str| {
            let making = store.make(digest).unwrap();
            std::fs::create_dir(making.root()).unwrap();
            making.commit().unwrap();
        };
        let base = base_recipe(Some("http://localhost/debian")).digest();
        put(&base);
        assert_eq!(find(&store, Variant::Lean).unwrap(), None);
        let core = digest(&base, &CORE);
        put(&core);
        assert_eq!(find(&store, Variant::Lean).unwrap(), Some(vec![base, core]));
        assert_eq!(find(&store, Variant::Full).unwrap(), None);
    }

    #[test]
    fn output_is_told_by_lines_of_bounded_length() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; 10 * LONGEST_LINE], |_| {});
        lines.push(b"\n\x1b[1mbold\nrest", |_| {});
        assert_eq!(lines.last, ["x".repeat(LONGEST_LINE), "[1mbold".to_owned()]);
    }
}
