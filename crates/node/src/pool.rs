//! Warm sandboxes: booted ahead, waiting for a create. One keeper task per build holds
//! their number near the recent demand and lets go of them when memory runs short.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use warren_cluster::BuildImage;
use warren_runtime::{Runtime, Sandbox};
use warren_service::{CancellationToken, Chain, Tasks};
use warren_types::BuildId;

use crate::config::WarmConfig;
use crate::memory;
use crate::sandbox::{Booted, Booter};

/// How often a keeper looks at demand and memory without being woken.
const TICK: Duration = Duration::from_secs(2);
/// Pause after a failed boot; doubled each time up to the limit.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_LIMIT: Duration = Duration::from_secs(30);

/// Sandboxes with a start command cost more while they wait: their floor is this part.
const STARTED_PART: usize = 4;

/// How many sandboxes of a build wait for a create at least.
fn floor(config: &WarmConfig, image: &BuildImage) -> usize {
    match image.start {
        Some(_) => config.floor.div_ceil(STARTED_PART),
        None => config.floor,
    }
}

/// How many sandboxes a build should have ready.
fn target(
    config: &WarmConfig,
    floor: usize,
    pinned: bool,
    recent: usize,
    available_pct: u8,
) -> usize {
    if available_pct < config.min_available_pct || config.floor == 0 {
        return 0;
    }
    let floor = if pinned { floor } else { 0 };
    recent.clamp(floor, config.ceiling.max(floor))
}

#[derive(Debug)]
struct Shelf<S: Sandbox> {
    image: BuildImage,
    state: Mutex<ShelfState<S>>,
    wake: Notify,
    stop: CancellationToken,
}

#[derive(Debug)]
struct ShelfState<S: Sandbox> {
    ready: VecDeque<Booted<S>>,
    takes: VecDeque<Instant>,
    pinned: bool,
}

