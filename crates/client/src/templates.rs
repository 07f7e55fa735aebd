//! Templates: described here, built by the server.

mod build;
mod commands;
mod dockerfile;
mod image;
mod pack;
mod ready;
mod recipe;
mod source;

pub use build::BuildOptions;
pub use commands::CloneOptions;
pub use ready::Ready;
pub use recipe::{CopyOptions, Template};
pub use source::SourceLanguage;

use http::{Method, StatusCode};
use warren_wire::{
    AssignTags, AssignedTags, DeleteTags, Template as TemplateInfo, TemplateTag, TemplateUpdate,
    TemplateUpdated,
};

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

    /// Lets other teams use a template, and by its bare name, without namespace.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such template, 409 if the bare name is
    /// another's: the template is published then all the same.
    pub async fn publish_template_by_bare_name(&self, reference: &str) -> Result<(), Error> {
        const OPERATION: &str = "publish a template by its bare name";
        let body = TemplateUpdate { public: Some(true) };
        let request = self
            .request(Method::PATCH, &["templates", reference])
            .json(&body);
        call(OPERATION, request).await?;
        Ok(())
    }

    /// The tags of a template, by id or name; `None` if there is no such template.
    ///
    /// # Errors
    /// [`Error`]; status 403 if it is another team's.
    pub async fn template_tags(&self, reference: &str) -> Result<Option<Vec<String>>, Error> {
        const OPERATION: &str = "list the tags of a template";
        let request = self.request(Method::GET, &["templates", reference, "tags"]);
        match call(OPERATION, request).await {
            Err(error) if error.is_not_found() => Ok(None),
            answer => {
                let tags: Vec<TemplateTag> = json(OPERATION, answer?).await?;
                Ok(Some(tags.into_iter().map(|tag| tag.tag).collect()))
            }
        }
    }

    /// Whether sandboxes could be made of a template of this name, with optional tag; it may
    /// be another team's.
    ///
    /// # Errors
    /// [`Error`]; status 400 for a malformed name.
    pub async fn template_exists(&self, name: &str) -> Result<bool, Error> {
        let request = self.request(Method::GET, &["templates", "aliases", name]);
        match call("look for a template", request).await {
            Ok(_) => Ok(true),
            Err(Error::Refused { status, .. }) if status == StatusCode::FORBIDDEN => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Gives tags to the build that a name, with optional tag, means.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such template or tag.
    pub async fn assign_tags(&self, target: &str, tags: &[&str]) -> Result<AssignedTags, Error> {
        const OPERATION: &str = "assign tags";
        let body = AssignTags {
            target: target.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        };
        let request = self.post(&["templates", "tags"], &body);
        json(OPERATION, call(OPERATION, request).await?).await
    }

    /// Takes tags off a template.
    ///
    /// # Errors
    /// [`Error`]; status 404 if there is no such template or tag.
    pub async fn remove_tags(&self, name: &str, tags: &[&str]) -> Result<(), Error> {
        let body = DeleteTags {
            name: name.to_owned(),
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
        };
        let request = self.request(Method::DELETE, &["templates", "tags"]);
        call("remove tags", request.json(&body)).await?;
        Ok(())
    }
}
