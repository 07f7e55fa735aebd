//! Why something ended or was refused.

use http::Method;
use warren_wire::Explanation;

use crate::http::{call, json};
use crate::{Client, Error};

impl Client {
    /// Says what became of a sandbox or a build of the key's team, or of the request that was
    /// answered with this `X-Request-Id`; without an id, what was refused to the team lately.
    ///
    /// # Errors
    /// [`Error`]; status 404 if nothing is known by this id.
    pub async fn explain(&self, id: Option<&str>) -> Result<Explanation, Error> {
        const OPERATION: &str = "explain";
        let mut path = vec!["explain"];
        path.extend(id);
        let response = call(OPERATION, self.request(Method::GET, &path)).await?;
        json(OPERATION, response).await
    }
}
