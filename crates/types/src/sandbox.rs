//! A sandbox's life as a pure state machine.
//!
//! ```text
//!            Started            EndRequested / Died
//! Starting ───────────► Running ───────────────────► Ending ──► Ended
//!     │                   │  ▲                         ▲  Cleaned
//!     │ StartFailed       │  │ Resumed                 │
//!     └──────────────►────┼──┼─────────────────────────┤
//!                  Paused ▼  │                         │
//!                        Paused ───────────────────────┘ EndRequested / Died
//! ```

use serde::{Deserialize, Serialize};

/// Where a sandbox is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// Being made; invisible to clients.
    Starting,
    /// Usable.
    Running,
    /// Set aside with its memory or its files.
    Paused,
    /// Being taken down; already invisible to clients.
    Ending,
    /// Gone; only its record is left.
    Ended,
}

/// What can happen to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxEvent {
    /// The agent answered and was initialised.
    Started,
    /// Some step of the start failed.
    StartFailed,
    /// A user, the clock or the operator asked for the end.
    EndRequested,
    /// Its first process died.
    Died,
    /// It was set aside.
    Paused,
    /// It was taken up again.
    Resumed,
    /// Everything it had on the host is released.
    Cleaned,
}

/// A transition that the state machine does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sandbox that is {state:?} can't take the event {event:?}")]
pub struct InvalidTransition {
    /// The state it was in.
    pub state: SandboxState,
    /// The event that does not fit.
    pub event: SandboxEvent,
}

impl SandboxState {
    /// The state after `event`.
    ///
    /// # Errors
    /// [`InvalidTransition`] when the event can't happen in this state. A request to end
    /// what is ending already is valid and changes nothing.
    pub fn next(self, event: SandboxEvent) -> Result<Self, InvalidTransition> {
        use SandboxEvent as E;
        use SandboxState as S;
        match (self, event) {
            (S::Starting, E::Started) | (S::Paused, E::Resumed) => Ok(S::Running),
            (S::Running, E::Paused) => Ok(S::Paused),
            (S::Starting, E::StartFailed)
            | (S::Starting | S::Running | S::Paused | S::Ending, E::EndRequested | E::Died) => {
                Ok(S::Ending)
            }
            (S::Ending, E::Cleaned) => Ok(S::Ended),
            (state, event) => Err(InvalidTransition { state, event }),
        }
    }
}

/// Why a sandbox ended. Recorded once, shown everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// A client killed it.
    Killed,
    /// Its time ran out.
    TimedOut,
    /// The kernel killed its first process for lack of memory.
    OutOfMemory,
    /// Its first process died by itself.
    Crashed,
    /// The machine restarted under it.
    HostRestarted,
    /// The operator or the node took it down (shutdown, no room).
    Evicted,
    /// It never came up.
    StartFailed,
}

impl EndReason {
    /// The reason as the stable word that logs, events and the database use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::TimedOut => "timed_out",
            Self::OutOfMemory => "out_of_memory",
            Self::Crashed => "crashed",
            Self::HostRestarted => "host_restarted",
            Self::Evicted => "evicted",
            Self::StartFailed => "start_failed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SandboxEvent as E, SandboxState as S};

    #[test]
    fn the_normal_life() {
        let mut state = S::Starting;
        for event in [
            E::Started,
            E::Paused,
            E::Resumed,
            E::EndRequested,
            E::Cleaned,
        ] {
            state = state.next(event).unwrap();
        }
        assert_eq!(state, S::Ended);
    }

    #[test]
    fn nothing_leaves_the_end_and_ending_twice_is_harmless() {
        for event in [
            E::Started,
            E::EndRequested,
            E::Died,
            E::Paused,
            E::Resumed,
            E::Cleaned,
        ] {
            assert!(S::Ended.next(event).is_err());
        }
        assert_eq!(S::Ending.next(E::EndRequested), Ok(S::Ending));
    }

    #[test]
    fn every_living_state_can_be_ended() {
        for state in [S::Starting, S::Running, S::Paused] {
            assert_eq!(state.next(E::EndRequested), Ok(S::Ending));
            assert_eq!(state.next(E::Died), Ok(S::Ending));
        }
    }
}