impl<S: Sandbox> Shelf<S> {
    fn lock(&self) -> MutexGuard<'_, ShelfState<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Warm sandboxes of every build.
#[derive(Debug)]
pub(crate) struct Pool<R: Runtime> {
    shelves: Mutex<HashMap<BuildId, Arc<Shelf<R::Sandbox>>>>,
    booter: Arc<Booter<R>>,
    config: WarmConfig,
    tasks: Tasks,
}

impl<R: Runtime> Pool<R> {
    pub(crate) fn new(booter: Arc<Booter<R>>, config: WarmConfig) -> Self {
        Self {
            shelves: Mutex::default(),
            booter,
            config,
            tasks: Tasks::new(),
        }
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<BuildId, Arc<Shelf<R::Sandbox>>>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelf(&self, image: &BuildImage) -> Arc<Shelf<R::Sandbox>> {
        let mut shelves = self.shelves();
        if let Some(shelf) = shelves.get(&image.build_id) {
            return Arc::clone(shelf);
        }
        let shelf = Arc::new(Shelf {
            image: image.clone(),
            state: Mutex::new(ShelfState {
                ready: VecDeque::new(),
                takes: VecDeque::new(),
                pinned: false,
            }),
            wake: Notify::new(),
            stop: self.tasks.stop_token().child_token(),
        });
        shelves.insert(image.build_id, Arc::clone(&shelf));
        let (keeper, booter, config) = (Arc::clone(&shelf), Arc::clone(&self.booter), self.config);
        self.tasks
            .spawn(async move { keep(&keeper, &booter, config).await });
        shelf
    }

    /// Takes a warm sandbox of `image` if there is one, and counts as demand either way.
    pub(crate) fn take(&self, image: &BuildImage) -> Option<Booted<R::Sandbox>> {
        if self.config.floor == 0 || self.tasks.stop_token().is_cancelled() {
            return None;
        }
        let shelf = self.shelf(image);
        let taken = {
            let mut state = shelf.lock();
            state.takes.push_back(Instant::now());
            state.ready.pop_front()
        };
        shelf.wake.notify_one();
        taken
    }

    /// Keeps a floor of warm sandboxes for exactly these builds.
    pub(crate) fn pin(&self, images: &[BuildImage]) {
        if self.config.floor == 0 {
            return;
        }
        for shelf in self.shelves().values() {
            shelf.lock().pinned = images
                .iter()
                .any(|image| image.build_id == shelf.image.build_id);
            shelf.wake.notify_one();
        }
        for image in images {
            let shelf = self.shelf(image);
            shelf.lock().pinned = true;
            shelf.wake.notify_one();
        }
    }

    /// How many are ready.
    pub(crate) fn len(&self) -> usize {
        self.shelves()
            .values()
            .map(|shelf| shelf.lock().ready.len())
            .sum()
    }

    /// Stops refilling and destroys what is ready.
    pub(crate) async fn stop(&self, limit: Duration) {
        self.tasks.stop(limit).await;
        let shelves: Vec<_> = self.shelves().drain().map(|(_, shelf)| shelf).collect();
        for shelf in shelves {
            let ready = std::mem::take(&mut shelf.lock().ready);
            for sandbox in ready {
                sandbox.discard().await;
            }
        }
    }
}

/// Keeps one build's shelf at its target until told to stop.
async fn keep<R: Runtime>(shelf: &Shelf<R::Sandbox>, booter: &Booter<R>, config: WarmConfig) {
    let mut backoff = BACKOFF;
    while !shelf.stop.is_cancelled() {
        // An unreadable figure must not empty the pool: only a known shortage does.
        let available = memory::available_pct().unwrap_or(100);
        let (ready, wanted, asked) = {
            let mut state = shelf.lock();
            let oldest = Instant::now().checked_sub(config.window);
            while state
                .takes
                .front()
                .is_some_and(|take| oldest.is_some_and(|oldest| *take < oldest))
            {
                state.takes.pop_front();
            }
            (
                state.ready.len(),
                target(
                    &config,
                    floor(&config, &shelf.image),
                    state.pinned,
                    state.takes.len(),
                    available,
                ),
                state.pinned || !state.takes.is_empty(),
            )
        };
        if ready < wanted {
            let boot = booter.boot_warm(&shelf.image);
            // Dropping an unfinished boot undoes it, so stopping may cut in.
            let booted = tokio::select! {
                () = shelf.stop.cancelled() => return,
                booted = boot => booted,
            };
            match booted {
                Ok(booted) => {
                    backoff = BACKOFF;
                    shelf.lock().ready.push_back(booted);
                }
                Err(error) => {
                    tracing::error!(build_id = %shelf.image.build_id, error = %Chain(&error),
                        "could not boot a warm sandbox");
                    tokio::select! {
                        () = shelf.stop.cancelled() => return,
                        () = tokio::time::sleep(backoff) => {}
                    }
                    backoff = (backoff * 2).min(BACKOFF_LIMIT);
                }
            }
            continue;
        }
        let surplus = if ready > wanted {
            shelf.lock().ready.pop_back()
        } else {
            None
        };
        if let Some(sandbox) = surplus {
            sandbox.discard().await;
            continue;
        }
        if wanted == 0 && !asked {
            booter.forget_ready(shelf.image.build_id).await;
        }
        tokio::select! {
            () = shelf.stop.cancelled() => return,
            () = shelf.wake.notified() => {}
            () = tokio::time::sleep(TICK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_follows_demand_between_floor_and_ceiling() {
        let config = WarmConfig {
            floor: 4,
            ceiling: 10,
            min_available_pct: 10,
            ..WarmConfig::default()
        };
        assert_eq!(target(&config, config.floor, true, 0, 50), 4);
        assert_eq!(target(&config, config.floor, true, 7, 50), 7);
        assert_eq!(target(&config, config.floor, true, 70, 50), 10);
        assert_eq!(target(&config, config.floor, false, 0, 50), 0);
        assert_eq!(target(&config, config.floor, false, 3, 50), 3);
        assert_eq!(
            target(&config, config.floor, true, 7, 9),
            0,
            "memory is short"
        );
        let off = WarmConfig { floor: 0, ..config };
        assert_eq!(target(&off, off.floor, true, 7, 50), 0);
    }
}
