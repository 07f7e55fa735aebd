//! The calls of `filesystem.Filesystem`.

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, sleep, sleep_until};
use warren_connect::filesystem::{
    CreateWatcherRequest, CreateWatcherResponse, GetWatcherEventsRequest, GetWatcherEventsResponse,
    ListDirRequest, ListDirResponse, MakeDirRequest, MakeDirResponse, MoveRequest, MoveResponse,
    RemoveRequest, RemoveResponse, RemoveWatcherRequest, RemoveWatcherResponse, StatRequest,
    StatResponse, WatchDirRequest, WatchDirResponse, watch_dir_response,
};
use warren_connect::{Code, Error};

use super::watch::{Watch, WatchSpec};
use super::{list, ops};
use crate::call::{Call, Events, deadline_exceeded};
use crate::paths;
use crate::users::UserDb;

impl Call {
    fn resolve(&self, path: &str) -> Result<String, Error> {
        let workdir = self.agent.default_workdir();
        paths::resolve(path, &self.user.home, workdir.as_deref())
            .map_err(|e| Error::new(Code::InvalidArgument, e.to_string()))
    }

    /// Runs file system work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&UserDb) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let task = self.agent.tasks.spawn_blocking(move || {
            let users = UserDb::load()
                .map_err(|e| Error::new(Code::Internal, format!("error reading users: {e}")))?;
            work(&users)
        });
        task.await
            .map_err(|e| Error::new(Code::Internal, e.to_string()))?
    }
}

pub(crate) async fn stat(call: Call, request: StatRequest) -> Result<StatResponse, Error> {
    let path = call.resolve(&request.path)?;
    let entry = call.blocking(move |users| ops::stat(&path, users)).await?;
    Ok(StatResponse { entry: Some(entry) })
}

pub(crate) async fn list_dir(
    call: Call,
    request: ListDirRequest,
) -> Result<ListDirResponse, Error> {
    let path = call.resolve(&request.path)?;
    let entries = call
        .blocking(move |users| list::list(&path, request.depth, users))
        .await?;
    Ok(ListDirResponse { entries })
}

pub(crate) async fn make_dir(
    call: Call,
    request: MakeDirRequest,
) -> Result<MakeDirResponse, Error> {
    let path = call.resolve(&request.path)?;
    let user = call.user.clone();
    let entry = call
        .blocking(move |users| ops::make_dir(&path, &user, users))
        .await?;
    Ok(MakeDirResponse { entry: Some(entry) })
}

pub(crate) async fn move_entry(call: Call, request: MoveRequest) -> Result<MoveResponse, Error> {
    let source = call.resolve(&request.source)?;
    let destination = call.resolve(&request.destination)?;
    let user = call.user.clone();
    let entry = call
        .blocking(move |users| ops::rename(&source, &destination, &user, users))
        .await?;
    Ok(MoveResponse { entry: Some(entry) })
}

pub(crate) async fn remove(call: Call, request: RemoveRequest) -> Result<RemoveResponse, Error> {
    let path = call.resolve(&request.path)?;
    call.blocking(move |_| ops::remove(&path)).await?;
    Ok(RemoveResponse {})
}

pub(crate) async fn watch_dir(
    call: Call,
    request: WatchDirRequest,
) -> Result<Events<WatchDirResponse>, Error> {
    let spec = WatchSpec {
        path: call.resolve(&request.path)?,
        recursive: request.recursive,
        include_entry: request.include_entry,
        allow_network: request.allow_network_mounts,
    };
    let watch = arm(&call, spec).await?;
    let start = watch_dir_response::Event::Start(watch_dir_response::StartEvent {});
    let start = stream::iter([Ok(response(start))]);
    Ok(start
        .chain(follow(watch, call.keepalive, call.deadline))
        .boxed())
}

fn follow(
    watch: Watch,
    keepalive: Duration,
    deadline: Option<Instant>,
) -> impl stream::Stream<Item = Result<WatchDirResponse, Error>> + Send {
    stream::unfold(Some(watch), move |watch| async move {
        let mut watch = watch?;
        let over = async {
            match deadline {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            // A stream whose time is over ends even if events never pause.
            biased;
            () = over => return Some((Err(deadline_exceeded()), None)),
            event = watch.next() => match event {
                Ok(event) => watch_dir_response::Event::Filesystem(event),
                Err(error) => return Some((Err(error), None)),
            },
            () = sleep(keepalive) => {
                watch_dir_response::Event::Keepalive(watch_dir_response::KeepAlive {})
            }
        };
        Some((Ok(response(event)), Some(watch)))
    })
}

fn response(event: watch_dir_response::Event) -> WatchDirResponse {
    WatchDirResponse { event: Some(event) }
}

async fn arm(call: &Call, spec: WatchSpec) -> Result<Watch, Error> {
    // The pool's threads know the runtime, which the descriptor registers with.
    call.blocking(move |_| Watch::arm(spec)).await
}

pub(crate) async fn create_watcher(
    call: Call,
    request: CreateWatcherRequest,
) -> Result<CreateWatcherResponse, Error> {
    let spec = WatchSpec {
        path: call.resolve(&request.path)?,
        recursive: request.recursive,
        include_entry: request.include_entry,
        allow_network: request.allow_network_mounts,
    };
    let watch = arm(&call, spec).await?;
    Ok(CreateWatcherResponse {
        watcher_id: call.agent.watchers.add(&call.agent.tasks, watch),
    })
}

pub(crate) async fn get_watcher_events(
    call: Call,
    request: GetWatcherEventsRequest,
) -> Result<GetWatcherEventsResponse, Error> {
    Ok(GetWatcherEventsResponse {
        events: call.agent.watchers.take(&request.watcher_id)?,
    })
}

pub(crate) async fn remove_watcher(
    call: Call,
    request: RemoveWatcherRequest,
) -> Result<RemoveWatcherResponse, Error> {
    call.agent.watchers.remove(&request.watcher_id)?;
    Ok(RemoveWatcherResponse {})
}
