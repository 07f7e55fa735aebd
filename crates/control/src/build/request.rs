//! Requesting a build.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;
use warren_store::{BuildContent, BuildRequest};
use warren_types::{BuildId, ENVD_VERSION, TemplateId};

use super::error::{BuildRequestError, TagError};
use super::resources;
use crate::names::{DEFAULT_TAG, is_tag, normal, qualified};
use crate::{Caller, Control, TemplateRef};

/// Told as the reason of a waiting build that gave way.
const SUPERSEDED: &str = "The build was canceled because it was superseded by a newer one.";
/// Builds requested longer ago do not count against the team's limit.
const COUNTED: Duration = Duration::from_secs(24 * 3600);
/// The same for those that wait: one whose client gave up is not in the way for long.
const WAITING_COUNTED: Duration = Duration::from_secs(10 * 60);
/// Most tags of a request.
const MAX_TAGS: usize = 100;

/// A request for a build.
#[derive(Debug, Clone, Default)]
pub struct NewBuild {
    /// Name of the template, with optional namespace and tag.
    pub name: Option<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// CPUs of its sandboxes, if named.
    pub cpu_count: Option<u32>,
    /// Memory of its sandboxes in MiB, if named.
    pub memory_mib: Option<u32>,
    /// Free disk space of its sandboxes in MiB, if named.
    pub min_free_disk_mib: Option<u64>,
}

/// A build that waits for its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedBuild {
    /// Its template.
    pub template: TemplateId,
    /// Its id.
    pub build: BuildId,
    /// Whether other teams may use the template.
    pub public: bool,
    /// Name without namespace.
    pub alias: String,
    /// Name with namespace.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// Checks tags that are to be given; they come out lower-cased, sorted and once each.
pub(crate) fn check_tags<'a>(
    tags: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<String>, TagError> {
    let mut checked = BTreeSet::new();
    for text in tags {
        let tag = normal(text);
        if !is_tag(&tag) {
            return Err(TagError::Malformed(tag));
        }
        if Uuid::parse_str(&tag).is_ok() {
            return Err(TagError::Uuid(tag));
        }
        checked.insert(tag);
        if checked.len() > MAX_TAGS {
            return Err(TagError::TooMany(MAX_TAGS));
        }
    }
    Ok(checked.into_iter().collect())
}

impl Control {
    /// Makes a build that waits for its start, and its template if there is none of that
    /// name in the caller's namespace. Must run to its end once begun.
    ///
    /// # Errors
    /// [`BuildRequestError`]; nothing has changed then.
    pub async fn build_request(
        &self,
        caller: &Caller,
        request: NewBuild,
    ) -> Result<RequestedBuild, BuildRequestError> {
        let team = &caller.team;
        let name = request.name.filter(|name| !name.trim().is_empty());
        let reference = TemplateRef::parse(&name.ok_or(BuildRequestError::NoName)?)?;
        if let Some(namespace) = reference.namespace
            && namespace != team.slug
        {
            let slug = team.slug.clone();
            return Err(BuildRequestError::Namespace { namespace, slug });
        }
        let named = reference.version.as_ref().map(ToString::to_string);
        let listed = request.tags.iter().map(String::as_str);
        let mut tags = check_tags(named.as_deref().into_iter().chain(listed))?;
        if tags.is_empty() {
            tags.push(DEFAULT_TAG.to_owned());
        }
        let alias = reference.alias;
        let now = Timestamp::now();
        // Held from the count to the insert, so that requests together keep the limit.
        let _turn = self.build_turn.lock().await;
        let limits = &self.config.limits;
        let before = |age| now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let since = (before(COUNTED), before(WAITING_COUNTED));
        let open = self
            .store
            .build_count_open(team.id, (&team.slug, &alias), &tags, since)
            .await?;
        if open >= u64::from(limits.max_builds) {
            return Err(BuildRequestError::TooMany(limits.max_builds));
        }
        let resources = resources::check(
            request.cpu_count,
            request.memory_mib,
            request.min_free_disk_mib,
            limits,
        )?;
        let made = self
            .store
            .build_request(&BuildRequest {
                team_id: team.id,
                namespace: team.slug.clone(),
                alias: alias.clone(),
                tags: tags.clone(),
                content: BuildContent {
                    layers: Vec::new(),
                    env: BTreeMap::new(),
                    build_env: None,
                    default_user: String::new(),
                    default_workdir: None,
                    start: None,
                    capture: None,
                    resources,
                    envd_version: ENVD_VERSION.to_owned(),
                },
                min_free_disk_mib: request.min_free_disk_mib,
                superseded: SUPERSEDED.to_owned(),
                at: now,
            })
            .await?;
        self.builds.clear();
        Ok(RequestedBuild {
            name: qualified(&team.slug, &alias),
            template: made.template.id,
            build: made.build,
            public: made.template.public,
            alias,
            tags,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_checked_and_come_once() {
        let tags = check_tags([" V1 ", "v1", "stable"]).unwrap();
        assert_eq!(tags, ["stable", "v1"]);
        let bad = check_tags(["bad tag"]).unwrap_err();
        assert_eq!(
            bad.to_string(),
            "invalid tag 'bad tag': invalid tag: bad tag"
        );
        let uuid = Uuid::nil().to_string();
        let bad = check_tags([uuid.as_str()]).unwrap_err();
        assert_eq!(
            bad.to_string(),
            format!("invalid tag '{uuid}': tag cannot be a UUID")
        );
        let many: Vec<String> = (0..=MAX_TAGS).map(|tag| tag.to_string()).collect();
        let refused = check_tags(many.iter().map(String::as_str));
        assert_eq!(refused, Err(TagError::TooMany(MAX_TAGS)));
    }
}
