//! The tools.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, Implementation, ServerCapabilities, ServerConfig};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};
use serde::Deserialize;
use tokio::sync::Mutex;
use warren_client::{Cell, Client, Command, Error, FileType, ListQuery, NewSandbox, Sandbox};

use crate::reply;

/// Time limits where a call names none.
const RUN_SECS: u64 = 120;
const LIFE_SECS: i32 = 600;
/// Most sandboxes in a list.
const LIST_LIMIT: usize = 100;
/// Largest file that is read into a conversation.
const FILE_LIMIT: usize = 1 << 20;

/// What the tools start from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Template of sandboxes where a call names none.
    pub template: String,
}

/// The tools, bound to one server. Clones share the sandbox of calls that name none.
#[derive(Debug, Clone)]
pub struct Tools {
    client: Client,
    settings: Settings,
    own: Arc<Mutex<Option<Sandbox>>>,
    tool_router: ToolRouter<Self>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct Create {
    /// Template name. Leave out for the default.
    template: Option<String>,
    /// Seconds until the sandbox is killed unless it is used again. Default 600.
    timeout_seconds: Option<i32>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct OfSandbox {
    /// Id of the sandbox.
    sandbox_id: String,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct RunCode {
    /// The code of one cell.
    code: String,
    /// `python` (default), `javascript`, `typescript`, `bash`, `r` or `java`.
    language: Option<String>,
    /// Sandbox to use. Leave out for this conversation's own.
    sandbox_id: Option<String>,
    /// Longest run in seconds. Default 120.
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct RunCommand {
    /// A line for the shell.
    command: String,
    /// Directory to run it in.
    cwd: Option<String>,
    /// Sandbox to use. Leave out for this conversation's own.
    sandbox_id: Option<String>,
    /// Longest run in seconds. Default 120.
    timeout_seconds: Option<u64>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct OfPath {
    /// Path, absolute or from the home directory.
    path: String,
    /// Sandbox to use. Leave out for this conversation's own.
    sandbox_id: Option<String>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct WriteFile {
    /// Path, absolute or from the home directory. Directories are made.
    path: String,
    /// The file's content.
    content: String,
    /// Whether `content` is base64 of bytes.
    #[serde(default)]
    base64: bool,
    /// Sandbox to use. Leave out for this conversation's own.
    sandbox_id: Option<String>,
}

#[derive(Debug, Deserialize, schemars::JsonSchema)]
pub(crate) struct OfPort {
    /// Port that a server in the sandbox listens on.
    port: u16,
    /// Sandbox to use. Leave out for this conversation's own.
    sandbox_id: Option<String>,
}

/// The answer of a tool, whose failures are for the agent to read.
type Answer = CallToolResult;

fn answer(result: Result<Answer, Error>) -> Answer {
    result.unwrap_or_else(|error| reply::failure(&error))
}

#[tool_router]
impl Tools {
    /// Tools over a client.
    pub fn new(client: Client, settings: Settings) -> Self {
        Self {
            client,
            settings,
            own: Arc::default(),
            tool_router: Self::tool_router(),
        }
    }

    /// Kills the sandbox that was made for calls that name none.
    ///
    /// # Errors
    /// The server is not reached, or refuses.
    pub async fn end(&self) -> Result<(), Error> {
        match self.own.lock().await.take() {
            Some(sandbox) => sandbox.kill().await.map(drop),
            None => Ok(()),
        }
    }

    async fn create(&self, template: Option<String>, secs: i32) -> Result<Sandbox, Error> {
        let new = NewSandbox {
            template_id: template.unwrap_or_else(|| self.settings.template.clone()),
            timeout: Some(secs),
            ..NewSandbox::default()
        };
        self.client.create(&new).await
    }

    /// The sandbox of a call, with at least the default time to live from now on.
    async fn sandbox(&self, id: Option<&str>) -> Result<Sandbox, Error> {
        let life = Duration::from_secs(u64::from(LIFE_SECS.unsigned_abs()));
        if let Some(id) = id {
            return self.client.connect(id, life).await;
        }
        let mut own = self.own.lock().await;
        if let Some(sandbox) = &*own {
            match self.client.connect(sandbox.id(), life).await {
                // It ended meanwhile; the agent gets a fresh one.
                Err(error) if error.is_not_found() => {}
                connected => return connected,
            }
        }
        let sandbox = self.create(None, LIFE_SECS).await?;
        Ok(own.insert(sandbox).clone())
    }

    #[tool(description = "Make a sandbox: an isolated Linux machine. Returns its id.")]
    async fn create_sandbox(&self, Parameters(ask): Parameters<Create>) -> Answer {
        let secs = ask.timeout_seconds.unwrap_or(LIFE_SECS);
        answer(
            self.create(ask.template, secs)
                .await
                .map(|made| reply::text(made.id())),
        )
    }

    #[tool(description = "List the sandboxes that run or are paused.")]
    async fn list_sandboxes(&self) -> Answer {
        let page = self.client.list(&ListQuery::default()).await;
        answer(page.map(|page| {
            let mut text = String::new();
            for sandbox in page.sandboxes.iter().take(LIST_LIMIT) {
                let template = sandbox.alias.as_deref().unwrap_or(&sandbox.template_id);
                // Writing to a string can't fail.
                let _ = writeln!(
                    text,
                    "{} {template} {:?} until {}",
                    sandbox.sandbox_id, sandbox.state, sandbox.end_at
                );
            }
            reply::text(if text.is_empty() { "none" } else { &text })
        }))
    }

    #[tool(description = "Kill a sandbox and everything in it.")]
    async fn kill_sandbox(&self, Parameters(ask): Parameters<OfSandbox>) -> Answer {
        let killed = self.client.kill(&ask.sandbox_id).await;
        answer(killed.map(|was| {
            reply::text(if was {
                "killed"
            } else {
                "there is no such sandbox"
            })
        }))
    }

    #[tool(description = "List the templates that sandboxes can be made of.")]
    async fn list_templates(&self) -> Answer {
        let all = self.client.templates(None).await;
        answer(all.map(|all| {
            let names: Vec<_> = all
                .iter()
                .map(|template| {
                    template
                        .names
                        .first()
                        .unwrap_or(&template.template_id)
                        .clone()
                })
                .collect();
            reply::text(&names.join("\n"))
        }))
    }

    #[tool(
        description = "Run code in a stateful interpreter: variables and imports stay between calls. Plots come back as images."
    )]
    async fn run_code(&self, Parameters(ask): Parameters<RunCode>) -> Answer {
        let limit = Duration::from_secs(ask.timeout_seconds.unwrap_or(RUN_SECS));
        let run = async {
            let sandbox = self.sandbox(ask.sandbox_id.as_deref()).await?;
            let mut cell = Cell::new(&ask.code).timeout(Some(limit));
            if let Some(language) = &ask.language {
                cell = cell.language(language);
            }
            sandbox.interpreter().run(cell).await
        };
        answer(run.await.map(|execution| reply::execution(&execution)))
    }

    #[tool(description = "Run a shell command and wait for its end.")]
    async fn run_command(&self, Parameters(ask): Parameters<RunCommand>) -> Answer {
        let limit = Duration::from_secs(ask.timeout_seconds.unwrap_or(RUN_SECS));
        let run = async {
            let sandbox = self.sandbox(ask.sandbox_id.as_deref()).await?;
            let mut command = Command::new(&ask.command).timeout(Some(limit));
            if let Some(dir) = &ask.cwd {
                command = command.cwd(dir);
            }
            sandbox.commands().run(command).await
        };
        answer(run.await.map(|output| reply::command(&output)))
    }

    #[tool(description = "Read a file of up to 1 MiB. Bytes that are no text come as base64.")]
    async fn read_file(&self, Parameters(ask): Parameters<OfPath>) -> Answer {
        let read = async {
            let sandbox = self.sandbox(ask.sandbox_id.as_deref()).await?;
            let files = sandbox.files();
            let mut download = files.download(&ask.path).await?;
            let mut content = Vec::new();
            while let Some(chunk) = download.next().await? {
                content.extend_from_slice(&chunk);
                if content.len() > FILE_LIMIT {
                    return Err(Error::TooLong {
                        operation: "read a file",
                        limit: FILE_LIMIT,
                    });
                }
            }
            Ok(content)
        };
        answer(read.await.map(|content| match String::from_utf8(content) {
            Ok(text) => reply::text(&text),
            Err(error) => reply::text(&format!("base64:{}", STANDARD.encode(error.as_bytes()))),
        }))
    }

    #[tool(description = "Write a file, replacing what is there.")]
    async fn write_file(
        &self,
        Parameters(ask): Parameters<WriteFile>,
    ) -> Result<Answer, rmcp::ErrorData> {
        let content = if ask.base64 {
            STANDARD.decode(&ask.content).map_err(|error| {
                rmcp::ErrorData::invalid_params(format!("content is not base64: {error}"), None)
            })?
        } else {
            ask.content.into_bytes()
        };
        let length = content.len();
        let write = async {
            let sandbox = self.sandbox(ask.sandbox_id.as_deref()).await?;
            sandbox.files().write(&ask.path, content).await
        };
        Ok(answer(
            write
                .await
                .map(|()| reply::text(&format!("{length} bytes written"))),
        ))
    }

    #[tool(description = "List a directory.")]
    async fn list_files(&self, Parameters(ask): Parameters<OfPath>) -> Answer {
        let list = async {
            let sandbox = self.sandbox(ask.sandbox_id.as_deref()).await?;
            sandbox.files().list(&ask.path, 1).await
        };
        answer(list.await.map(|entries| {
            let mut text = String::new();
            for entry in entries {
                let mark = if entry.r#type == FileType::Directory as i32 {
                    "/"
                } else {
                    ""
                };
                // Writing to a string can't fail.
                let _ = writeln!(text, "{}{mark} {}", entry.name, entry.size);
            }
            reply::text(if text.is_empty() { "empty" } else { &text })
        }))
    }

    #[tool(description = "The host name under which a port of a sandbox is reached from outside.")]
    async fn get_host(&self, Parameters(ask): Parameters<OfPort>) -> Answer {
        let sandbox = self.sandbox(ask.sandbox_id.as_deref()).await;
        answer(sandbox.map(|sandbox| {
            let host = sandbox.host(ask.port);
            reply::text(host.as_deref().unwrap_or("the server has no domain"))
        }))
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("warren", env!("CARGO_PKG_VERSION")))
            .with_instructions("Sandboxes: isolated Linux machines to run code and commands in. Tools without a sandbox_id use one sandbox of this conversation, which keeps files and variables.")
    }
}
