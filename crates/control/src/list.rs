//! Lists of sandboxes: filter, order, page.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use jiff::Timestamp;
use warren_store::SandboxRecord;
use warren_types::{SandboxState, TemplateId};

use crate::paging::{self, Cursor};
use crate::{Caller, Control, ListError, Sandbox, TemplateRef, metadata};

/// Order by start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Newest first.
    #[default]
    Descending,
    /// Oldest first.
    Ascending,
}

impl Order {
    fn letter(self) -> char {
        match self {
            Self::Descending => 'd',
            Self::Ascending => 'a',
        }
    }
}

/// Which sandboxes are wanted.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Running ones. Neither flag set means both.
    pub running: bool,
    /// Paused ones.
    pub paused: bool,
    /// The metadata filter as it stands in the query, decoded once.
    pub metadata: Option<String>,
    /// Order by start.
    pub order: Order,
    /// Only those that started then or later.
    pub started_after: Option<Timestamp>,
    /// Name or id of a template.
    pub template: Option<String>,
    /// Longest page.
    pub limit: Option<i64>,
    /// Cursor from the page before.
    pub cursor: Option<String>,
}

/// A page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Its elements.
    pub sandboxes: Vec<Sandbox>,
    /// Cursor of the next page, if there is one.
    pub next: Option<String>,
    /// Running ones on all pages, if running ones were asked for.
    pub total_running: Option<usize>,
}

/// What is left of a query when all names are looked up.
#[derive(Debug, Default)]
struct Filter {
    running: bool,
    paused: bool,
    metadata: BTreeMap<String, String>,
    started_after: Option<Timestamp>,
    template: Option<TemplateId>,
}

impl Filter {
    fn matches(&self, record: &SandboxRecord) -> bool {
        let state = match record.state {
            SandboxState::Paused => self.paused,
            _ => self.running,
        };
        state
            && self
                .started_after
                .is_none_or(|after| record.started_at >= after)
            && self
                .template
                .as_ref()
                .is_none_or(|id| record.template_id == *id)
            && metadata::matches(&self.metadata, &record.metadata)
    }
}

/// Newest first, ties by id; ascending is the exact reverse.
fn compare(order: Order, a: (Timestamp, &str), b: (Timestamp, &str)) -> Ordering {
    let descending = b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1));
    match order {
        Order::Descending => descending,
        Order::Ascending => descending.reverse(),
    }
}

fn key(record: &SandboxRecord) -> (Timestamp, &str) {
    (record.started_at, record.id.as_str())
}

/// Cuts the page behind `after` out of the whole list, and names its successor.
fn page(
    mut records: Vec<SandboxRecord>,
    order: Order,
    after: Option<&Cursor>,
    limit: usize,
) -> (Vec<SandboxRecord>, Option<String>) {
    records.sort_by(|a, b| compare(order, key(a), key(b)));
    if let Some(after) = after {
        let last = (after.at, after.id.as_str());
        records.retain(|record| compare(order, last, key(record)) == Ordering::Less);
    }
    let more = records.len() > limit;
    records.truncate(limit);
    let next = records.last().filter(|_| more).map(|record| {
        let (at, id) = key(record);
        Cursor {
            at,
            id: id.to_owned(),
            order: order.letter(),
        }
        .encode()
    });
    (records, next)
}

impl Control {
    /// A page of the caller's sandboxes.
    ///
    /// # Errors
    /// [`ListError`]
    pub async fn list(&self, caller: &Caller, query: ListQuery) -> Result<Page, ListError> {
        let limit = paging::limit(query.limit)?;
        let letter = query.order.letter();
        let after = query
            .cursor
            .as_deref()
            .map(|text| Cursor::decode(text, letter))
            .transpose()?;
        let both = !query.running && !query.paused;
        let mut filter = Filter {
            running: query.running || both,
            paused: query.paused || both,
            metadata: metadata::parse(query.metadata.as_deref().unwrap_or_default())?,
            started_after: query.started_after,
            template: None,
        };
        let records = self.store.sandbox_list_live(caller.team.id).await?;
        let mut records = self.all_now(records).await;
        if let Some(template) = &query.template {
            filter.template = self.template_filter(caller, template).await?;
            if filter.template.is_none() {
                records.clear();
            }
        }
        records.retain(|record| filter.matches(record));
        let running = records
            .iter()
            .filter(|record| record.state == SandboxState::Running)
            .count();
        let (records, next) = page(records, query.order, after.as_ref(), limit);
        Ok(Page {
            sandboxes: records
                .into_iter()
                .map(|record| self.sandbox(record))
                .collect(),
            next,
            total_running: filter.running.then_some(running),
        })
    }

