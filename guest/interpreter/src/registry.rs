//! All contexts.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::context::{Actor, Cell, Command, Shared};
use crate::kernel::{SpecDirs, StartError};
use crate::language;
use crate::random;

/// Contexts that may exist at once.
const MAX_CONTEXTS: usize = 512;
/// Cells and other requests that may wait for one context before clients are held back.
const INBOX: usize = 64;

/// A context as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ContextInfo {
    /// Its id.
    pub id: String,
    /// Its language, by its usual name.
    pub language: String,
    /// Directory that it started in.
    pub cwd: String,
}

#[derive(Debug, Clone)]
struct Context {
    info: ContextInfo,
    /// Language that its kernel says it runs.
    kernel_language: String,
    inbox: mpsc::Sender<Command>,
}

/// A context that nobody can see yet.
struct Draft {
    context: Context,
    actor: Actor,
}

/// A context that could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// There are too many.
    #[error("{MAX_CONTEXTS} contexts exist already")]
    TooMany,
    /// No kernel runs the language.
    #[error("no kernel for language '{0}' is installed")]
    NoKernel(String),
    /// A kernel's description is broken.
    #[error("read the kernel for language '{language}'")]
    Spec {
        /// The language.
        language: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel does not start.
    #[error("start the kernel for language '{language}'")]
    Start {
        /// The language.
        language: String,
        /// Why.
        #[source]
        source: StartError,
    },
}

/// A request to a context that was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContextError {
    /// There is none of that id.
    #[error("Context ID not found")]
    Unknown,
    /// Its language has no variables that are known here.
    #[error("Environment variables can't be set for language '{0}'")]
    NoVariables(String),
    /// Its new kernel does not start.
    #[error("start the kernel")]
    Start(#[source] StartError),
}

/// The contexts of a sandbox.
#[derive(Debug)]
pub(crate) struct Registry {
    shared: Shared,
    dirs: SpecDirs,
    home: String,
    contexts: Mutex<Vec<Context>>,
    defaults: Mutex<BTreeMap<String, Arc<DefaultSlot>>>,
}

