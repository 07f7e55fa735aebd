//! Files in a sandbox.

use bytes::Bytes;
use http::Method;
use reqwest::{RequestBuilder, Response};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use warren_connect::filesystem::{
    EntryInfo, ListDirRequest, ListDirResponse, MakeDirRequest, MakeDirResponse, MoveRequest,
    MoveResponse, RemoveRequest, RemoveResponse, StatRequest, StatResponse,
};
use warren_connect::{Code, Message};

use crate::agent::Agent;
use crate::error::Error;
use crate::http::{body, call};

pub(crate) const SERVICE: &str = "filesystem.Filesystem";
const READ: &str = "read a file";
const WRITE: &str = "write a file";
/// Largest file that [`Files::read`] takes.
const READ_LIMIT: usize = 256 << 20;

/// Reads and writes files in a sandbox. Relative paths start at the user's home.
#[derive(Debug, Clone)]
pub struct Files {
    agent: Agent,
}

impl Files {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent }
    }

    /// Acts as another user: whose home relative paths start at, and who owns new files.
    #[must_use]
    pub fn as_user(&self, name: impl Into<String>) -> Self {
        Self::new(self.agent.clone().with_user(Some(name.into())))
    }

    pub(crate) fn agent(&self) -> &Agent {
        &self.agent
    }

    fn content(&self, method: Method, path: &str) -> RequestBuilder {
        let mut request = self
            .agent
            .request(method, &["files"])
            .query(&[("path", path)]);
        if let Some(user) = self.agent.user() {
            request = request.query(&[("username", user)]);
        }
        request
    }

    /// Reads a file of at most 256 MiB.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none, [`Error::TooLong`] for a larger one.
    pub async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let response = call(READ, self.content(Method::GET, path)).await?;
        body(READ, response, READ_LIMIT).await
    }

    /// Reads a file of any size piece by piece.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none.
    pub async fn download(&self, path: &str) -> Result<Download, Error> {
        let response = call(READ, self.content(Method::GET, path)).await?;
        Ok(Download::new(response))
    }

    /// Writes a file, replacing what was there and making the directories above it.
    ///
    /// # Errors
    /// [`Error`]; status 507 if the sandbox's disk is full.
    pub async fn write(&self, path: &str, content: impl Into<Bytes>) -> Result<(), Error> {
        let request = self
            .content(Method::POST, path)
            .header(http::header::CONTENT_TYPE, "application/octet-stream")
            .body(content.into());
        call(WRITE, request).await?;
        Ok(())
    }

    /// Writes a file of any size from what a reader gives, as it comes, replacing what was
    /// there and making the directories above it.
    ///
    /// # Errors
    /// [`Error`]; status 507 if the sandbox's disk is full, [`Error::Transport`] also when the
    /// reader fails.
    pub async fn upload(
        &self,
        path: &str,
        content: impl AsyncRead + Send + 'static,
    ) -> Result<(), Error> {
        let request = self
            .content(Method::POST, path)
            .header(http::header::CONTENT_TYPE, "application/octet-stream")
            .body(reqwest::Body::wrap_stream(ReaderStream::new(content)));
        call(WRITE, request).await?;
        Ok(())
    }

    async fn unary<Q: Message, A: Message>(
        &self,
        operation: &'static str,
        method: &str,
        request: &Q,
    ) -> Result<A, Error> {
        self.agent.unary(operation, SERVICE, method, request).await
    }

    /// Lists a directory to a depth, by name.
    ///
    /// # Errors
    /// [`Error`]; not found if there is none.
    pub async fn list(&self, path: &str, depth: u32) -> Result<Vec<EntryInfo>, Error> {
        let request = ListDirRequest {
            path: path.to_owned(),
            depth,
        };
        let answer: ListDirResponse = self.unary("list a directory", "ListDir", &request).await?;
        Ok(answer.entries)
    }

    /// Describes an entry; `None` if there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self, path: &str) -> Result<Option<EntryInfo>, Error> {
        let request = StatRequest {
            path: path.to_owned(),
        };
        let answer: Result<StatResponse, Error> =
            self.unary("describe a file", "Stat", &request).await;
        match answer {
            Ok(answer) => Ok(answer.entry),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether there is an entry.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn exists(&self, path: &str) -> Result<bool, Error> {
        Ok(self.info(path).await?.is_some())
    }

    /// Makes a directory and those above it. Returns whether it was missing.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn make_dir(&self, path: &str) -> Result<bool, Error> {
        let request = MakeDirRequest {
            path: path.to_owned(),
        };
        let answer: Result<MakeDirResponse, Error> =
            self.unary("make a directory", "MakeDir", &request).await;
        match answer {
            Ok(_) => Ok(true),
            Err(Error::Agent { source, .. }) if source.code == Code::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Renames an entry.
    ///
    /// # Errors
    /// [`Error`]; not found if there is none.
    pub async fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let request = MoveRequest {
            source: from.to_owned(),
            destination: to.to_owned(),
        };
        let _: MoveResponse = self.unary("rename a file", "Move", &request).await?;
        Ok(())
    }

    /// Removes an entry with all it contains. One that is not there is no error.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        let request = RemoveRequest {
            path: path.to_owned(),
        };
        let _: RemoveResponse = self.unary("remove a file", "Remove", &request).await?;
        Ok(())
    }
}

/// A file on its way.
#[derive(Debug)]
pub struct Download {
    response: Response,
}

impl Download {
    pub(crate) fn new(response: Response) -> Self {
        Self { response }
    }

    /// Its size, if the agent told it.
    #[must_use]
    pub fn size(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Waits for the next piece; `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Transport`].
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        self.response
            .chunk()
            .await
            .map_err(|source| Error::Transport {
                operation: READ,
                source,
            })
    }
}
