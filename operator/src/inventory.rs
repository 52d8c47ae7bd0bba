//! What AWS has, read by a task of its own, never inside a reconcile. A failed read keeps what the last one brought and
//! says what went wrong: the planner gives nothing back on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use planner::observed::{CloudErrorClass, CloudObserved, CloudTrouble};
use planner::pool::retract;
use tokio::sync::Notify;

use crate::cloud::{CatalogQuery, NodeGroups};
use crate::metrics::Metrics;

/// After a mutation AWS is read again at once, and again while the change shows, at least this far apart.
const SOONEST: Duration = Duration::from_millis(500);

/// What was read, and what was asked about then.
#[derive(Clone)]
struct Read {
    cloud: CloudObserved,
    asked: CatalogQuery,
}

#[derive(Default)]
pub struct Inventory {
    latest: ArcSwapOption<Read>,
    /// Why the first read does not succeed.
    unread: ArcSwapOption<CloudTrouble>,
    catalog: ArcSwapOption<CatalogQuery>,
    wake: Notify,
}

impl Inventory {
    /// What is known of AWS; before its first answer nothing, and why.
    #[must_use]
    pub fn snapshot(&self) -> (Option<CloudObserved>, Option<CloudTrouble>) {
        let Some(read) = self.latest.load_full() else {
            let unread = self.unread.load_full();
            return (None, unread.map(|trouble| CloudTrouble::clone(&trouble)));
        };
        let mut cloud = read.cloud.clone();
        let named = self.catalog.load_full().unwrap_or_default();
        let types = named.instance_types.difference(&read.asked.instance_types);
        cloud.unasked = types
            .chain(named.subnets.difference(&read.asked.subnets))
            .cloned()
            .collect();
        (Some(cloud), None)
    }

    /// Something was changed: read soon.
    pub fn refresh(&self) {
        self.wake.notify_one();
    }

    /// What pools name; a change is looked up at once.
    pub fn name(&self, types: BTreeSet<String>, subnets: BTreeSet<String>) {
        let query = CatalogQuery {
            instance_types: types,
            subnets,
        };
        if self.catalog.load().as_deref() != Some(&query) {
            self.catalog.store(Some(Arc::new(query)));
            self.wake.notify_one();
        }
    }

    /// Reads for ever. `changed` is told after every read.
    pub async fn run<C: NodeGroups>(&self, cloud: &C, poll: Duration, changed: &Notify, metrics: &Metrics) {
        loop {
            let query = self.catalog.load_full().unwrap_or_default();
            match cloud.describe(&query).await {
                Ok(mut cloud) => {
                    metrics.called("describe", None);
                    let before = self.latest.load_full();
                    retract::note_waiting(&mut cloud, before.as_ref().map(|read| &read.cloud));
                    let asked = CatalogQuery::clone(&query);
                    self.latest.store(Some(Arc::new(Read { cloud, asked })));
                }
                Err(error) => {
                    metrics.called("describe", Some(error.class()));
                    tracing::warn!(error = &error as &dyn std::error::Error, "AWS could not be read");
                    self.fail(error.class(), error.to_string());
                }
            }
            changed.notify_one();
            tokio::time::sleep(SOONEST).await;
            let rest = poll.saturating_sub(SOONEST);
            let _ = tokio::time::timeout(rest, self.wake.notified()).await;
        }
    }

    /// Nothing is known before the first good read: then there is no inventory, and nothing is planned on AWS.
    fn fail(&self, class: CloudErrorClass, message: String) {
        let trouble = CloudTrouble { class, message };
        match self.latest.load_full() {
            None => self.unread.store(Some(Arc::new(trouble))),
            Some(latest) => {
                let mut kept = Read::clone(&latest);
                kept.cloud.trouble = Some(trouble);
                self.latest.store(Some(Arc::new(kept)));
            }
        }
    }
}