    /// All running sandboxes of the caller, newest first.
    ///
    /// # Errors
    /// [`ListError`]
    pub async fn list_running(
        &self,
        caller: &Caller,
        metadata: Option<&str>,
    ) -> Result<Vec<Sandbox>, ListError> {
        let filter = Filter {
            running: true,
            metadata: metadata::parse(metadata.unwrap_or_default())?,
            ..Filter::default()
        };
        let records = self.store.sandbox_list_live(caller.team.id).await?;
        let mut records = self.all_now(records).await;
        records.retain(|record| filter.matches(record));
        records.sort_by(|a, b| compare(Order::Descending, key(a), key(b)));
        Ok(records
            .into_iter()
            .map(|record| self.sandbox(record))
            .collect())
    }

    async fn template_filter(
        &self,
        caller: &Caller,
        text: &str,
    ) -> Result<Option<TemplateId>, ListError> {
        if text.contains(':') {
            return Err(ListError::TemplateTag(text.to_owned()));
        }
        let reference = TemplateRef::parse(text)?;
        let found = self.find(&caller.team, &reference).await?;
        // Of a template that is gone, sandboxes may still run.
        Ok(found
            .map(|(template, _)| template.id)
            .or_else(|| reference.alias.parse().ok()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use warren_types::{BuildId, SandboxId, TeamId};

    use super::*;

    fn record(id: &str, started: i64) -> SandboxRecord {
        let at = Timestamp::from_microsecond(started).unwrap();
        SandboxRecord {
            id: id.parse::<SandboxId>().unwrap(),
            team_id: TeamId::random(),
            key_id: None,
            template_id: TemplateId::random(),
            build_id: BuildId::random(),
            alias: None,
            state: SandboxState::Running,
            started_at: at,
            end_at: at,
            ended_at: None,
            end_reason: None,
            memory_peak: None,
            cpu_count: 1,
            memory_mib: 1,
            disk_mib: 1,
            metadata: BTreeMap::new(),
            secure: true,
            private_traffic: false,
            allow_internet: None,
            network: None,
            auto_pause: false,
            auto_resume: false,
            mcp: None,
            revision: 0,
            pause: None,
            auto_pause_memory: true,
            timeout_s: 300,
            volume_mounts: Vec::new(),
        }
    }

    fn ids(records: &[SandboxRecord]) -> Vec<String> {
        records
            .iter()
            .map(|record| record.id.as_str().to_owned())
            .collect()
    }

    proptest! {
        #[test]
        fn pages_join_to_the_whole_list(
            starts in proptest::collection::vec(0i64..5, 0..30),
            limit in 1usize..8,
            ascending in any::<bool>(),
        ) {
            let order = if ascending { Order::Ascending } else { Order::Descending };
            let all: Vec<_> =
                starts.iter().enumerate().map(|(n, at)| record(&format!("i{n}"), *at)).collect();
            let (whole, none) = page(all.clone(), order, None, usize::MAX);
            prop_assert!(none.is_none());
            let mut joined = Vec::new();
            let mut after = None;
            loop {
                let (part, next) = page(all.clone(), order, after.as_ref(), limit);
                prop_assert!(part.len() == limit || next.is_none());
                joined.extend(part);
                match next {
                    Some(text) => after = Some(Cursor::decode(&text, order.letter()).unwrap()),
                    None => break,
                }
            }
            prop_assert_eq!(ids(&joined), ids(&whole));
        }
    }

    #[test]
    fn newest_first_and_ties_by_id() {
        let all = vec![record("ib", 1), record("ia", 1), record("ic", 2)];
        let (descending, _) = page(all.clone(), Order::Descending, None, 10);
        assert_eq!(ids(&descending), ["ic", "ia", "ib"]);
        let (ascending, _) = page(all, Order::Ascending, None, 10);
        assert_eq!(ids(&ascending), ["ib", "ia", "ic"]);
    }
}
