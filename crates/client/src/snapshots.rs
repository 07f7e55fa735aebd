//! Snapshots: templates made from a sandbox as it is.

use http::Method;
use serde::{Deserialize, Serialize};

use crate::client::{Client, next_token};
use crate::error::Error;
use crate::http::{call, gone, json};

/// A snapshot. Its id serves as the template of new sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its id.
    #[serde(rename = "snapshotID")]
    pub snapshot_id: String,
    /// Its names, `team/name`; none if it was not given one.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Which snapshots to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotQuery {
    /// Only those made from this sandbox.
    pub sandbox_id: Option<String>,
    /// Only those of this name.
    pub name: Option<String>,
    /// How many at most, 1 to 100.
    pub limit: Option<u32>,
    /// Where to go on, from the earlier page.
    pub next_token: Option<String>,
}

impl Client {
    /// Makes a snapshot of a sandbox, which goes on.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such sandbox.
    pub async fn snapshot(&self, sandbox_id: &str, name: Option<&str>) -> Result<Snapshot, Error> {
        const OPERATION: &str = "make a snapshot";
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            name: Option<&'a str>,
        }
        let path = ["sandboxes", sandbox_id, "snapshots"];
        let response = call(OPERATION, self.post(&path, &Body { name })).await?;
        json(OPERATION, response).await
    }

    /// Lists snapshots, one page at a time: the page and where the next begins.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn snapshots(
        &self,
        query: &SnapshotQuery,
    ) -> Result<(Vec<Snapshot>, Option<String>), Error> {
        const OPERATION: &str = "list snapshots";
        let limit = query.limit.map(|limit| limit.to_string());
        let parameters = [
            ("sandboxID", query.sandbox_id.as_deref()),
            ("name", query.name.as_deref()),
            ("limit", limit.as_deref()),
            ("nextToken", query.next_token.as_deref()),
        ];
        let given: Vec<_> = parameters
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        let request = self.request(Method::GET, &["snapshots"]).query(&given);
        let response = call(OPERATION, request).await?;
        let next = next_token(&response);
        Ok((json(OPERATION, response).await?, next))
    }

    /// Deletes a template or snapshot, by id or name. Returns whether it was there.
    ///
    /// # Errors
    /// [`Error`]; status 400 while sandboxes use it.
    pub async fn delete_template(&self, reference: &str) -> Result<bool, Error> {
        let request = self.request(Method::DELETE, &["templates", reference]);
        gone("delete a template", request).await
    }
}
