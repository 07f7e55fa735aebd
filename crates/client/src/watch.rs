//! Changes of a directory, as they happen.

use warren_connect::filesystem::watch_dir_response::Event;
use warren_connect::filesystem::{EventType, WatchDirRequest, WatchDirResponse};

use crate::agent::Messages;
use crate::error::Error;
use crate::files::{Files, SERVICE};

const WATCH: &str = "watch a directory";

/// What happened to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It appeared.
    Created,
    /// Its content changed.
    Written,
    /// It vanished.
    Removed,
    /// It was renamed; told under its old name.
    Renamed,
    /// Its permissions or owner changed.
    Attributes,
    /// Something that this client does not know.
    Other,
}

impl From<EventType> for Change {
    fn from(kind: EventType) -> Self {
        match kind {
            EventType::Create => Self::Created,
            EventType::Write => Self::Written,
            EventType::Remove => Self::Removed,
            EventType::Rename => Self::Renamed,
            EventType::Chmod => Self::Attributes,
            EventType::Unspecified => Self::Other,
        }
    }
}

/// A change of an entry below the watched directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEvent {
    /// Path relative to the directory.
    pub name: String,
    /// What happened.
    pub change: Change,
}

/// A directory that is watched. Dropped, it is not any more.
#[derive(Debug)]
pub struct Watch {
    messages: Messages,
}

impl Files {
    /// Watches a directory, with all below it if `recursive`. Once this returns, every change
    /// is told.
    ///
    /// ```no_run
    /// # async fn example(sandbox: warren_client::Sandbox) -> Result<(), warren_client::Error> {
    /// let files = sandbox.files();
    /// let mut watch = files.watch("/tmp", false).await?;
    /// files.write("/tmp/new", "x").await?;
    /// let event = watch.next().await?.expect("the sandbox runs on");
    /// assert_eq!(event.name, "new");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`]; not found if there is no such directory.
    pub async fn watch(&self, path: &str, recursive: bool) -> Result<Watch, Error> {
        let request = WatchDirRequest {
            path: path.to_owned(),
            recursive,
            include_entry: false,
            allow_network_mounts: false,
        };
        let messages = self
            .agent()
            .stream(WATCH, SERVICE, "WatchDir", &request, None)
            .await?;
        let mut watch = Watch { messages };
        match watch.next_message().await? {
            Some(Event::Start(_)) => Ok(watch),
            _ => Err(Error::Cut { operation: WATCH }),
        }
    }
}

impl Watch {
    async fn next_message(&mut self) -> Result<Option<Event>, Error> {
        while let Some(message) = self.messages.next::<WatchDirResponse>().await? {
            match message.event {
                // An empty message is an event that this client does not know.
                Some(Event::Keepalive(_)) | None => {}
                Some(event) => return Ok(Some(event)),
            }
        }
        Ok(None)
    }

    /// Waits for the next change; `None` once the directory is not watched any more.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn next(&mut self) -> Result<Option<FileEvent>, Error> {
        while let Some(event) = self.next_message().await? {
            if let Event::Filesystem(event) = event {
                let change = event.r#type().into();
                return Ok(Some(FileEvent {
                    name: event.name,
                    change,
                }));
            }
        }
        Ok(None)
    }
}
