//! Running processes, and the recently ended.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use warren_connect::process::process_event::EndEvent;
use warren_connect::process::process_selector::Selector;
use warren_connect::process::{ProcessInfo, ProcessSelector};
use warren_connect::{Code, Error};

use super::supervise::Process;
use crate::agent::lock;

/// How long the outcome of an ended process is kept.
const RETENTION: Duration = Duration::from_secs(30);

/// All processes started through the agent.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: HashMap<u32, Arc<Process>>,
    /// Oldest first.
    ended: VecDeque<Ended>,
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    pid: u32,
    tag: Option<String>,
    end: EndEvent,
}

/// What a selector names.
#[derive(Debug)]
pub(crate) enum Found {
    /// A running process.
    Live(Arc<Process>),
    /// A pid and its outcome.
    Ended(u32, EndEvent),
}

impl Inner {
    fn forget_old(&mut self) {
        while self
            .ended
            .front()
            .is_some_and(|e| e.at.elapsed() >= RETENTION)
        {
            self.ended.pop_front();
        }
    }
}

impl Registry {
    /// Adds a running process. An outcome kept under its pid or tag is forgotten.
    pub(crate) fn insert(&self, process: &Arc<Process>) {
        let mut inner = lock(&self.0);
        inner.forget_old();
        inner.ended.retain(|ended| {
            ended.pid != process.pid && (ended.tag.is_none() || ended.tag != process.tag)
        });
        inner.live.insert(process.pid, Arc::clone(process));
    }

    /// Turns a running process into an ended one.
    pub(crate) fn end(&self, process: &Process, end: EndEvent) {
        let mut inner = lock(&self.0);
        inner.forget_old();
        inner.live.remove(&process.pid);
        inner.ended.push_back(Ended {
            at: Instant::now(),
            pid: process.pid,
            tag: process.tag.clone(),
            end,
        });
    }

    /// The running processes.
    pub(crate) fn list(&self) -> Vec<ProcessInfo> {
        let inner = lock(&self.0);
        let info = |process: &Arc<Process>| ProcessInfo {
            config: Some(process.config.clone()),
            pid: process.pid,
            tag: process.tag.clone(),
        };
        inner.live.values().map(info).collect()
    }

    /// Finds a running process.
    pub(crate) fn live(&self, selector: Option<ProcessSelector>) -> Result<Arc<Process>, Error> {
        match self.find(selector)? {
            (Found::Live(process), _) => Ok(process),
            (Found::Ended(..), missing) => Err(missing),
        }
    }

    /// Finds a running or recently ended process.
    pub(crate) fn live_or_ended(&self, selector: Option<ProcessSelector>) -> Result<Found, Error> {
        self.find(selector).map(|(found, _)| found)
    }

    /// Finds a process, and the error to answer where an ended one does not count.
    fn find(&self, selector: Option<ProcessSelector>) -> Result<(Found, Error), Error> {
        let mut inner = lock(&self.0);
        inner.forget_old();
        let Some(selector) = selector.and_then(|s| s.selector) else {
            return Err(Error::new(Code::Unimplemented, "invalid input type <nil>"));
        };
        let (live, ended, text) = match &selector {
            Selector::Pid(pid) => (
                inner.live.get(pid),
                inner.ended.iter().rev().find(|e| e.pid == *pid),
                format!("process with pid {pid} not found"),
            ),
            Selector::Tag(tag) => (
                inner.live.values().find(|p| p.tag.as_ref() == Some(tag)),
                inner
                    .ended
                    .iter()
                    .rev()
                    .find(|e| e.tag.as_ref() == Some(tag)),
                format!("process with tag {tag} not found"),
            ),
        };
        let missing = Error::new(Code::NotFound, text);
        match (live, ended) {
            (Some(process), _) => Ok((Found::Live(Arc::clone(process)), missing)),
            (None, Some(ended)) => Ok((Found::Ended(ended.pid, ended.end.clone()), missing)),
            (None, None) => Err(missing),
        }
    }
}
