//! The Rust client: sandboxes through the control plane's REST API, commands and files
//! through the agent inside each sandbox. It works with any server of the E2B API.
//!
//! ```no_run
//! use warren_client::{Client, Config, NewSandbox};
//!
//! # async fn example() -> Result<(), warren_client::Error> {
//! let client = Client::new(Config::new("http://127.0.0.1:3000", "e2b_…"))?;
//! let sandbox = client
//!     .create(&NewSandbox { template_id: "base".into(), ..NewSandbox::default() })
//!     .await?;
//! sandbox.files().write("greeting.txt", "hello").await?;
//! let output = sandbox.commands().run("cat greeting.txt").await?;
//! assert_eq!(output.stdout_text(), "hello");
//! sandbox.kill().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Calls are cancel-safe in that dropping one closes its connection; what the server had
//! begun by then may still happen. Dropping a [`Sandbox`] or [`Process`] ends nothing:
//! sandboxes live until they are killed or their time is up, processes until they exit.
//! All that comes back is read under a limit, since sandboxes are not trusted.

mod agent;
mod client;
mod commands;
mod config;
mod error;
mod events;
mod explain;
mod files;
mod http;
mod interpreter;
mod lifecycle;
mod limits;
mod links;
mod login;
mod sandbox;
mod secrets;
mod shell;
mod snapshots;
mod ssh;
mod templates;
mod terminal;
mod volumes;
mod watch;
mod webhooks;

pub use client::{Client, ListQuery, LogQuery, Page};
pub use commands::{Command, Commands, Event, Exit, Output, Process};
pub use config::Config;
pub use error::Error;
pub use events::EventQuery;
pub use files::{Download, Files};
pub use interpreter::{
    Cell, CellEvent, CellResult, CodeContext, Execution, ExecutionError, Interpreter, RunningCell,
};
pub use login::{Login, OAuth, Tokens};
pub use sandbox::Sandbox;
pub use shell::{join_words, quote};
pub use snapshots::{Snapshot, SnapshotQuery};
pub use templates::{BuildOptions, CloneOptions, CopyOptions, Ready, SourceLanguage, Template};
pub use terminal::{Terminal, TerminalSize};
pub use volumes::Volume;
pub use warren_connect::Code;
pub use warren_connect::filesystem::{EntryInfo, FileType};
pub use warren_connect::process::ProcessInfo;
pub use warren_types::LogLevel;
pub use warren_wire::{
    AssignedTags, AutoResume, Budget, BuildLogEntry, CallerLimits, EgressProxy, Explanation,
    ImageRegistry, Limits, ListedSandbox, LogRecord, NetworkRule, NetworkSettings,
    NetworkTransform, NetworkUpdate, NewSandbox, NewWebhook, SandboxDetail, SandboxEvent,
    SandboxMetric, SecretInfo, SshKey, SshServer, State, Team, Template as TemplateInfo,
    TemplateBuildInfo, TemplateBuildRequested, Usage, Volume as VolumeInfo, VolumeEntryChange,
    VolumeEntryStat, VolumeEntryType, VolumeMount, Webhook, WebhookDelivery,
};
pub use watch::{Change, FileEvent, Watch};
