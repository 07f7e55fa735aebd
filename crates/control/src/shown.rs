//! What clients are shown of a sandbox. Its record is written once a change is done; the node
//! knows of a change that is under way, and only while it lives: after a crash there is none.

use std::collections::HashMap;

use warren_cluster::{NodeError, SandboxView};
use warren_store::{PauseRecord, SandboxRecord};
use warren_types::{SandboxId, SandboxState};

use crate::Control;
use crate::create::micros;

impl Control {
    /// The record of a living sandbox as it is right now; `None` if it is being taken down.
    pub(crate) async fn now(&self, record: SandboxRecord) -> Option<SandboxRecord> {
        match self.node.get(&record.id).await {
            Ok(view) => as_seen(record, &view),
            Err(NodeError::Ending(_)) => None,
            // Of what it does not know, its last word decides, which may be on its way.
            Err(_) => Some(record),
        }
    }

    /// The same of many records.
    pub(crate) async fn all_now(&self, records: Vec<SandboxRecord>) -> Vec<SandboxRecord> {
        let views = self.node.list().await;
        let views: HashMap<&SandboxId, &SandboxView> =
            views.iter().map(|view| (&view.id, view)).collect();
        let mut shown = Vec::with_capacity(records.len());
        for record in records {
            let seen = match views.get(&record.id) {
                Some(view) => as_seen(record, view),
                None => self.now(record).await,
            };
            shown.extend(seen);
        }
        shown
    }
}

fn as_seen(mut record: SandboxRecord, view: &SandboxView) -> Option<SandboxRecord> {
    use SandboxState as S;
    match view.state {
        S::Ending | S::Ended => return None,
        S::Pausing | S::Paused | S::Resuming => {
            record.state = S::Paused;
            record.end_at = micros(view.end_at);
            record.pause = view.pause.as_ref().map(|pause| PauseRecord {
                memory: pause.memory,
                note: pause.note.clone(),
                agent_silent: pause.agent_silent,
            });
        }
        S::Running | S::Snapshotting if view.revision > record.revision => {
            record.state = S::Running;
            record.started_at = micros(view.started_at);
            record.end_at = micros(view.end_at);
            record.pause = None;
        }
        S::Starting | S::Running | S::Snapshotting => {}
    }
    Some(record)
}
