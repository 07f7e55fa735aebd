//! From a name to a build, and what lists show of templates.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use warren_cluster::BuildImage;
use warren_store::{
    AliasRecord, BuildContent, BuildRecord, BuildRegistration, StoreError, TemplateRecord,
    TemplateSummary,
};
use warren_types::{ENVD_VERSION, Resources, StartCommand, TeamId, TemplateId};

use crate::names::{DEFAULT_TAG, qualified};
use crate::paging::{self, Cursor};
use crate::{Caller, Control, PageError, Team, TemplateError, TemplateRef, Version};

/// References remembered. Beyond it all are forgotten, which costs a few queries each.
const CACHE: usize = 4096;
/// Letter of the order of builds in cursors.
const BUILDS: char = 'b';

/// A ready build made by the operator, to be known under a global name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSpec {
    /// The name, such as `base`.
    pub alias: String,
    /// Whether teams other than the default one may use it.
    pub public: bool,
    /// Digests of its layers, lowest first.
    pub layers: Vec<String>,
    /// Variables of every process in its sandboxes.
    pub env: BTreeMap<String, String>,
    /// User that commands run as.
    pub default_user: String,
    /// Directory that commands start in.
    pub default_workdir: Option<String>,
    /// What its sandboxes have running before they are handed out.
    pub start: Option<StartCommand>,
    /// Limits of its sandboxes.
    pub resources: Resources,
    /// Whether booted sandboxes of it are kept waiting.
    pub warm: bool,
}

/// What a create needs to know of a template.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) image: BuildImage,
    pub(crate) alias: Option<String>,
}

/// Answers to references, so that a create costs no query.
#[derive(Debug, Default)]
pub(crate) struct ResolveCache {
    known: Mutex<HashMap<(TeamId, String), Arc<Resolved>>>,
    /// Raised by every change, so that a lookup that was under way is not remembered.
    changes: AtomicU64,
}

impl ResolveCache {
    fn get(&self, key: &(TeamId, String)) -> Option<Arc<Resolved>> {
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
            .cloned()
    }

    fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn insert(&self, key: (TeamId, String), found: Arc<Resolved>, seen: u64) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes() != seen {
            return;
        }
        if known.len() >= CACHE {
            known.clear();
        }
        known.insert(key, found);
    }

    /// Forgets everything. Call after any template, build, name or tag changed.
    pub(crate) fn clear(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::AcqRel);
        known.clear();
    }
}

