//! Templates made from sandboxes, and copies of running sandboxes.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use warren_cluster::{BuildImage, Captured, CreateSandbox, NodeError, VolumeMount};
use warren_service::{Chain, fault};
use warren_store::{
    BuildContent, NewSnapshot, RecordSnapshotError, SandboxRecord, SnapshotRecord, StoreError,
};
use warren_types::{BuildId, ENVD_VERSION, OnTimeout, SandboxId, SandboxState};

use crate::create::{check_timeout, micros};
use crate::limits::claim;
use crate::names::{DEFAULT_TAG, qualified};
use crate::paging::{self, Cursor};
use crate::{
    Caller, Control, CreateError, ForkError, NetworkSettings, PageError, Sandbox, SnapshotError,
    TemplateError, TemplateRef, Version,
};

/// Forks in one request.
const MAX_FORKS: i64 = 100;
/// Letter of the order of snapshots in cursors.
const SNAPSHOTS: char = 's';

/// Captures that are taken but not in the database yet, or not for long.
#[derive(Debug, Default)]
pub(crate) struct OpenCaptures(Mutex<HashSet<BuildId>>);

impl OpenCaptures {
    fn open(self: &Arc<Self>) -> OpenCapture {
        let build = BuildId::random();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(build);
        OpenCapture {
            build,
            all: Arc::clone(self),
        }
    }

    fn snapshot(&self) -> HashSet<BuildId> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone()
    }
}

/// A capture that must not be swept while this lives.
struct OpenCapture {
    build: BuildId,
    all: Arc<OpenCaptures>,
}

impl Drop for OpenCapture {
    fn drop(&mut self) {
        let mut open = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(&self.build);
    }
}

/// A snapshot as its team sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// `slug/name:tag`, or the template's id and the tag.
    pub id: String,
    /// `slug/name`, if it has a name.
    pub names: Vec<String>,
}

/// Which snapshots are wanted.
#[derive(Debug, Clone, Default)]
pub struct SnapshotQuery {
    /// Made from this sandbox.
    pub sandbox: Option<SandboxId>,
    /// Of this name, with an optional tag.
    pub name: Option<String>,
    /// Longest page.
    pub limit: Option<i64>,
    /// Cursor from the page before.
    pub cursor: Option<String>,
}

impl Snapshot {
    fn of(record: &SnapshotRecord) -> Self {
        let name = record
            .name
            .as_ref()
            .map(|(namespace, alias)| qualified(namespace, alias));
        let base = name
            .clone()
            .unwrap_or_else(|| record.template_id.to_string());
        Self {
            id: format!("{base}:{}", record.tag),
            names: name.into_iter().collect(),
        }
    }
}

impl Control {
    /// Makes a template from a running sandbox, which goes on. Must run to its end once
    /// begun.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing is left behind.
    pub async fn snapshot(
        &self,
        caller: &Caller,
        id: &SandboxId,
        name: Option<&str>,
        memory: bool,
    ) -> Result<Snapshot, SnapshotError> {
        let team = &caller.team;
        let reference = name.map(TemplateRef::parse).transpose()?;
        if let Some(namespace) = reference.as_ref().and_then(|name| name.namespace.as_ref())
            && *namespace != team.slug
        {
            let (namespace, slug) = (namespace.clone(), team.slug.clone());
            return Err(TemplateError::Namespace { namespace, slug }.into());
        }
        let tag = match reference.as_ref().and_then(|name| name.version.clone()) {
            None => DEFAULT_TAG.to_owned(),
            Some(Version::Tag(tag)) => tag,
            Some(Version::Build(build)) => {
                return Err(SnapshotError::TagIsBuild(build.to_string()));
            }
        };
        let record = self.live(caller, id).await?;
        let open = self.captures.open();
        let captured = match self.node.capture(id, open.build, memory).await {
            Ok(captured) => captured,
            Err(NodeError::Transition { id, state }) => {
                return Err(SnapshotError::Transition { id, state });
            }
            Err(NodeError::CaptureFailed(cause)) => {
                return Err(SnapshotError::failed(id, cause));
            }
            Err(error) => return Err(self.refused(&record, error).await.into()),
        };
        let name = reference.map(|name| (team.slug.clone(), name.alias));
        // A build that starts from it inherits what the source's steps set.
        let source = self.store.build_get(record.build_id).await;
        let build_env = match source {
            Ok(source) => source.and_then(|(build, _)| build.content.build_env),
            Err(error) => {
                self.forget_capture(open.build).await;
                return Err(error.into());
            }
        };
        let new = NewSnapshot {
            build_id: open.build,
            team_id: team.id,
            sandbox_id: id.clone(),
            name: name.clone(),
            tag: tag.clone(),
            content: content(captured.image, build_env),
            at: Timestamp::now(),
        };
        fault::point("snapshot.captured");
        let recorded = self.store.snapshot_insert(&new).await;
        fault::point("snapshot.recorded");
        let template = match recorded {
            Ok(template) => template,
            Err(error) => {
                self.forget_capture(open.build).await;
                return Err(match error {
                    RecordSnapshotError::NameTaken(name) => SnapshotError::NameTaken(name),
                    RecordSnapshotError::Store(error) => error.into(),
                });
            }
        };
        self.builds.clear();
        Ok(Snapshot::of(&SnapshotRecord {
            build_id: open.build,
            template_id: template,
            sandbox_id: id.clone(),
            name,
            tag,
            created_at: new.at,
        }))
    }

