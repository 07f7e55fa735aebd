//! What is known of code while it runs in a kernel.

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::kernel::Message;
use crate::line::{self, Line, Meaning, Outcome};
use crate::log;

/// Code of ours after a cell: what the kernel publishes before the marker is the cell's.
#[derive(Clone)]
pub(crate) struct Fence {
    /// What it prints.
    pub marker: String,
    /// The cell's id.
    pub cell: String,
}

/// How a run ended.
pub(crate) struct Done {
    /// The id by which the kernel knows it.
    pub id: String,
    /// What the kernel says of it, without a failure that was told already.
    pub outcome: Outcome,
}

impl From<Run<'_>> for Done {
    fn from(run: Run<'_>) -> Self {
        let Run {
            id,
            told,
            mut outcome,
            ..
        } = run;
        if told {
            outcome.failure = None;
        }
        Self { id, outcome }
    }
}

/// What the loop of one run knows.
pub(crate) struct Run<'a> {
    /// The id by which the kernel knows it.
    id: String,
    /// Where its lines go; none for code of ours.
    pub client: Option<&'a mpsc::Sender<Bytes>>,
    /// A line that waits for room.
    pub pending: Option<Bytes>,
    /// Whether anything was heard of it.
    pub heard: bool,
    idle: bool,
    answered: bool,
    /// Whether an error was told.
    told: bool,
    /// What the answer says, which arrives on another channel than what is published.
    outcome: Outcome,
    /// Set for code that only marks the end of a cell's output.
    fence: Option<Fence>,
    /// How often it was interrupted.
    pub interrupts: u32,
    /// When it is to be interrupted.
    pub next_interrupt: Option<Instant>,
}

impl<'a> Run<'a> {
    /// What is known of code that was just sent.
    pub(crate) fn new(
        id: String,
        client: Option<&'a mpsc::Sender<Bytes>>,
        fence: Option<Fence>,
        next_interrupt: Option<Instant>,
    ) -> Self {
        Self {
            id,
            client,
            pending: None,
            heard: false,
            idle: false,
            answered: false,
            told: false,
            outcome: Outcome::default(),
            fence,
            interrupts: 0,
            next_interrupt,
        }
    }

    /// Whether everything about it was heard and passed on.
    pub(crate) fn is_over(&self) -> bool {
        let is_done = self.idle && self.answered && self.fence.is_none();
        is_done && self.pending.is_none()
    }

    fn emit(&mut self, line: &Line) {
        if self.client.is_some_and(|client| !client.is_closed()) {
            self.pending = Some(line.encode());
        }
    }

    /// Takes in what the kernel published.
    pub(crate) fn published(&mut self, message: &Message) {
        let parent = message.parent.as_deref();
        let mut is_own = parent == Some(&self.id);
        if let Some(fence) = &self.fence {
            if line::prints(message, &fence.marker) {
                self.fence = None;
                return;
            }
            is_own |= parent == Some(&fence.cell);
        }
        if !is_own {
            return;
        }
        self.heard = true;
        match line::read(message) {
            // The end of the cell before is known already.
            Ok(Meaning::Idle) => self.idle |= parent == Some(&self.id),
            // Nor is a fence counted.
            Ok(Meaning::Nothing) => {}
            Ok(Meaning::Line(Line::NumberOfExecutions { .. })) if self.fence.is_some() => {}
            // At most one error is told.
            Ok(Meaning::Line(Line::Error(_))) if self.told => {}
            Ok(Meaning::Line(line)) => {
                self.told |= matches!(line, Line::Error(_));
                self.emit(&line);
            }
            Err(error) => log::warn("a kernel's message", &error),
        }
    }

    /// Takes in an answer of the kernel.
    pub(crate) fn answered(&mut self, message: &Message) {
        if message.parent.as_deref() != Some(&self.id) {
            return;
        }
        self.heard = true;
        self.answered = true;
        match line::outcome(message) {
            Ok(outcome) => self.outcome = outcome,
            Err(error) => log::warn("a kernel's reply", &error),
        }
    }
}
