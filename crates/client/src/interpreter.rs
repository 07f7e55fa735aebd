//! Cells of code in sandboxes of a code-interpreter template.

mod execution;

pub use execution::{CellEvent, CellResult, Execution, ExecutionError};

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use reqwest::Response;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::error::Error;
use crate::http::{call, json};
use execution::{Line, read};

/// Longest line of the stream: a result with its pictures.
const LINE_LIMIT: usize = 64 << 20;
/// Most bytes of one cell that [`Interpreter::run`] keeps.
const OUTPUT_LIMIT: usize = 64 << 20;
/// Longest time of a cell unless told otherwise.
const DEFAULT_LIMIT: Duration = Duration::from_secs(300);
const RUN: &str = "run code";

/// Code, and where to run it. By default in the default Python context, for at most five
/// minutes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cell {
    code: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    language: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env_vars: BTreeMap<String, String>,
    #[serde(skip)]
    limit: Option<Duration>,
}

impl Cell {
    /// Code in Python.
    #[must_use]
    pub fn new(code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            context_id: None,
            language: None,
            env_vars: BTreeMap::new(),
            limit: Some(DEFAULT_LIMIT),
        }
    }

    /// Runs it in the default context of another language: `javascript`, `typescript`, `r`,
    /// `bash`, `java` or another that the template has.
    #[must_use]
    pub fn language(mut self, name: impl Into<String>) -> Self {
        self.language = Some(name.into());
        self.context_id = None;
        self
    }

    /// Runs it in this context, in its language.
    #[must_use]
    pub fn context(mut self, context: &CodeContext) -> Self {
        self.context_id = Some(context.id.clone());
        self.language = None;
        self
    }

    /// Sets a variable for this cell alone.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env_vars.insert(name.into(), value.into());
        self
    }

    /// Interrupts it after this time, or never.
    #[must_use]
    pub fn timeout(mut self, limit: Option<Duration>) -> Self {
        self.limit = limit;
        self
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(code: T) -> Self {
        Self::new(code)
    }
}

/// A kernel with state of its own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct CodeContext {
    /// Its id.
    pub id: String,
    /// Its language.
    pub language: String,
    /// The directory that it began in.
    pub cwd: String,
}

/// Runs code with state between cells.
#[derive(Debug, Clone)]
pub struct Interpreter {
    agent: Agent,
}

impl Interpreter {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent }
    }

    /// Runs a cell to its end. Takes code or a [`Cell`].
    ///
    /// # Errors
    /// [`Error`]; status 404 if its context does not exist, 500 if its language does not,
    /// [`Error::Transport`] when its time is over, [`Error::TooLong`] over 64 MiB of output.
    /// An error that the code raises is no failure of the call.
    pub async fn run(&self, cell: impl Into<Cell>) -> Result<Execution, Error> {
        let mut running = self.start(cell).await?;
        let mut execution = Execution::default();
        while let Some(event) = running.next().await? {
            if running.received > OUTPUT_LIMIT {
                return Err(Error::TooLong {
                    operation: RUN,
                    limit: OUTPUT_LIMIT,
                });
            }
            execution.take(event);
        }
        Ok(execution)
    }

    /// Starts a cell, to be followed. Takes code or a [`Cell`].
    ///
    /// # Errors
    /// [`Error`]; status 404 if its context does not exist, 500 if its language does not.
    pub async fn start(&self, cell: impl Into<Cell>) -> Result<RunningCell, Error> {
        let cell = cell.into();
        let mut request = self.agent.request(Method::POST, &["execute"]).json(&cell);
        if let Some(limit) = cell.limit {
            request = request.timeout(limit);
        }
        Ok(RunningCell {
            response: call(RUN, request).await?,
            buffer: BytesMut::new(),
            searched: 0,
            received: 0,
            ended: false,
        })
    }

    /// Makes a context: a kernel of its own, for Python unless a language is named, in the
    /// user's home unless a directory is.
    ///
    /// # Errors
    /// [`Error`]; status 500 for a language that the template has not.
    pub async fn create_context(
        &self,
        language: Option<&str>,
        cwd: Option<&str>,
    ) -> Result<CodeContext, Error> {
        const OPERATION: &str = "make a context";
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            language: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cwd: Option<&'a str>,
        }
        let request = self
            .request(Method::POST, &["contexts"])
            .json(&Body { language, cwd });
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Lists contexts, the default ones too, oldest first.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn contexts(&self) -> Result<Vec<CodeContext>, Error> {
        const OPERATION: &str = "list contexts";
        let request = self.request(Method::GET, &["contexts"]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Starts the kernel of a context anew: its state is gone, its id stays.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such context.
    pub async fn restart_context(&self, id: &str) -> Result<(), Error> {
        let request = self.request(Method::POST, &["contexts", id, "restart"]);
        call("restart a context", request).await?;
        Ok(())
    }

    /// Ends the kernel of a context.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such context.
    pub async fn remove_context(&self, id: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &["contexts", id]);
        call("remove a context", request).await?;
        Ok(())
    }

    fn request(&self, method: Method, path: &[&str]) -> reqwest::RequestBuilder {
        self.agent
            .request(method, path)
            .timeout(self.agent.request_timeout())
    }
}

/// A cell that is followed. Dropped before its end, it is interrupted.
#[derive(Debug)]
pub struct RunningCell {
    response: Response,
    buffer: BytesMut,
    /// How much of the buffer has no end of a line.
    searched: usize,
    received: usize,
    ended: bool,
}

impl RunningCell {
    /// Waits for what it does next; `None` after its end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Transport`] when its time is over or its sandbox ends, [`Error::Cut`] when
    /// the stream breaks off, [`Error::TooLong`] for a result over 64 MiB.
    pub async fn next(&mut self) -> Result<Option<CellEvent>, Error> {
        while !self.ended {
            if let Some(line) = self.line() {
                match read(&line)? {
                    Line::Event(event) => return Ok(Some(event)),
                    Line::Nothing => {}
                    Line::End => self.ended = true,
                }
                continue;
            }
            if self.buffer.len() > LINE_LIMIT {
                return Err(Error::TooLong {
                    operation: RUN,
                    limit: LINE_LIMIT,
                });
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|source| Error::Transport {
                operation: RUN,
                source,
            })? {
                Some(chunk) => {
                    self.received += chunk.len();
                    self.buffer.extend_from_slice(&chunk);
                }
                None => {
                    self.ended = true;
                    return Err(Error::Cut { operation: RUN });
                }
            }
        }
        Ok(None)
    }

    /// The next whole line that is not blank.
    fn line(&mut self) -> Option<BytesMut> {
        loop {
            let fresh = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = fresh.iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + end + 1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}
