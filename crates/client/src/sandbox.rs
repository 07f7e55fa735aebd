//! A sandbox.

use std::fmt;
use std::time::Duration;

use warren_types::ENVD_PORT;
use warren_wire::{LogRecord, SandboxDetail, SandboxMetric};

use crate::agent::Agent;
use crate::client::{Client, LogQuery};
use crate::commands::Commands;
use crate::error::Error;
use crate::files::Files;
use crate::interpreter::Interpreter;

/// Where the interpreter serves.
const INTERPRETER_PORT: u16 = 49999;

/// A sandbox that this client may use. Clones name the same one.
#[derive(Clone)]
pub struct Sandbox {
    client: Client,
    wire: warren_wire::Sandbox,
}

impl Sandbox {
    pub(crate) fn new(client: Client, wire: warren_wire::Sandbox) -> Self {
        Self { client, wire }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.wire.sandbox_id
    }

    /// The token that its agent asks for.
    #[must_use]
    pub fn envd_access_token(&self) -> Option<&str> {
        self.wire.envd_access_token.as_deref()
    }

    /// The token that its other ports ask for, if they are not public.
    #[must_use]
    pub fn traffic_access_token(&self) -> Option<&str> {
        self.wire.traffic_access_token.as_deref()
    }

    /// The host name of one of its ports, if the server named a domain.
    #[must_use]
    pub fn host(&self, port: u16) -> Option<String> {
        let domain = self.wire.domain.as_deref()?;
        Some(format!("{port}-{}.{domain}", self.wire.sandbox_id))
    }

    /// Runs commands in it.
    ///
    /// ```no_run
    /// # async fn example(sandbox: warren_client::Sandbox) -> Result<(), warren_client::Error> {
    /// use warren_client::{Command, Event};
    ///
    /// let command = Command::new("for i in 1 2 3; do echo $i; sleep 1; done").user("root");
    /// let mut process = sandbox.commands().start(command).await?;
    /// while let Some(event) = process.next().await? {
    ///     match event {
    ///         Event::Stdout(bytes) | Event::Stderr(bytes) => println!("{bytes:?}"),
    ///         Event::Exit(exit) => println!("exit code {}", exit.code),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn commands(&self) -> Commands {
        Commands::new(self.agent())
    }

    /// Reads and writes its files.
    ///
    /// ```no_run
    /// # async fn example(sandbox: warren_client::Sandbox) -> Result<(), warren_client::Error> {
    /// let files = sandbox.files();
    /// files.make_dir("project").await?;
    /// files.write("project/main.py", "print(1)").await?;
    /// for entry in files.list("project", 1).await? {
    ///     println!("{} {}", entry.path, entry.size);
    /// }
    /// files.remove("project").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn files(&self) -> Files {
        Files::new(self.agent())
    }

    /// Runs code in it, if it is of a code-interpreter template.
    ///
    /// ```no_run
    /// # async fn example(sandbox: warren_client::Sandbox) -> Result<(), warren_client::Error> {
    /// let interpreter = sandbox.interpreter();
    /// interpreter.run("x = 20").await?;
    /// let execution = interpreter.run("x + 1").await?;
    /// assert_eq!(execution.text(), Some("21"));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn interpreter(&self) -> Interpreter {
        Interpreter::new(self.agent_at(INTERPRETER_PORT))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn agent(&self) -> Agent {
        self.agent_at(ENVD_PORT)
    }

    fn agent_at(&self, port: u16) -> Agent {
        Agent::new(
            self.client.clone(),
            self.wire.sandbox_id.clone(),
            port,
            self.wire.envd_access_token.clone(),
            self.wire.traffic_access_token.clone(),
        )
    }

    /// As [`Client::get`].
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn detail(&self) -> Result<SandboxDetail, Error> {
        self.client.get(self.id()).await
    }

    /// As [`Client::set_timeout`].
    ///
    /// # Errors
    /// As [`Client::set_timeout`].
    pub async fn set_timeout(&self, timeout: Duration) -> Result<(), Error> {
        self.client.set_timeout(self.id(), timeout).await
    }

    /// As [`Client::metrics`].
    ///
    /// # Errors
    /// As [`Client::metrics`].
    pub async fn metrics(&self) -> Result<Vec<SandboxMetric>, Error> {
        self.client.metrics(self.id(), None).await
    }

    /// As [`Client::logs`].
    ///
    /// # Errors
    /// As [`Client::logs`].
    pub async fn logs(&self) -> Result<Vec<LogRecord>, Error> {
        self.client.logs(self.id(), &LogQuery::default()).await
    }

    /// As [`Client::kill`].
    ///
    /// # Errors
    /// As [`Client::kill`].
    pub async fn kill(&self) -> Result<bool, Error> {
        self.client.kill(self.id()).await
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its tokens are secrets.
        f.debug_struct("Sandbox")
            .field("id", &self.wire.sandbox_id)
            .field("template_id", &self.wire.template_id)
            .finish_non_exhaustive()
    }
}
