//! SSH: public keys of the team, and where the server speaks it.

use http::Method;
use warren_wire::{NewSshKey, SshKey, SshServer};

use crate::client::Client;
use crate::error::Error;
use crate::http::{call, json};

impl Client {
    /// Adds a public key, a line of a key file of OpenSSH, which opens the sandboxes of the
    /// team from then on. Without a name it has that of its comment.
    ///
    /// # Errors
    /// [`Error`]; status 409 if the team has it already.
    pub async fn add_ssh_key(&self, public_key: &str, name: Option<&str>) -> Result<SshKey, Error> {
        const OPERATION: &str = "add an SSH key";
        let new = NewSshKey {
            public_key: public_key.to_owned(),
            name: name.map(str::to_owned),
        };
        json(
            OPERATION,
            call(OPERATION, self.post(&["ssh-keys"], &new)).await?,
        )
        .await
    }

    /// Lists the public keys of the team.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn ssh_keys(&self) -> Result<Vec<SshKey>, Error> {
        const OPERATION: &str = "list SSH keys";
        let request = self.request(Method::GET, &["ssh-keys"]);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Removes a public key by its id.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is none.
    pub async fn remove_ssh_key(&self, id: &str) -> Result<(), Error> {
        let request = self.request(Method::DELETE, &["ssh-keys", id]);
        call("remove an SSH key", request).await?;
        Ok(())
    }

    /// Where the server speaks SSH, on the host of the API.
    ///
    /// # Errors
    /// [`Error`]; status 404 if it does not.
    pub async fn ssh_server(&self) -> Result<SshServer, Error> {
        const OPERATION: &str = "ask for the SSH server";
        let request = self.request(Method::GET, &["ssh"]);
        json(OPERATION, call(OPERATION, request).await?).await
    }
}
