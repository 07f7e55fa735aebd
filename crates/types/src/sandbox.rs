//! A sandbox's life as a pure state machine.
//!
//! ```text
//!  Starting ──Started──► Running ◄──Captured── Snapshotting
//!                         │  ▲ └──SnapshotRequested──►┘
//!          PauseRequested ▼  │ PauseFailed
//!                        Pausing ──Paused──► Paused ◄──ResumeFailed── Resuming
//!                                               └──ResumeRequested──►┘  │
//!                        Running ◄──Resumed────────────────────────────┘
//!
//!  every living state ──EndRequested / Died──► Ending ──Cleaned──► Ended
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
    /// Running, but held for a moment while a copy of it is taken.
    Snapshotting,
    /// Being set aside.
    Pausing,
    /// Set aside with its memory or its files.
    Paused,
    /// Being taken up again; not usable yet.
    Resuming,
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
    /// A user or the clock asked to set it aside.
    PauseRequested,
    /// It was set aside.
    Paused,
    /// It could not be set aside and goes on.
    PauseFailed,
    /// A user or traffic asked to take it up again.
    ResumeRequested,
    /// It was taken up again.
    Resumed,
    /// It could not be taken up again and stays aside.
    ResumeFailed,
    /// A copy of it is wanted.
    SnapshotRequested,
    /// The copy was taken, or was not; it goes on either way.
    Captured,
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
            (S::Starting, E::Started)
            | (S::Resuming, E::Resumed)
            | (S::Pausing, E::PauseFailed)
            | (S::Snapshotting, E::Captured) => Ok(S::Running),
            (S::Running, E::PauseRequested) => Ok(S::Pausing),
            (S::Pausing, E::Paused) | (S::Resuming, E::ResumeFailed) => Ok(S::Paused),
            (S::Paused, E::ResumeRequested) => Ok(S::Resuming),
            (S::Running, E::SnapshotRequested) => Ok(S::Snapshotting),
            (S::Starting, E::StartFailed) => Ok(S::Ending),
            (S::Ending, E::Cleaned) => Ok(S::Ended),
            (state, E::EndRequested | E::Died) if state != S::Ended => Ok(S::Ending),
            (state, event) => Err(InvalidTransition { state, event }),
        }
    }

    /// Whether clients see it as running, where they see only running and paused.
    #[must_use]
    pub fn shows_as_running(self) -> bool {
        matches!(self, Self::Running | Self::Snapshotting)
    }

    /// The state in the words that messages to clients use.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Snapshotting => "snapshotting",
            Self::Pausing => "pausing",
            Self::Paused => "paused",
            Self::Resuming => "resuming",
            Self::Ending => "killing",
            Self::Ended => "killed",
        }
    }
}

/// What happens when a sandbox's time runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnTimeout {
    /// It ends.
    #[default]
    End,
    /// It is set aside.
    Pause {
        /// Whether its memory is kept.
        memory: bool,
    },
}

/// What a capture of a sandbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureKind {
    /// Its files.
    Filesystem,
    /// Its files, and its processes with their memory.
    Memory,
}

impl CaptureKind {
    /// The kind as the stable word that the database uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filesystem => "filesystem",
            Self::Memory => "memory",
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

    /// The reason that a stable word stands for.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [
            Self::Killed,
            Self::TimedOut,
            Self::OutOfMemory,
            Self::Crashed,
            Self::HostRestarted,
            Self::Evicted,
            Self::StartFailed,
        ]
        .into_iter()
        .find(|reason| reason.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::{SandboxEvent as E, SandboxState as S};

    const EVENTS: [E; 13] = [
        E::Started,
        E::StartFailed,
        E::EndRequested,
        E::Died,
        E::PauseRequested,
        E::Paused,
        E::PauseFailed,
        E::ResumeRequested,
        E::Resumed,
        E::ResumeFailed,
        E::SnapshotRequested,
        E::Captured,
        E::Cleaned,
    ];

    fn after(state: S, events: &[E]) -> S {
        events
            .iter()
            .fold(state, |state, e| state.next(*e).unwrap())
    }

    #[test]
    fn the_normal_life() {
        let life = [
            E::Started,
            E::SnapshotRequested,
            E::Captured,
            E::PauseRequested,
            E::Paused,
            E::ResumeRequested,
            E::Resumed,
            E::EndRequested,
            E::Cleaned,
        ];
        assert_eq!(after(S::Starting, &life), S::Ended);
    }

    #[test]
    fn what_fails_leaves_it_as_it_was() {
        let failed = [E::PauseRequested, E::PauseFailed];
        assert_eq!(after(S::Running, &failed), S::Running);
        let failed = [E::ResumeRequested, E::ResumeFailed];
        assert_eq!(after(S::Paused, &failed), S::Paused);
    }

    #[test]
    fn nothing_leaves_the_end_and_ending_twice_is_harmless() {
        for event in EVENTS {
            assert!(S::Ended.next(event).is_err());
        }
        assert_eq!(S::Ending.next(E::EndRequested), Ok(S::Ending));
    }

    #[test]
    fn every_living_state_can_be_ended() {
        for state in [
            S::Starting,
            S::Running,
            S::Snapshotting,
            S::Pausing,
            S::Paused,
            S::Resuming,
        ] {
            assert_eq!(state.next(E::EndRequested), Ok(S::Ending));
            assert_eq!(state.next(E::Died), Ok(S::Ending));
        }
    }

    #[test]
    fn a_transition_is_asked_for_before_it_is_done() {
        for state in [S::Running, S::Snapshotting, S::Paused] {
            assert!(state.next(E::Paused).is_err());
            assert!(state.next(E::Resumed).is_err());
        }
        assert!(S::Snapshotting.next(E::PauseRequested).is_err());
    }
}