impl Control {
    /// Makes a ready build known under a global name, owned by the default team. Does
    /// nothing if it is known already.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn register_build(&self, spec: BuildSpec) -> Result<BuildImage, StoreError> {
        let team = self.default_team().await?;
        let name = spec.alias.clone();
        let build = self
            .store
            .build_register(&BuildRegistration {
                team_id: team.id,
                namespace: String::new(),
                alias: spec.alias,
                public: spec.public,
                tag: DEFAULT_TAG.to_owned(),
                content: BuildContent {
                    layers: spec.layers,
                    env: spec.env,
                    build_env: None,
                    default_user: spec.default_user,
                    default_workdir: spec.default_workdir,
                    start: spec.start,
                    capture: None,
                    resources: spec.resources,
                    envd_version: ENVD_VERSION.to_owned(),
                },
                at: Timestamp::now(),
            })
            .await?;
        self.builds.clear();
        self.unprepared().remove(&name);
        let image = image(build);
        let warm = spec.warm.then(|| image.clone());
        self.keep_warm(&image.template_id, warm).await;
        Ok(image)
    }

    fn unprepared(&self) -> MutexGuard<'_, HashMap<String, String>> {
        let names = self.unprepared.lock();
        names.unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells requests for a template of the operator's that does not exist yet what is the
    /// matter, as the end of a sentence. [`register_build`](Self::register_build) ends it.
    pub fn set_unprepared(&self, alias: &str, how: &str) {
        self.unprepared().insert(alias.to_owned(), how.to_owned());
    }

    /// Ends what [`set_unprepared`](Self::set_unprepared) began.
    pub fn set_prepared(&self, alias: &str) {
        self.unprepared().remove(alias);
    }

    /// Keeps booted sandboxes of this build of the template waiting, or of none.
    pub(crate) async fn keep_warm(&self, template: &TemplateId, build: Option<BuildImage>) {
        let warm = {
            let mut warm = self.warm.lock().unwrap_or_else(PoisonError::into_inner);
            match build {
                Some(image) => warm.insert(template.clone(), image),
                None => warm.remove(template),
            };
            warm.values().cloned().collect()
        };
        self.node.set_warm_builds(warm).await;
    }

    /// A build as its sandboxes get it.
    pub(crate) fn runnable(&self, build: BuildRecord) -> BuildImage {
        let is_of_steps = build.content.build_env.is_some();
        let mut image = image(build);
        if is_of_steps && !self.config.template_env {
            image.env.clear();
        }
        image
    }

    /// A build with all its variables, as another one that starts from it inherits them.
    pub(crate) async fn image_of(
        &self,
        team: &Team,
        text: &str,
    ) -> Result<BuildImage, TemplateError> {
        let reference = TemplateRef::parse(text)?;
        let (_, mut build) = self.usable(team, &reference).await?;
        if let Some(env) = build.content.build_env.take() {
            build.content.env = env;
        }
        Ok(image(build))
    }

    /// The template and build of a reference, if the team may use them.
    async fn usable(
        &self,
        team: &Team,
        reference: &TemplateRef,
    ) -> Result<(TemplateRecord, BuildRecord), TemplateError> {
        let not_found = || {
            let name = reference.name();
            match self.unprepared().get(&name) {
                Some(how) => TemplateError::Unprepared {
                    how: how.clone(),
                    name,
                },
                None => TemplateError::NotFound(name),
            }
        };
        let (template, matched) = self.find(team, reference).await?.ok_or_else(not_found)?;
        if template.team_id != team.id && !template.public {
            return Err(not_found());
        }
        let build = self
            .build_of(&template, &matched, reference.version.as_ref())
            .await;
        match build {
            // Its first build is under way.
            Err(TemplateError::Tag { .. }) if self.is_unprepared(reference) => Err(not_found()),
            build => Ok((template, build?)),
        }
    }

    fn is_unprepared(&self, reference: &TemplateRef) -> bool {
        reference.version.is_none() && self.unprepared().contains_key(&reference.name())
    }

    /// Lets other teams use a template, or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_set_public(
        &self,
        template: &TemplateId,
        public: bool,
    ) -> Result<(), StoreError> {
        self.store
            .template_set_public(template, public, Timestamp::now())
            .await?;
        self.builds.clear();
        Ok(())
    }

    /// The build that a create request means.
    pub(crate) async fn resolve(
        &self,
        team: &Team,
        text: &str,
    ) -> Result<Arc<Resolved>, TemplateError> {
        let key = (team.id, text.to_owned());
        if let Some(found) = self.builds.get(&key) {
            return Ok(found);
        }
        let seen = self.builds.changes();
        let reference = TemplateRef::parse(text)?;
        let (template, build) = self.usable(team, &reference).await?;
        let aliases = self.store.alias_list(&template.id).await?;
        let found = Arc::new(Resolved {
            image: self.runnable(build),
            alias: aliases.into_iter().next().map(|name| name.alias),
        });
        self.builds.insert(key, Arc::clone(&found), seen);
        Ok(found)
    }

    /// The template of a reference, whoever owns it, and the name that matched.
    pub(crate) async fn find(
        &self,
        team: &Team,
        reference: &TemplateRef,
    ) -> Result<Option<(TemplateRecord, String)>, StoreError> {
        let alias = &reference.alias;
        if let Some(namespace) = &reference.namespace {
            let found = self.store.template_by_alias(namespace, alias).await?;
            return Ok(found.map(|template| (template, qualified(namespace, alias))));
        }
        for namespace in [team.slug.as_str(), ""] {
            if let Some(template) = self.store.template_by_alias(namespace, alias).await? {
                return Ok(Some((template, qualified(namespace, alias))));
            }
        }
        let Ok(id) = alias.parse() else {
            return Ok(None);
        };
        let found = self.store.template_get(&id).await?;
        Ok(found.map(|template| (template, alias.clone())))
    }

    async fn build_of(
        &self,
        template: &TemplateRecord,
        matched: &str,
        version: Option<&Version>,
    ) -> Result<BuildRecord, TemplateError> {
        let found = match version {
            Some(Version::Build(build)) => self.store.build_ready(&template.id, *build).await?,
            Some(Version::Tag(tag)) => self.store.build_by_tag(&template.id, tag).await?,
            None => self.store.build_by_tag(&template.id, DEFAULT_TAG).await?,
        };
        found.ok_or_else(|| TemplateError::Tag {
            tag: version.map_or_else(|| DEFAULT_TAG.to_owned(), ToString::to_string),
            template: matched.to_owned(),
        })
    }

    /// The template of a name, for the question whether it exists.
    ///
    /// # Errors
    /// [`TemplateError`] if the name is malformed, unknown, in another team's namespace, or
    /// of another team's template, or the database fails.
    pub async fn alias_get(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<TemplateRecord, TemplateError> {
        let team = &caller.team;
        let reference = TemplateRef::parse(text)?;
        if let Some(namespace) = &reference.namespace
            && *namespace != team.slug
        {
            return Err(TemplateError::Namespace {
                namespace: namespace.clone(),
                slug: team.slug.clone(),
            });
        }
        let (template, matched) = self
            .find(team, &reference)
            .await?
            .ok_or_else(|| TemplateError::NotFound(reference.name()))?;
        if template.team_id != team.id {
            return Err(TemplateError::ForeignAlias);
        }
        if reference.version.is_some() {
            self.build_of(&template, &matched, reference.version.as_ref())
                .await?;
        }
        Ok(template)
    }

    /// The caller's templates, oldest first.
    ///
    /// # Errors
    /// [`TemplateError`] if `team_id` names another team, or the database fails.
    pub async fn template_list(
        &self,
        caller: &Caller,
        team_id: Option<&str>,
    ) -> Result<Vec<TemplateSummary>, TemplateError> {
        if team_id.is_some_and(|id| id != caller.team.id.to_string()) {
            return Err(TemplateError::TeamMismatch);
        }
        Ok(self.store.template_list(caller.team.id).await?)
    }

    /// The templates that every team may use by a bare name because the server has them,
    /// oldest first. Of another team's, figures of use are left out.
    ///
    /// # Errors
    /// [`StoreError`] when the database fails.
    pub async fn template_defaults(
        &self,
        caller: &Caller,
    ) -> Result<Vec<TemplateSummary>, StoreError> {
        let owner = self.default_team().await?.id;
        let mut templates = self.store.template_list(owner).await?;
        templates.retain(|summary| {
            let is_global = |name: &AliasRecord| name.namespace.is_empty();
            summary.template.public && summary.aliases.iter().any(is_global)
        });
        if owner != caller.team.id {
            for summary in &mut templates {
                summary.build_count = 0;
                summary.template.spawn_count = 0;
                summary.template.last_spawned_at = None;
            }
        }
        Ok(templates)
    }

    /// The caller's templates, newest first, a page at a time, and the next page's cursor.
    ///
    /// # Errors
    /// As [`template_list`](Self::template_list), and for a bad page.
    pub async fn template_page(
        &self,
        caller: &Caller,
        team_id: Option<&str>,
        limit: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<(Vec<TemplateSummary>, Option<String>), TemplateError> {
        const ORDER: char = 't';
        let limit = paging::limit(limit)?;
        let after = cursor.map(|text| Cursor::decode(text, ORDER)).transpose()?;
        let mut templates = self.template_list(caller, team_id).await?;
        let key = |summary: &TemplateSummary| {
            (
                summary.template.created_at,
                summary.template.id.as_str().to_owned(),
            )
        };
        templates.sort_by_key(|summary| std::cmp::Reverse(key(summary)));
        if let Some(after) = after {
            templates.retain(|summary| key(summary) < (after.at, after.id.clone()));
        }
        let more = templates.len() > limit;
        templates.truncate(limit);
        let next = templates.last().filter(|_| more).map(|summary| {
            let (at, id) = key(summary);
            Cursor {
                at,
                id,
                order: ORDER,
            }
            .encode()
        });
        Ok((templates, next))
    }

    /// One of the caller's templates by id, a page of its builds (newest first), and the
    /// next page's cursor.
    ///
    /// # Errors
    /// [`TemplateError`] if it is unknown or another team's, the page is bad, or the
    /// database fails.
    pub async fn template_builds(
        &self,
        caller: &Caller,
        id: &str,
        limit: Option<i64>,
        cursor: Option<&str>,
    ) -> Result<(TemplateSummary, Vec<BuildRecord>, Option<String>), TemplateError> {
        let limit = paging::limit(limit)?;
        let before = match cursor
            .map(|text| Cursor::decode(text, BUILDS))
            .transpose()?
        {
            None => None,
            Some(cursor) => Some((cursor.at, cursor.id.parse().map_err(|_| PageError::Cursor)?)),
        };
        let unknown = || TemplateError::NoSuchId(id.to_owned());
        let parsed: TemplateId = id.parse().map_err(|_| unknown())?;
        let template = self
            .store
            .template_get(&parsed)
            .await?
            .ok_or_else(unknown)?;
        if template.team_id != caller.team.id {
            return Err(TemplateError::Foreign(id.to_owned()));
        }
        let wanted = u32::try_from(limit + 1).unwrap_or(u32::MAX);
        let mut builds = self.store.build_list(&parsed, before, wanted).await?;
        let more = builds.len() > limit;
        builds.truncate(limit);
        let next = builds.last().filter(|_| more).map(|build| {
            Cursor {
                at: build.created_at,
                id: build.id.to_string(),
                order: BUILDS,
            }
            .encode()
        });
        Ok((self.store.template_summary(template).await?, builds, next))
    }
}

/// What a node needs to know of a build.
pub(crate) fn image(build: BuildRecord) -> BuildImage {
    let content = build.content;
    BuildImage {
        template_id: build.template_id,
        build_id: build.id,
        layers: content.layers,
        resources: content.resources,
        default_user: content.default_user,
        default_workdir: content.default_workdir,
        env: content.env,
        start: content.start,
        capture: content.capture,
    }
}
