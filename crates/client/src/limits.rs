//! Limits of teams and API keys.

use http::Method;
use reqwest::RequestBuilder;
use warren_wire::{Budget, CallerLimits, Limits};

use crate::http::{call, json};
use crate::{Client, Error};

const ADMIN_TOKEN: &str = "x-admin-token";

impl Client {
    /// The limits that this client's key and team are under.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn limits(&self) -> Result<CallerLimits, Error> {
        const OPERATION: &str = "get limits";
        let response = call(OPERATION, self.request(Method::GET, &["limits"])).await?;
        json(OPERATION, response).await
    }

    /// Limits of a team, or of one of its keys, as the administrator.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such team or key.
    pub async fn limits_of(
        &self,
        admin_token: &str,
        team: &str,
        key: Option<&str>,
    ) -> Result<Limits, Error> {
        const OPERATION: &str = "get limits";
        let request = self.limits_request(Method::GET, admin_token, team, key);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Replaces all limits of a team, or of one of its keys, as the administrator.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such team or key.
    pub async fn set_limits(
        &self,
        admin_token: &str,
        team: &str,
        key: Option<&str>,
        to: &Budget,
    ) -> Result<Limits, Error> {
        const OPERATION: &str = "set limits";
        let request = self.limits_request(Method::PUT, admin_token, team, key);
        json(OPERATION, call(OPERATION, request.json(to)).await?).await
    }

    fn limits_request(
        &self,
        method: Method,
        admin_token: &str,
        team: &str,
        key: Option<&str>,
    ) -> RequestBuilder {
        let mut path = vec!["admin", "teams", team];
        path.extend(key.map(|key| ["api-keys", key]).into_iter().flatten());
        path.push("limits");
        self.request(method, &path).header(ADMIN_TOKEN, admin_token)
    }
}