/// The id of a language's default context, behind the lock under which it is made.
type DefaultSlot = tokio::sync::Mutex<Option<String>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Makes a registry without contexts, whose default contexts start in `home`.
    pub(crate) fn new(shared: Shared, dirs: SpecDirs, home: String) -> Self {
        Self {
            shared,
            dirs,
            home,
            contexts: Mutex::default(),
            defaults: Mutex::default(),
        }
    }

    /// Directory of contexts that name none.
    pub(crate) fn home(&self) -> &str {
        &self.home
    }

    /// Whether a kernel for a language is installed; a broken one is.
    pub(crate) fn is_installed(&self, language: &str) -> bool {
        !matches!(self.dirs.find(language), Ok(None))
    }

    /// All contexts, the newest last.
    pub(crate) fn list(&self) -> Vec<ContextInfo> {
        lock(&self.contexts)
            .iter()
            .map(|context| context.info.clone())
            .collect()
    }

    /// Makes a context and waits until its kernel answers.
    ///
    /// # Errors
    /// No kernel of that language can be started there.
    pub(crate) async fn create(
        &self,
        language: &str,
        cwd: &str,
    ) -> Result<ContextInfo, CreateError> {
        let mut draft = self.draft(language, cwd)?;
        if let Err(source) = draft.actor.start_kernel().await {
            let language = draft.context.info.language;
            return Err(CreateError::Start { language, source });
        }
        Ok(self.insert(draft))
    }

    fn insert(&self, draft: Draft) -> ContextInfo {
        self.shared.tasks.spawn(draft.actor.run());
        let info = draft.context.info.clone();
        lock(&self.contexts).push(draft.context);
        info
    }

    fn draft(&self, language: &str, cwd: &str) -> Result<Draft, CreateError> {
        if lock(&self.contexts).len() >= MAX_CONTEXTS {
            return Err(CreateError::TooMany);
        }
        let language = language::normalize(language);
        let found = self.dirs.find(&language);
        let spec = found
            .map_err(|source| CreateError::Spec {
                language: language.clone(),
                source,
            })?
            .ok_or_else(|| CreateError::NoKernel(language.clone()))?;
        let (inbox, commands) = mpsc::channel(INBOX);
        // Variables are set in the kernel's own language, whatever it was asked for as.
        let kernel_language = match spec.language.to_lowercase().as_str() {
            "" => language.clone(),
            "r" => "r".to_owned(),
            other => language::normalize(other),
        };
        let shared = self.shared.clone();
        let directory = PathBuf::from(cwd);
        let actor = Actor::new(shared, spec, kernel_language.clone(), directory, commands);
        let id = new_id();
        let info = ContextInfo {
            id,
            language,
            cwd: cwd.to_owned(),
        };
        let context = Context {
            info,
            kernel_language,
            inbox,
        };
        Ok(Draft { context, actor })
    }

    /// Makes the default context of a language. If it is `dormant`, its kernel starts with its
    /// first cell; else it answers on return.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) async fn start_default(
        &self,
        language: &str,
        dormant: bool,
    ) -> Result<(), CreateError> {
        let slot = self.default_slot(language);
        let mut id = slot.lock().await;
        if id.as_ref().is_some_and(|id| self.find(id).is_some()) {
            return Ok(());
        }
        let info = if dormant {
            self.insert(self.draft(language, &self.home)?)
        } else {
            self.create(language, &self.home).await?
        };
        *id = Some(info.id);
        Ok(())
    }

    fn default_slot(&self, language: &str) -> Arc<DefaultSlot> {
        Arc::clone(lock(&self.defaults).entry(language.to_owned()).or_default())
    }

    /// Whether the default context of a language exists; not while it is made.
    pub(crate) fn has_default(&self, language: &str) -> bool {
        let slot = self.default_slot(language);
        let Ok(id) = slot.try_lock() else {
            return false;
        };
        id.as_ref().is_some_and(|id| self.find(id).is_some())
    }

    /// The id of a language's default context, which is made if there is none.
    ///
    /// # Errors
    /// It can't be made.
    pub(crate) async fn default_of(&self, language: &str) -> Result<String, CreateError> {
        let language = language::normalize(language);
        if !self.is_installed(&language) {
            return Err(CreateError::NoKernel(language));
        }
        let slot = self.default_slot(&language);
        let mut id = slot.lock().await;
        if let Some(id) = id.as_ref().filter(|id| self.find(id).is_some()) {
            return Ok(id.clone());
        }
        let info = self.create(&language, &self.home).await?;
        *id = Some(info.id.clone());
        Ok(info.id)
    }

    fn find(&self, id: &str) -> Option<Context> {
        lock(&self.contexts)
            .iter()
            .find(|context| context.info.id == id)
            .cloned()
    }

    /// Gives a cell to a context.
    ///
    /// # Errors
    /// There is no such context, or it can't have the cell's variables.
    pub(crate) async fn execute(&self, id: &str, cell: Cell) -> Result<(), ContextError> {
        let context = self.find(id).ok_or(ContextError::Unknown)?;
        if !cell.env.is_empty() && !language::takes_variables(&context.kernel_language) {
            return Err(ContextError::NoVariables(context.kernel_language));
        }
        let sent = context.inbox.send(Command::Run(cell)).await;
        sent.map_err(|_| ContextError::Unknown)
    }

    /// Gives a context a new kernel.
    ///
    /// # Errors
    /// There is no such context, or the kernel does not start.
    pub(crate) async fn restart(&self, id: &str) -> Result<(), ContextError> {
        let context = self.find(id).ok_or(ContextError::Unknown)?;
        let (done, restarted) = oneshot::channel();
        let sent = context.inbox.send(Command::Restart(done)).await;
        sent.map_err(|_| ContextError::Unknown)?;
        let result = restarted.await.map_err(|_| ContextError::Unknown)?;
        result.map_err(ContextError::Start)
    }

    /// Ends a context and waits for the end of its kernel.
    ///
    /// # Errors
    /// There is no such context.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), ContextError> {
        let context = {
            let mut contexts = lock(&self.contexts);
            let at = contexts.iter().position(|context| context.info.id == id);
            contexts.remove(at.ok_or(ContextError::Unknown)?)
        };
        let (done, removed) = oneshot::channel();
        if context.inbox.send(Command::Remove(done)).await.is_ok() {
            // An actor that is gone has ended its kernel.
            let _ = removed.await;
        }
        Ok(())
    }
}

/// A random UUID as text.
fn new_id() -> String {
    let mut bytes: [u8; 16] = random::bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = hex::encode(bytes);
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// Whether a working directory is one that contexts can be asked for.
pub(crate) fn is_usable_cwd(cwd: &str) -> bool {
    Path::new(cwd).is_absolute() && !cwd.contains('\0')
}