    /// A page of the caller's snapshots, newest first, and the cursor of the next one.
    ///
    /// # Errors
    /// [`TemplateError`] for a bad page, or when the database fails.
    pub async fn snapshot_list(
        &self,
        caller: &Caller,
        query: SnapshotQuery,
    ) -> Result<(Vec<Snapshot>, Option<String>), TemplateError> {
        let limit = paging::limit(query.limit).map_err(TemplateError::Page)?;
        let decode = |text: &str| Cursor::decode(text, SNAPSHOTS);
        let cursor: Result<Option<Cursor>, PageError> =
            query.cursor.as_deref().map(decode).transpose();
        let cursor = cursor.map_err(TemplateError::Page)?;
        let name = query.name.as_deref().map(|text| {
            // A name that can't be is the name of nothing.
            let has_tag = text.contains(':');
            TemplateRef::parse(text).ok().map(|name| (name, has_tag))
        });
        let mut records = self.store.snapshot_list(caller.team.id).await?;
        records.retain(|record| {
            query
                .sandbox
                .as_ref()
                .is_none_or(|id| record.sandbox_id == *id)
                && match &name {
                    None => true,
                    Some(None) => false,
                    Some(Some((name, has_tag))) => is_named(record, name, *has_tag),
                }
        });
        if let Some(after) = &cursor {
            let last = (after.at, after.id.as_str());
            records.retain(|record| {
                let id = record.build_id.to_string();
                (record.created_at, last.1) < (last.0, id.as_str())
            });
        }
        let more = records.len() > limit;
        records.truncate(limit);
        let next = records.last().filter(|_| more).map(|record| {
            Cursor {
                at: record.created_at,
                id: record.build_id.to_string(),
                order: SNAPSHOTS,
            }
            .encode()
        });
        Ok((records.iter().map(Snapshot::of).collect(), next))
    }

    /// Copies a running sandbox, which goes on, into new ones of their own ids and tokens.
    /// Each copy succeeds or fails by itself. Must run to its end once begun.
    ///
    /// # Errors
    /// [`ForkError`] if none was tried.
    pub async fn fork(
        &self,
        caller: &Caller,
        id: &SandboxId,
        count: i64,
        timeout_s: i64,
    ) -> Result<Vec<Result<Sandbox, CreateError>>, ForkError> {
        let (team, limit) = (&caller.team, self.max_sandboxes(caller));
        match count {
            ..1 => return Err(ForkError::TooFew),
            _ if count > MAX_FORKS => return Err(ForkError::TooMany(MAX_FORKS)),
            _ if count >= i64::from(limit) => return Err(ForkError::Limit(limit)),
            _ => {}
        }
        let timeout = check_timeout(team, timeout_s)?;
        let record = self.live(caller, id).await?;
        let mounts = self.mounts(team, &record.volume_mounts).await?;
        let open = self.captures.open();
        let captured = match self.node.capture(id, open.build, true).await {
            Ok(captured) => captured,
            Err(NodeError::Paused(id)) => return Err(ForkError::Paused(id)),
            Err(NodeError::Transition { id, state }) => {
                return Err(ForkError::Transition { id, state });
            }
            Err(NodeError::CaptureFailed(cause)) => {
                return Err(ForkError::Failed {
                    id: id.clone(),
                    cause,
                });
            }
            Err(error) => return Err(self.refused(&record, error).await.into()),
        };
        fault::point("fork.captured");
        let request = self.fork_request(&record, captured, mounts, timeout);
        let copies = (0..count).map(|_| self.fork_one(caller, &record, timeout_s, request.clone()));
        let copies = futures_util::future::join_all(copies).await;
        fault::point("fork.copied");
        self.forget_capture(open.build).await;
        Ok(copies)
    }

