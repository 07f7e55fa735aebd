//! What is told of a sandbox's life to those outside.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::EndReason;

/// A kind of lifecycle event, by the name that clients and webhooks know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum EventKind {
    /// A sandbox was made.
    Created,
    /// Its time or its network settings were changed.
    Updated,
    /// It was set aside.
    Paused,
    /// It was taken up again.
    Resumed,
    /// A template was made from it.
    Checkpointed,
    /// It ended, for whatever reason.
    Killed,
}

/// A text that names no kind of event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {0:?}")]
pub struct UnknownEvent(pub String);

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Updated,
        Self::Paused,
        Self::Resumed,
        Self::Checkpointed,
        Self::Killed,
    ];

    /// The name that clients and webhooks know.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "sandbox.lifecycle.created",
            Self::Updated => "sandbox.lifecycle.updated",
            Self::Paused => "sandbox.lifecycle.paused",
            Self::Resumed => "sandbox.lifecycle.resumed",
            Self::Checkpointed => "sandbox.lifecycle.checkpointed",
            Self::Killed => "sandbox.lifecycle.killed",
        }
    }
}

impl FromStr for EventKind {
    type Err = UnknownEvent;

    fn from_str(text: &str) -> Result<Self, UnknownEvent> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| UnknownEvent(text.to_owned()))
    }
}

impl TryFrom<String> for EventKind {
    type Error = UnknownEvent;

    fn try_from(text: String) -> Result<Self, UnknownEvent> {
        text.parse()
    }
}

impl From<EventKind> for String {
    fn from(kind: EventKind) -> Self {
        kind.as_str().to_owned()
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxEnd {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub at: Timestamp,
    /// The most memory in bytes that it ever used in its last run, where that is the reason.
    pub memory_peak: Option<u64>,
}

impl SandboxEnd {
    /// An end of which no more is known than why and when.
    #[must_use]
    pub fn new(reason: EndReason, at: Timestamp) -> Self {
        Self {
            reason,
            at,
            memory_peak: None,
        }
    }

    /// What befell it, for people; continues a sentence such as "it".
    #[must_use]
    pub fn explain(&self) -> String {
        let text = match self.reason {
            EndReason::Killed => "was killed",
            EndReason::TimedOut => "reached its time-out",
            EndReason::OutOfMemory => "ran out of memory",
            EndReason::Crashed => "crashed: its first process died",
            EndReason::HostRestarted => "was lost when its machine restarted",
            EndReason::Evicted => "was taken down by the operator",
            EndReason::StartFailed => "did not start",
        };
        match self.memory_peak {
            Some(peak) if self.reason == EndReason::OutOfMemory => {
                format!("{text} (it used {} MiB)", peak.div_ceil(1024 * 1024))
            }
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_kinds() {
        for kind in EventKind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("sandbox.lifecycle.exploded".parse::<EventKind>().is_err());
    }

    #[test]
    fn the_peak_is_told_of_what_ran_out_of_memory_only() {
        let mut end = SandboxEnd::new(EndReason::OutOfMemory, Timestamp::UNIX_EPOCH);
        assert_eq!(end.explain(), "ran out of memory");
        end.memory_peak = Some(512 * 1024 * 1024 - 1);
        assert_eq!(end.explain(), "ran out of memory (it used 512 MiB)");
        end.reason = EndReason::Killed;
        assert_eq!(end.explain(), "was killed");
    }
}
