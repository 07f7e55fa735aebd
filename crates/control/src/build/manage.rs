//! Changing templates: publishing, tags, deletion.

use std::fs::File;

use jiff::Timestamp;
use warren_store::{TagRecord, TemplateRecord};
use warren_types::BuildId;

use super::error::{ManageError, TemplateImageError};
use super::request::check_tags;
use super::run::CANCELLED;
use crate::names::{DEFAULT_TAG, qualified};
use crate::{Caller, Control, TemplateError, TemplateRef, Version};

/// Whether a namespace of another team says so or just finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OtherNamespace {
    Refused,
    Hidden,
}

impl Control {
    /// The caller's own template of a reference.
    async fn own(
        &self,
        caller: &Caller,
        reference: &TemplateRef,
        other: OtherNamespace,
    ) -> Result<TemplateRecord, ManageError> {
        let team = &caller.team;
        let name = reference.name();
        if let Some(namespace) = &reference.namespace
            && *namespace != team.slug
        {
            return Err(match other {
                OtherNamespace::Hidden => ManageError::NotFound(name),
                OtherNamespace::Refused => ManageError::Namespace {
                    namespace: namespace.clone(),
                    slug: team.slug.clone(),
                },
            });
        }
        let found = self.find(team, reference).await?;
        let (template, _) = found.ok_or_else(|| ManageError::NotFound(name.clone()))?;
        if template.team_id != team.id {
            return Err(ManageError::Foreign(name));
        }
        Ok(template)
    }

    /// Deletes one of the caller's templates; its names are free at once, its open builds
    /// are given up. Must run to its end once begun.
    ///
    /// # Errors
    /// [`ManageError`] if it is unknown, another team's or in use, or the database fails.
    pub async fn template_delete(&self, caller: &Caller, text: &str) -> Result<(), ManageError> {
        let reference = TemplateRef::parse(text)?;
        let _turn = self.build_turn.lock().await;
        let template = self.own(caller, &reference, OtherNamespace::Hidden).await?;
        let id = template.id;
        let open = self.store.build_list_open(template.team_id).await?;
        let mut doomed = Vec::new();
        for build in open {
            let found = self.store.build_get(build).await?;
            if found.is_some_and(|(record, _)| record.template_id == id) {
                doomed.push(build);
            }
        }
        let now = Timestamp::now();
        self.store.template_delete(&id, CANCELLED, now).await?;
        if let Some(builds) = &self.building {
            for build in doomed {
                builds.give_up(build, CANCELLED);
            }
        }
        self.builds.clear();
        self.keep_warm(&id, None).await;
        self.sweep_captures().await?;
        Ok(())
    }