    fn fork_request(
        &self,
        record: &SandboxRecord,
        captured: Captured,
        mounts: Vec<VolumeMount>,
        timeout: std::time::Duration,
    ) -> CreateSandbox {
        let network = record
            .network
            .as_deref()
            .and_then(NetworkSettings::from_stored)
            .unwrap_or_default();
        // As it was checked when it was given.
        let policy = network.config(record.team_id, record.allow_internet);
        CreateSandbox {
            image: captured.image,
            mounts,
            timeout,
            // Those of the source are in the capture.
            env: BTreeMap::new(),
            access_token: record.secure.then(|| self.config.token_key.clone()),
            network: policy,
            private_traffic: record.private_traffic,
            on_timeout: match record.auto_pause {
                true => OnTimeout::Pause {
                    memory: record.auto_pause_memory,
                },
                false => OnTimeout::End,
            },
        }
    }

    async fn fork_one(
        &self,
        caller: &Caller,
        source: &SandboxRecord,
        timeout_s: i64,
        request: CreateSandbox,
    ) -> Result<Sandbox, CreateError> {
        let place = self
            .quota
            .reserve(claim(caller, &request.image.resources))?;
        self.takes_sandboxes().map_err(CreateError::Node)?;
        let began = std::time::Instant::now();
        let made = self.node.create(request).await;
        self.node_state.count(&made);
        self.meters.create(made.is_ok(), began.elapsed());
        let view = made.map_err(CreateError::Node)?;
        place.keep(view.id.clone(), view.revision);
        fault::point("fork.started");
        let record = SandboxRecord {
            id: view.id,
            key_id: caller.key,
            state: SandboxState::Running,
            started_at: micros(view.started_at),
            end_at: micros(view.end_at),
            revision: view.revision,
            pause: None,
            timeout_s: u32::try_from(timeout_s).unwrap_or(u32::MAX),
            ..source.clone()
        };
        self.enrol(&record).await?;
        Ok(self.sandbox(record))
    }

    async fn forget_capture(&self, build: BuildId) {
        if let Err(error) = self.node.forget_capture(build).await {
            tracing::error!(build_id = %build, error = %Chain(&error), "a capture is left");
        }
    }

    /// Deletes captures whose snapshot is deleted or was never recorded.
    pub(crate) async fn sweep_captures(&self) -> Result<(), StoreError> {
        let kept = match self.node.captures().await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::error!(error = %Chain(&error), "captures can't be listed");
                return Ok(());
            }
        };
        // Looked at before the database, so that what moves over meanwhile is in one.
        let mut wanted = self.captures.snapshot();
        wanted.extend(self.store.build_list_kept().await?);
        for build in kept.into_iter().filter(|build| !wanted.contains(build)) {
            self.forget_capture(build).await;
        }
        Ok(())
    }
}

fn is_named(record: &SnapshotRecord, name: &TemplateRef, has_tag: bool) -> bool {
    let tag = match &name.version {
        None => DEFAULT_TAG,
        Some(Version::Tag(tag)) => tag,
        Some(Version::Build(_)) => return false,
    };
    let is_it = match &record.name {
        Some((namespace, alias)) => {
            *alias == name.alias && name.namespace.as_ref().is_none_or(|n| n == namespace)
        }
        None => record.template_id.as_str() == name.alias && name.namespace.is_none(),
    };
    is_it && (!has_tag || record.tag == tag)
}

fn content(image: BuildImage, build_env: Option<BTreeMap<String, String>>) -> BuildContent {
    BuildContent {
        layers: image.layers,
        env: image.env,
        build_env,
        default_user: image.default_user,
        default_workdir: image.default_workdir,
        start: image.start,
        capture: image.capture,
        resources: image.resources,
        envd_version: ENVD_VERSION.to_owned(),
    }
}
