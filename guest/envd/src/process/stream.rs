//! The events of a process as one connection sees them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use warren_connect::Error;
use warren_connect::process::ProcessEvent;
use warren_connect::process::process_event::data_event::Output;
use warren_connect::process::process_event::{DataEvent, EndEvent, Event, KeepAlive, StartEvent};

use super::supervise::Process;
use crate::call::deadline_exceeded;

/// Whose deadline a stream carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// None.
    Never,
    /// The process's, which its supervisor enforces.
    Process,
    /// The stream's own.
    Stream(Instant),
}

enum Phase {
    Start,
    Follow,
    Done,
}

struct Follower {
    process: Arc<Process>,
    output: mpsc::Receiver<Output>,
    keepalive: Duration,
    deadline: Deadline,
    phase: Phase,
}

/// Follows a running process: start, data and keep-alives, end.
pub(crate) fn follow(
    process: Arc<Process>,
    output: mpsc::Receiver<Output>,
    keepalive: Duration,
    deadline: Deadline,
) -> impl Stream<Item = Result<ProcessEvent, Error>> + Send {
    let follower = Follower {
        process,
        output,
        keepalive,
        deadline,
        phase: Phase::Start,
    };
    stream::unfold(follower, |mut follower| async {
        let item = follower.next().await?;
        Some((item, follower))
    })
}

/// The stream of a process that has ended: start and end.
pub(crate) fn ended(
    pid: u32,
    end: EndEvent,
) -> impl Stream<Item = Result<ProcessEvent, Error>> + Send {
    stream::iter([Event::Start(StartEvent { pid }), Event::End(end)].map(|e| Ok(event(e))))
}

fn event(event: Event) -> ProcessEvent {
    ProcessEvent { event: Some(event) }
}

impl Follower {
    async fn next(&mut self) -> Option<Result<ProcessEvent, Error>> {
        match self.phase {
            Phase::Start => {
                self.phase = Phase::Follow;
                let pid = self.process.pid;
                Some(Ok(event(Event::Start(StartEvent { pid }))))
            }
            Phase::Follow => Some(self.follow().await),
            Phase::Done => None,
        }
    }

    async fn follow(&mut self) -> Result<ProcessEvent, Error> {
        let stream_deadline = async {
            match self.deadline {
                Deadline::Stream(at) => sleep_until(at).await,
                Deadline::Never | Deadline::Process => std::future::pending().await,
            }
        };
        tokio::select! {
            // A stream whose time is over ends even if output never pauses.
            biased;
            () = stream_deadline => {
                self.phase = Phase::Done;
                Err(deadline_exceeded())
            }
            output = self.output.recv() => match output {
                Some(output) => {
                    let output = Some(output);
                    Ok(event(Event::Data(DataEvent { output })))
                }
                None => self.finish(),
            },
            () = sleep(self.keepalive) => Ok(event(Event::Keepalive(KeepAlive {}))),
        }
    }

    fn finish(&mut self) -> Result<ProcessEvent, Error> {
        self.phase = Phase::Done;
        if self.deadline == Deadline::Process && self.process.expired() {
            return Err(deadline_exceeded());
        }
        match self.process.end() {
            Some(end) => Ok(event(Event::End(end))),
            // Only when the agent itself stops.
            None => Err(Error::new(
                warren_connect::Code::Unavailable,
                "the agent is stopping",
            )),
        }
    }
}