    /// Writes a template that the caller may use as a container image, an OCI image layout
    /// in a tar archive, to a file without a name.
    ///
    /// # Errors
    /// [`TemplateImageError`].
    pub async fn template_image(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<File, TemplateImageError> {
        let Some(builds) = &self.building else {
            return Err(TemplateImageError::NoBuilder);
        };
        let image = self.image_of(&caller.team, text).await?;
        let reference = TemplateRef::parse(text).map_err(TemplateError::from)?;
        let tag = reference.version.map(|version| version.to_string());
        let tag = tag.unwrap_or_else(|| DEFAULT_TAG.to_owned());
        Ok(builds.builder.export(&image, &tag).await?)
    }

    /// Publishes one of the caller's templates, or not; `None` changes nothing. Returns
    /// its names, with namespace.
    ///
    /// # Errors
    /// [`ManageError`] if it is unknown or another team's, or the database fails.
    pub async fn template_update(
        &self,
        caller: &Caller,
        text: &str,
        public: Option<bool>,
    ) -> Result<Vec<String>, ManageError> {
        let reference = TemplateRef::parse(text)?;
        let template = self.own(caller, &reference, OtherNamespace::Hidden).await?;
        if let Some(public) = public {
            self.template_set_public(&template.id, public).await?;
        }
        let aliases = self.store.alias_list(&template.id).await?;
        let mut names: Vec<_> = aliases
            .iter()
            .map(|name| qualified(&name.namespace, &name.alias))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The same; publishing also claims the template's names globally.
    ///
    /// # Errors
    /// [`ManageError`], also if somebody else has such a global name: the template is
    /// published then all the same.
    pub async fn template_update_v1(
        &self,
        caller: &Caller,
        text: &str,
        public: Option<bool>,
    ) -> Result<(), ManageError> {
        self.template_update(caller, text, public).await?;
        if public != Some(true) {
            return Ok(());
        }
        let reference = TemplateRef::parse(text)?;
        let template = self.own(caller, &reference, OtherNamespace::Hidden).await?;
        for name in self.store.alias_list(&template.id).await? {
            let now = Timestamp::now();
            let claimed = self.store.alias_claim(&template.id, &name.alias, now);
            if !claimed.await? {
                return Err(ManageError::PublicName {
                    name: qualified(&name.namespace, &name.alias),
                    alias: name.alias,
                });
            }
        }
        self.builds.clear();
        Ok(())
    }

    /// Gives tags to the ready build that `target` names. Returns the build and the tags.
    ///
    /// # Errors
    /// [`ManageError`].
    pub async fn tags_assign(
        &self,
        caller: &Caller,
        target: &str,
        tags: &[String],
    ) -> Result<(BuildId, Vec<String>), ManageError> {
        let reference = TemplateRef::parse(target)?;
        let tags = check_tags(tags.iter().map(String::as_str))?;
        if tags.is_empty() {
            return Err(ManageError::NoTags);
        }
        let other = OtherNamespace::Refused;
        let template = self.own(caller, &reference, other).await?;
        let id = &template.id;
        let build = match &reference.version {
            Some(Version::Build(build)) => self.store.build_ready(id, *build).await?,
            Some(Version::Tag(tag)) => self.store.build_by_tag(id, tag).await?,
            None => self.store.build_by_tag(id, DEFAULT_TAG).await?,
        };
        let tag = reference.version.as_ref().map(ToString::to_string);
        let build = build.ok_or_else(|| ManageError::Target {
            name: reference.name(),
            tag: tag.unwrap_or_else(|| DEFAULT_TAG.to_owned()),
        })?;
        self.store
            .tag_assign(id, build.id, &tags, Timestamp::now())
            .await?;
        self.builds.clear();
        Ok((build.id, tags))
    }

    /// Takes tags off a template; those that it does not have are ignored.
    ///
    /// # Errors
    /// [`ManageError`].
    pub async fn tags_remove(
        &self,
        caller: &Caller,
        name: &str,
        tags: &[String],
    ) -> Result<(), ManageError> {
        let reference = TemplateRef::parse(name)?;
        if reference.version.is_some() || name.contains(':') {
            return Err(ManageError::NameHasTag);
        }
        let tags = check_tags(tags.iter().map(String::as_str))?;
        if tags.is_empty() {
            return Err(ManageError::NoTags);
        }
        if tags.iter().any(|tag| tag == DEFAULT_TAG) {
            return Err(ManageError::DefaultTag);
        }
        let other = OtherNamespace::Refused;
        let template = self.own(caller, &reference, other).await?;
        self.store.tag_remove(&template.id, &tags).await?;
        self.builds.clear();
        Ok(())
    }

    /// Every assignment of a tag to a ready build of one of the caller's templates: by
    /// tag, and the newest of a tag, which counts, first.
    ///
    /// # Errors
    /// [`ManageError`] if the template is unknown or another team's, or the database fails.
    pub async fn tags_history(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<Vec<TagRecord>, ManageError> {
        let reference = TemplateRef::parse(text)?;
        let other = OtherNamespace::Refused;
        let template = self.own(caller, &reference, other).await?;
        Ok(self.store.tag_history(&template.id).await?)
    }
}
