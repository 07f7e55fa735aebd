//! Volumes: durable directories that sandboxes mount, and what is in them.

use std::fmt;

use bytes::Bytes;
use http::Method;
use reqwest::RequestBuilder;
use warren_wire::{NewVolume, VolumeAndToken, VolumeEntryChange, VolumeEntryStat};

use crate::client::Client;
use crate::error::Error;
use crate::files::Download;
use crate::http::{body, call, gone, join, json};

const READ: &str = "read a file of a volume";
/// Largest file that [`Volume::read`] takes.
const READ_LIMIT: usize = 256 << 20;

impl Client {
    /// Makes a volume. Its name is that under which sandboxes mount it.
    ///
    /// ```no_run
    /// # async fn example(client: warren_client::Client) -> Result<(), warren_client::Error> {
    /// use warren_client::{NewSandbox, VolumeMount};
    ///
    /// let volume = client.create_volume("data").await?;
    /// volume.write("/hello", "kept").await?;
    /// let mount = VolumeMount { name: "data".into(), path: "/data".into(), read_only: false };
    /// let sandbox = client
    ///     .create(&NewSandbox {
    ///         template_id: "base".into(),
    ///         volume_mounts: Some(vec![mount]),
    ///         ..NewSandbox::default()
    ///     })
    ///     .await?;
    /// assert_eq!(sandbox.files().read("/data/hello").await?, "kept");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`]; status 409 if the name is taken.
    pub async fn create_volume(&self, name: &str) -> Result<Volume, Error> {
        const OPERATION: &str = "make a volume";
        let new = NewVolume {
            name: name.to_owned(),
        };
        let wire = json(
            OPERATION,
            call(OPERATION, self.post(&["volumes"], &new)).await?,
        );
        Ok(Volume::new(self.clone(), wire.await?))
    }

    /// The volume of this id.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none.
    pub async fn volume(&self, id: &str) -> Result<Volume, Error> {
        const OPERATION: &str = "get a volume";
        let request = self.request(Method::GET, &["volumes", id]);
        let wire = json(OPERATION, call(OPERATION, request).await?).await?;
        Ok(Volume::new(self.clone(), wire))
    }

    /// Lists the team's volumes.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn volumes(&self) -> Result<Vec<warren_wire::Volume>, Error> {
        const OPERATION: &str = "list volumes";
        let request = self.request(Method::GET, &["volumes"]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Deletes a volume with all that is in it. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_volume(&self, id: &str) -> Result<bool, Error> {
        const OPERATION: &str = "delete a volume";
        let request = self.request(Method::DELETE, &["volumes", id]);
        gone(OPERATION, request).await
    }
}

/// A volume that this client may read and write, whether or not a sandbox has it mounted.
/// Paths begin with `/`, which is the volume itself.
#[derive(Clone)]
pub struct Volume {
    client: Client,
    wire: VolumeAndToken,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its token is a secret.
        f.debug_struct("Volume")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

impl Volume {
    fn new(client: Client, wire: VolumeAndToken) -> Self {
        Self { client, wire }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.wire.volume.volume_id
    }

    /// What it is called in the team.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.wire.volume.name
    }

    fn request(&self, method: Method, what: &str, path: &str) -> RequestBuilder {
        let shared = &self.client.shared;
        let url = join(&shared.api_url, &["volumecontent", self.id(), what]);
        shared
            .http
            .request(method, url)
            .query(&[("path", path)])
            .bearer_auth(&self.wire.token)
    }

    /// Reads a file of at most 256 MiB.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none, [`Error::TooLong`] for a larger one.
    pub async fn read(&self, path: &str) -> Result<Bytes, Error> {
        let response = call(READ, self.request(Method::GET, "file", path)).await?;
        body(READ, response, READ_LIMIT).await
    }

    /// Reads a file of any size piece by piece.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none.
    pub async fn download(&self, path: &str) -> Result<Download, Error> {
        let response = call(READ, self.request(Method::GET, "file", path)).await?;
        Ok(Download::new(response))
    }

    /// Writes a file, replacing what was there and making the directories above it.
    ///
    /// # Errors
    /// [`Error`]; status 507 if the volume is full.
    pub async fn write(
        &self,
        path: &str,
        content: impl Into<Bytes>,
    ) -> Result<VolumeEntryStat, Error> {
        const OPERATION: &str = "write a file of a volume";
        // Not made only when it is missed: a refusal may come while the content is sent, and
        // takes the connection with it.
        if let Some((above, _)) = path.trim_end_matches('/').rsplit_once('/')
            && !above.is_empty()
        {
            self.make_dir(above).await?;
        }
        let request = self
            .request(Method::PUT, "file", path)
            .query(&[("force", "true")])
            .header(http::header::CONTENT_TYPE, "application/octet-stream")
            .body(content.into());
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Describes an entry; `None` if there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn info(&self, path: &str) -> Result<Option<VolumeEntryStat>, Error> {
        const OPERATION: &str = "describe an entry of a volume";
        match call(OPERATION, self.request(Method::GET, "path", path)).await {
            Ok(response) => Ok(Some(json(OPERATION, response).await?)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Changes owner, group or permissions of an entry; what is unset stays.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none.
    pub async fn set_attributes(
        &self,
        path: &str,
        to: &VolumeEntryChange,
    ) -> Result<VolumeEntryStat, Error> {
        const OPERATION: &str = "change an entry of a volume";
        let request = self.request(Method::PATCH, "path", path).json(to);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Lists a directory to a depth, 1 for its own entries.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none.
    pub async fn list(&self, path: &str, depth: u32) -> Result<Vec<VolumeEntryStat>, Error> {
        const OPERATION: &str = "list a directory of a volume";
        let request = self
            .request(Method::GET, "dir", path)
            .query(&[("depth", depth)]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// [`Error`]; status 409 if another kind of entry is there.
    pub async fn make_dir(&self, path: &str) -> Result<VolumeEntryStat, Error> {
        const OPERATION: &str = "make a directory in a volume";
        let request = self
            .request(Method::POST, "dir", path)
            .query(&[("force", "true")]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Removes an entry with all it contains. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn remove(&self, path: &str) -> Result<bool, Error> {
        let request = self.request(Method::DELETE, "path", path);
        gone("remove an entry of a volume", request).await
    }
}
