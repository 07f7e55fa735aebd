//! What befell sandboxes.

use http::Method;
use warren_wire::SandboxEvent;

use crate::client::Client;
use crate::error::Error;
use crate::http::{call, json};

/// Which events to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Only those of this sandbox.
    pub sandbox_id: Option<String>,
    /// Only those of these kinds, such as `sandbox.lifecycle.killed`; empty means all.
    pub kinds: Vec<String>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
    /// How many to leave out.
    pub offset: u32,
    /// How many at most, 1 to 100; 10 when unset.
    pub limit: Option<u32>,
}

impl Client {
    /// Lists events of the team's sandboxes, those that have ended too.
    ///
    /// ```no_run
    /// # async fn example(client: warren_client::Client) -> Result<(), warren_client::Error> {
    /// use warren_client::EventQuery;
    ///
    /// for event in client.events(&EventQuery::default()).await? {
    ///     println!("{} {} {}", event.timestamp, event.kind, event.sandbox_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Error`]; status 400 for a kind that does not exist.
    pub async fn events(&self, query: &EventQuery) -> Result<Vec<SandboxEvent>, Error> {
        const OPERATION: &str = "list events";
        let mut path = vec!["events", "sandboxes"];
        path.extend(query.sandbox_id.as_deref());
        let mut parameters = vec![("offset", query.offset.to_string())];
        if let Some(limit) = query.limit {
            parameters.push(("limit", limit.to_string()));
        }
        if query.oldest_first {
            parameters.push(("orderAsc", "true".to_owned()));
        }
        if !query.kinds.is_empty() {
            parameters.push(("types", query.kinds.join(",")));
        }
        let request = self.request(Method::GET, &path).query(&parameters);
        json(OPERATION, call(OPERATION, request).await?).await
    }
}
