//! The channels of a connection: what they asked for, and who serves them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use russh::server::Msg;
use russh::{ChannelId, ChannelWriteHalf, Sig};
use tokio::sync::{mpsc, watch};
use warren_connect::process::Pty;
use warren_service::CancellationToken;

use crate::command::Preparation;
use crate::gate::{Held, Undelivered};

/// Channels of one connection.
pub(crate) const MAX_CHANNELS: usize = 128;
/// Signals of a client that wait to be sent on; more are dropped.
const MAX_SIGNALS: usize = 16;

/// What a client sends on a channel.
#[derive(Debug)]
pub(crate) enum Input {
    Data(Held),
    /// Nothing follows.
    Eof,
}

/// The client's end of a channel that is served. Dropping it hangs up.
#[derive(Debug)]
pub(crate) struct Line {
    inputs: mpsc::UnboundedSender<Input>,
    sizes: watch::Sender<Option<Pty>>,
    signals: mpsc::Sender<Sig>,
    hung_up: CancellationToken,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.hung_up.cancel();
    }
}

/// The end of whoever serves it.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Bounded by what a connection may leave undelivered.
    pub(crate) inputs: mpsc::UnboundedReceiver<Input>,
    pub(crate) sizes: watch::Receiver<Option<Pty>>,
    pub(crate) signals: mpsc::Receiver<Sig>,
    /// Cancelled when the client closes the channel or goes away.
    pub(crate) hung_up: CancellationToken,
}

fn line() -> (Line, Feed) {
    let (inputs, from_inputs) = mpsc::unbounded_channel();
    let (sizes, from_sizes) = watch::channel(None);
    let (signals, from_signals) = mpsc::channel(MAX_SIGNALS);
    let hung_up = CancellationToken::new();
    let feed = Feed {
        inputs: from_inputs,
        sizes: from_sizes,
        signals: from_signals,
        hung_up: hung_up.clone(),
    };
    let line = Line {
        inputs,
        sizes,
        signals,
        hung_up,
    };
    (line, feed)
}

/// A session channel that runs nothing yet.
pub(crate) struct Waiting {
    pub(crate) write: ChannelWriteHalf<Msg>,
    pub(crate) preparation: Preparation,
}

enum State {
    Waiting(Waiting),
    Served {
        line: Line,
        /// Until it is taken: the client may confirm a channel, and send on it, before
        /// whoever opened it is told.
        feed: Option<Feed>,
    },
}

/// All of a connection. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Channels(Arc<Mutex<HashMap<ChannelId, State>>>);

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").finish_non_exhaustive()
    }
}

impl Channels {
    fn with<T>(&self, work: impl FnOnce(&mut HashMap<ChannelId, State>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_full(&self) -> bool {
        self.with(|all| all.len() >= MAX_CHANNELS)
    }

    /// A session channel was opened.
    pub(crate) fn wait(&self, write: ChannelWriteHalf<Msg>) {
        let waiting = Waiting {
            preparation: Preparation::default(),
            write,
        };
        self.with(|all| all.insert(waiting.write.id(), State::Waiting(waiting)));
    }

    /// Changes what a session channel asked for. `None` if it runs something already.
    pub(crate) fn prepare<T>(
        &self,
        id: ChannelId,
        change: impl FnOnce(&mut Preparation) -> T,
    ) -> Option<T> {
        self.with(|all| match all.get_mut(&id) {
            Some(State::Waiting(waiting)) => Some(change(&mut waiting.preparation)),
            _ => None,
        })
    }

    /// Has a session channel served. `None` if it is already.
    pub(crate) fn begin(&self, id: ChannelId) -> Option<(Waiting, Feed)> {
        self.with(|all| {
            let State::Waiting(waiting) = all.remove(&id)? else {
                return None;
            };
            let (line, feed) = line();
            all.insert(id, State::Served { line, feed: None });
            Some((waiting, feed))
        })
    }

    /// Has a channel served, whether or not [`Self::confirm`] came first.
    pub(crate) fn serve(&self, id: ChannelId) -> Feed {
        self.with(|all| {
            if let Some(State::Served { feed, .. }) = all.get_mut(&id)
                && let Some(feed) = feed.take()
            {
                return feed;
            }
            let (line, feed) = line();
            all.insert(id, State::Served { line, feed: None });
            feed
        })
    }

    /// A channel that this server opened was confirmed by the client.
    pub(crate) fn confirm(&self, id: ChannelId) {
        self.with(|all| {
            all.entry(id).or_insert_with(|| {
                let (line, feed) = line();
                let feed = Some(feed);
                State::Served { line, feed }
            });
        });
    }

    fn served<T>(&self, id: ChannelId, tell: impl FnOnce(&Line) -> T) -> Option<T> {
        self.with(|all| match all.get(&id) {
            Some(State::Served { line, .. }) => Some(tell(line)),
            _ => None,
        })
    }

    /// Passes data on. What nobody takes is dropped.
    pub(crate) fn data(&self, id: ChannelId, bytes: &[u8], undelivered: &Arc<Undelivered>) {
        let held = undelivered.hold(bytes);
        self.served(id, |line| line.inputs.send(Input::Data(held)).ok());
    }

    pub(crate) fn eof(&self, id: ChannelId) {
        self.served(id, |line| line.inputs.send(Input::Eof).ok());
    }

    pub(crate) fn resize(&self, id: ChannelId, terminal: Pty) {
        self.served(id, |line| line.sizes.send_replace(Some(terminal)));
    }

    pub(crate) fn signal(&self, id: ChannelId, signal: Sig) {
        self.served(id, |line| line.signals.try_send(signal).ok());
    }

    /// A channel has gone, from either side.
    pub(crate) fn remove(&self, id: ChannelId) {
        self.with(|all| all.remove(&id));
    }

    /// The client has gone.
    pub(crate) fn clear(&self) {
        self.with(HashMap::clear);
    }
}
