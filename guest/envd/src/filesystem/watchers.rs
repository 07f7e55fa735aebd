//! Watches that collect events until someone fetches them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use rand::Rng;
use warren_connect::filesystem::FilesystemEvent;
use warren_connect::{Code, Error};
use warren_service::{CancellationToken, Tasks};

use super::watch::Watch;
use crate::agent::lock;

/// Events that a watcher keeps before it fails.
const MAX_EVENTS: usize = 1_000_000;
/// Characters after the `w` of an id.
const ID_LEN: usize = 20;

/// All collecting watchers by id.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Mutex<HashMap<String, Watcher>>);

#[derive(Debug)]
struct Watcher {
    collected: Arc<Mutex<Collected>>,
    stop: CancellationToken,
}

#[derive(Debug, Default)]
struct Collected {
    events: Vec<FilesystemEvent>,
    failure: Option<Error>,
}

impl Watchers {
    /// Starts to collect and returns the id.
    pub(crate) fn add(&self, tasks: &Tasks, mut watch: Watch) -> String {
        let id = new_id();
        let collected = Arc::new(Mutex::new(Collected::default()));
        let stop = tasks.stop_token().child_token();
        let watcher = Watcher {
            collected: Arc::clone(&collected),
            stop: stop.clone(),
        };
        lock(&self.0).insert(id.clone(), watcher);
        tasks.spawn(async move {
            loop {
                let next = tokio::select! {
                    () = stop.cancelled() => return,
                    next = watch.next() => next,
                };
                let mut collected = lock(&collected);
                match next {
                    Ok(event) if collected.events.len() < MAX_EVENTS => {
                        collected.events.push(event);
                        continue;
                    }
                    Ok(_) => {
                        let message = format!("watcher error: more than {MAX_EVENTS} events");
                        collected.failure = Some(Error::new(Code::Internal, message));
                    }
                    Err(error) => collected.failure = Some(error),
                }
                return;
            }
        });
        id
    }

    /// Returns and clears what a watcher has collected.
    pub(crate) fn take(&self, id: &str) -> Result<Vec<FilesystemEvent>, Error> {
        let watchers = lock(&self.0);
        let watcher = watchers.get(id).ok_or_else(|| missing(id))?;
        let mut collected = lock(&watcher.collected);
        match &collected.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(std::mem::take(&mut collected.events)),
        }
    }

    /// Ends a watcher.
    pub(crate) fn remove(&self, id: &str) -> Result<(), Error> {
        let watcher = lock(&self.0).remove(id).ok_or_else(|| missing(id))?;
        watcher.stop.cancel();
        Ok(())
    }
}

fn missing(id: &str) -> Error {
    Error::new(Code::NotFound, format!("watcher with id {id} not found"))
}

fn new_id() -> String {
    const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    let mut id = String::from("w");
    for _ in 0..ID_LEN {
        id.push(char::from(ALPHABET[rng.random_range(0..ALPHABET.len())]));
    }
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_form_that_clients_expect() {
        let id = new_id();
        assert_eq!(id.len(), 1 + ID_LEN);
        assert!(id.starts_with('w'));
        assert!(
            id.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        );
        assert_ne!(id, new_id());
    }
}
