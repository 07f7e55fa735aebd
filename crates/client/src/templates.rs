//! Templates: described here, built by the server.

mod build;
mod dockerfile;
mod pack;
mod recipe;

pub use build::BuildOptions;
pub use recipe::{CopyOptions, Template};

use http::Method;
use warren_wire::{Template as TemplateInfo, TemplateUpdate, TemplateUpdated};

use crate::client::Client;
use crate::error::Error;
use crate::http::{call, json};

impl Client {
    /// Lists the team's templates, oldest first.
    ///
    /// # Errors
    /// [`Error`]; status 400 if the key is of another team than the one named.
    pub async fn templates(&self, team: Option<&str>) -> Result<Vec<TemplateInfo>, Error> {
        const OPERATION: &str = "list templates";
        let team = team.map(|team| ("teamID", team));
        let request = self
            .request(Method::GET, &["templates"])
            .query(team.as_slice());
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Lets other teams use a template, by id or name, or no longer. Returns its names with
    /// namespace.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such template.
    pub async fn publish_template(
        &self,
        reference: &str,
        public: bool,
    ) -> Result<Vec<String>, Error> {
        const OPERATION: &str = "publish a template";
        let body = TemplateUpdate {
            public: Some(public),
        };
        let request = self
            .request(Method::PATCH, &["v2", "templates", reference])
            .json(&body);
        let answer: TemplateUpdated = json(OPERATION, call(OPERATION, request).await?).await?;
        Ok(answer.names)
    }
}
