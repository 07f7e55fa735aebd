//! What a template is made of.

use std::path::PathBuf;

use warren_wire::ImageRegistry;

use super::dockerfile;
use crate::error::Error;

/// What a template begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Image(String),
    Template(String),
    /// An image in a file.
    Archive(PathBuf),
}

/// One step of a build. Each becomes a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Run {
        command: String,
        user: Option<String>,
    },
    Copy {
        source: String,
        target: String,
        options: CopyOptions,
    },
    Env(Vec<(String, String)>),
    Workdir(String),
    User(String),
}

/// How files are copied.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// `user` or `user:group` that owns them; the build's user unless named.
    pub owner: Option<String>,
    /// Permissions, such as `0o755`; as they are unless given.
    pub mode: Option<u32>,
    /// Upload them though the server has them.
    pub force_upload: bool,
}

/// The description of a template. Steps run in order, as `user` in its home unless a step
/// says otherwise, on the server.
///
/// ```no_run
/// # async fn example(client: warren_client::Client) -> Result<(), warren_client::Error> {
/// use warren_client::{BuildOptions, CopyOptions, Ready, Template};
///
/// let template = Template::from_template("base")
///     .context("./app")
///     .copy("*.py", "/app/", CopyOptions::default())
///     .pip_install(["flask"])
///     .start("python3 /app/main.py", Ready::port(8000));
/// let build = client
///     .build(&template, &BuildOptions::new("my-app"), |line| println!("{}", line.message))
///     .await?;
/// println!("built {}", build.template_id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pub(super) source: Source,
    pub(super) context: PathBuf,
    pub(super) steps: Vec<(Step, bool)>,
    pub(super) registry: Option<ImageRegistry>,
    pub(super) start: Option<String>,
    pub(super) ready: Option<String>,
    skip_cache: bool,
    pub(super) force: bool,
}

impl Template {
    pub(super) fn of(source: Source) -> Self {
        Self {
            source,
            context: PathBuf::from("."),
            steps: Vec::new(),
            registry: None,
            start: None,
            ready: None,
            skip_cache: false,
            force: false,
        }
    }

    /// Begins with an image, by its name in a registry.
    #[must_use]
    pub fn from_image(reference: impl Into<String>) -> Self {
        Self::of(Source::Image(reference.into()))
    }

    /// Signs in to the image's registry with a name and a password.
    #[must_use]
    pub fn registry(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.registry = Some(ImageRegistry {
            kind: "registry".to_owned(),
            username: Some(username.into()),
            password: Some(password.into()),
            ..ImageRegistry::default()
        });
        self
    }

    /// Begins with another template.
    #[must_use]
    pub fn from_template(name: impl Into<String>) -> Self {
        Self::of(Source::Template(name.into()))
    }

    /// Reads the text of a Dockerfile with one stage. Its user is `root` until it says
    /// otherwise, and `user` in `/home/user` at the end if it never does. The last command or
    /// entry point becomes the start command. Returns also what was left out, in words.
    ///
    /// # Errors
    /// [`Error::Dockerfile`] for text that is none, several stages, or an instruction that
    /// needs another stage.
    pub fn from_dockerfile(text: &str) -> Result<(Self, Vec<String>), Error> {
        dockerfile::convert(text)
    }

    /// Sets the directory that copies are taken from; the current one unless set. A
    /// `.dockerignore` in it is heeded.
    #[must_use]
    pub fn context(mut self, dir: impl Into<PathBuf>) -> Self {
        self.context = dir.into();
        self
    }

    fn step(mut self, step: Step) -> Self {
        self.steps.push((step, self.skip_cache));
        self
    }

    /// Runs a line in a login shell.
    #[must_use]
    pub fn run(self, command: impl Into<String>) -> Self {
        self.step(Step::Run {
            command: command.into(),
            user: None,
        })
    }

    /// Runs a line as another user.
    #[must_use]
    pub fn run_as(self, user: impl Into<String>, command: impl Into<String>) -> Self {
        self.step(Step::Run {
            command: command.into(),
            user: Some(user.into()),
        })
    }

    /// Copies files below the context directory; the source may be a pattern.
    #[must_use]
    pub fn copy(
        self,
        source: impl Into<String>,
        target: impl Into<String>,
        options: CopyOptions,
    ) -> Self {
        self.step(Step::Copy {
            source: source.into(),
            target: target.into(),
            options,
        })
    }

    /// Sets variables of the steps that follow. `$NAME` in values is expanded.
    #[must_use]
    pub fn env<K: Into<String>, V: Into<String>>(
        self,
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let pairs: Vec<(String, String)> = pairs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        if pairs.is_empty() {
            return self;
        }
        self.step(Step::Env(pairs))
    }

    /// Sets the directory of the steps that follow and of sandboxes.
    #[must_use]
    pub fn workdir(self, dir: impl Into<String>) -> Self {
        self.step(Step::Workdir(dir.into()))
    }

    /// Sets the user of the steps that follow and of sandboxes.
    #[must_use]
    pub fn user(self, name: impl Into<String>) -> Self {
        self.step(Step::User(name.into()))
    }

    /// Runs the steps that follow though the server has their layers.
    #[must_use]
    pub fn skip_cache(mut self) -> Self {
        self.force |= self.steps.is_empty();
        self.skip_cache = true;
        self
    }

    /// Sets what runs in each sandbox, and the command that succeeds once it is ready: a
    /// [`Ready`](super::Ready) condition or a line of its own.
    #[must_use]
    pub fn start(mut self, command: impl Into<String>, ready: impl Into<String>) -> Self {
        self.start = Some(command.into());
        self.ready = Some(ready.into());
        self
    }

    /// Sets the command that succeeds once a sandbox is ready: a [`Ready`](super::Ready)
    /// condition or a line of its own.
    #[must_use]
    pub fn ready(mut self, command: impl Into<String>) -> Self {
        self.ready = Some(command.into());
        self
    }
}
