//! Secrets of the team: rules of a sandbox's network name them, sandboxes never see them.

use std::collections::BTreeMap;

use http::Method;
use warren_wire::{NewSecret, SecretInfo};

use crate::client::{Client, next_token};
use crate::error::Error;
use crate::http::{call, gone, json};

impl Client {
    /// Keeps a secret under a name.
    ///
    /// # Errors
    /// [`Error`]; status 409 if the name is taken, 400 for one that is malformed.
    pub async fn create_secret(&self, name: &str, value: &str) -> Result<SecretInfo, Error> {
        const OPERATION: &str = "make a secret";
        let new = NewSecret {
            name: name.to_owned(),
            value: value.to_owned(),
            metadata: None::<BTreeMap<String, String>>,
        };
        json(
            OPERATION,
            call(OPERATION, self.post(&["secrets"], &new)).await?,
        )
        .await
    }

    /// Lists the team's secrets without their values, one page at a time: the page and where
    /// the next begins.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn secrets(
        &self,
        next_page: Option<&str>,
    ) -> Result<(Vec<SecretInfo>, Option<String>), Error> {
        const OPERATION: &str = "list secrets";
        let from = next_page.map(|token| ("nextToken", token));
        let request = self
            .request(Method::GET, &["secrets"])
            .query(from.as_slice());
        let response = call(OPERATION, request).await?;
        let next = next_token(&response);
        Ok((json(OPERATION, response).await?, next))
    }

    /// Deletes a secret, by its id. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn delete_secret(&self, id: &str) -> Result<bool, Error> {
        let request = self.request(Method::DELETE, &["secrets", id]);
        gone("delete a secret", request).await
    }
}
