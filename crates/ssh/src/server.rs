//! The accept loop and its limits.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::server::{Config, run_stream};
use russh::{MethodKind, MethodSet, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};
use warren_service::{CancellationToken, Tasks};
use warren_types::TeamId;

use crate::connection::{Connection, Shared};
use crate::gate::{Gated, WINDOW};
use crate::host::Host;
use crate::key::HostKey;

/// Pause after a failed accept: the usual cause, too many open files, does not pass at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Keepalives without an answer after which a client is gone.
const KEEPALIVES: usize = 4;
/// A client that neither sends nor takes anything for so long is gone.
const INACTIVITY: Duration = Duration::from_secs(300);
/// Tries of one connection, counting keys that are not known.
const AUTH_ATTEMPTS: usize = 12;
/// Least time of a refusal, so that it tells nothing.
const REJECTION: Duration = Duration::from_millis(150);
/// How long connections get to end when the server stops.
const STOP: Duration = Duration::from_secs(10);

/// Settings of the server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// What the server proves its identity with.
    pub host_key: HostKey,
    /// Connections at a time; more are closed at once.
    pub max_connections: usize,
    /// Those of them from one address on which nobody is known yet.
    pub max_unknown: usize,
    /// How long a client gets to say who it is.
    pub login_time: Duration,
}

impl ServerConfig {
    /// 1024 connections; 32 unknown ones from an address; a minute to sign in.
    #[must_use]
    pub fn new(host_key: HostKey) -> Self {
        Self {
            host_key,
            max_connections: 1024,
            max_unknown: 32,
            login_time: Duration::from_secs(60),
        }
    }
}

/// Counts by key; shared by its clones.
#[derive(Debug)]
pub(crate) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// A place in a count; dropping it gives it back.
pub(crate) struct Place(Option<Box<dyn FnOnce() + Send + Sync>>);

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(give_back) = self.0.take() {
            give_back();
        }
    }
}

impl<K: Hash + Eq + Clone + Send + Sync + 'static> Counts<K> {
    /// Takes a place; `None` if as many as `limit` are taken.
    pub(crate) fn take(&self, key: &K, limit: usize) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(key.clone()).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        let (counts, key) = (Arc::clone(&self.0), key.clone());
        Some(Place(Some(Box::new(move || {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = counts.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&key);
                }
            }
        }))))
    }
}

fn library_config(config: &ServerConfig) -> Config {
    let methods = [MethodKind::PublicKey, MethodKind::Password];
    Config {
        server_id: SshId::Standard("SSH-2.0-Warren".into()),
        methods: MethodSet::from(methods.as_slice()),
        auth_rejection_time: REJECTION,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![config.host_key.0.clone()],
        window_size: WINDOW,
        max_auth_attempts: AUTH_ATTEMPTS,
        inactivity_timeout: Some(INACTIVITY),
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        nodelay: true,
        ..Config::default()
    }
}

/// Serves until `stop` is cancelled, then tells all clients and returns when they have gone.
pub async fn serve(
    listener: TcpListener,
    host: Arc<dyn Host>,
    stop: CancellationToken,
    config: ServerConfig,
) {
    let library = Arc::new(library_config(&config));
    let all = Counts::<()>::default();
    let unknown = Counts::<IpAddr>::default();
    let teams = Counts::<TeamId>::default();
    let tasks = Tasks::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "no SSH connection was accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(place) = all.take(&(), config.max_connections) else {
            debug!(%peer, "too many SSH connections");
            continue;
        };
        let Some(unknown) = unknown.take(&peer.ip(), config.max_unknown) else {
            debug!(%peer, "too many SSH connections that do not sign in");
            continue;
        };
        let client = Client {
            host: Arc::clone(&host),
            library: Arc::clone(&library),
            login_time: config.login_time,
            stop: stop.clone(),
            teams: teams.clone(),
        };
        tasks.spawn(async move {
            client.serve(stream, peer, unknown).await;
            drop(place);
        });
    }
    tasks.stop(STOP).await;
}

/// What it takes to serve a client.
struct Client {
    host: Arc<dyn Host>,
    library: Arc<Config>,
    login_time: Duration,
    stop: CancellationToken,
    teams: Counts<TeamId>,
}

impl Client {
    async fn serve(self, stream: TcpStream, peer: SocketAddr, unknown: Place) {
        // Without it small pieces are delayed, and still arrive.
        let _immediate = stream.set_nodelay(true);
        let own = stream.local_addr().ok();
        let ends = format!(
            "{} {} {} {}",
            peer.ip(),
            peer.port(),
            own.map_or_else(|| "0.0.0.0".to_owned(), |own| own.ip().to_string()),
            own.map_or(0, |own| own.port()),
        );
        let cut = CancellationToken::new();
        let tasks = Tasks::new();
        let shared = Shared::new(self.host, ends, cut.clone(), tasks.clone());
        let gated = Gated::new(stream, Arc::clone(&shared.undelivered), cut.clone());
        let connection = Connection::new(Arc::clone(&shared), unknown, self.teams);
        let begun = timeout(self.login_time, run_stream(self.library, gated, connection));
        let mut session = match begun.await {
            Ok(Ok(session)) => session,
            Ok(Err(error)) => {
                debug!(%peer, %error, "no SSH session");
                return;
            }
            Err(_) => return,
        };
        let sign_in = async {
            sleep(self.login_time).await;
            if shared.is_authenticated() {
                std::future::pending::<()>().await;
            }
        };
        let is_over = tokio::select! {
            result = &mut session => {
                if let Err(error) = result {
                    debug!(%peer, %error, "an SSH connection broke");
                }
                true
            }
            () = sign_in => {
                debug!(%peer, "nobody signed in");
                false
            }
            () = self.stop.cancelled() => {
                shared.leave("the server is stopping".to_owned()).await;
                false
            }
        };
        cut.cancel();
        if !is_over {
            // Its handler goes with it, which hangs up what its channels run.
            let _ended = timeout(STOP, &mut session).await;
        }
        shared.finish().await;
        tasks.stop(STOP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_key_and_given_back() {
        let counts = Counts::default();
        let first = counts.take(&"a", 2);
        let second = counts.take(&"a", 2);
        assert!(first.is_some() && second.is_some());
        assert!(counts.take(&"a", 2).is_none());
        assert!(counts.take(&"b", 2).is_some());
        drop(first);
        assert!(counts.take(&"a", 2).is_some());
        drop(second);
        assert!(counts.0.lock().unwrap().is_empty());
    }
}
