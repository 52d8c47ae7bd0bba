//! The account as a lagging read sees it: as it was, or without some of its resources.
//!
//! *Invariant:* a view is only read from. It has no timers, no ledger and no faults of its own.

use std::collections::VecDeque;
use std::time::Duration;

use super::Account;
use crate::clock::SimTime;
use crate::glob;

/// Copies kept per span that reads may lie behind: a stale read is exact to this share of its lag, and a big
/// fleet is not copied at every event.
const COPIES: u32 = 20;

/// States of the account while reads lie behind; empty otherwise.
#[derive(Debug, Default)]
pub struct History {
    span: Option<Duration>,
    /// Oldest first: since when the account was so.
    copies: VecDeque<(SimTime, Account)>,
    last_copy: SimTime,
    last_event: SimTime,
}

impl History {
    /// How many states it holds.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.copies.len()
    }

    fn step(&self) -> Duration {
        self.span.unwrap_or_default() / COPIES
    }
}

impl Account {
    /// Everything that calls show.
    pub fn view(&self) -> Account {
        let mut view = Account::open(self.settings.clone());
        view.node_groups.clone_from(&self.node_groups);
        view.scaling_groups.clone_from(&self.scaling_groups);
        view.templates.clone_from(&self.templates);
        view.instances.clone_from(&self.instances);
        view.subnets.clone_from(&self.subnets);
        view.capacity.clone_from(&self.capacity);
        view.now = self.now;
        view
    }

    /// Takes resources out of a view: those with a name or id that matches, or all that `action` may look for.
    pub fn hide(&mut self, action: &str, pattern: Option<&str>) {
        let hidden = |name: &str| pattern.is_none_or(|p| glob::matches(p, name));
        self.node_groups.retain(|name, _| !hidden(name));
        self.scaling_groups.retain(|name, _| !hidden(name));
        self.templates.retain(|id, t| !hidden(id) && !hidden(&t.name));
        self.instances.retain(|id, _| !hidden(id));
        self.subnets.retain(|s| !hidden(&s.spec.id));
        // Without a name, the cluster is missing only where it is what the call is about.
        let about_cluster = action == "DescribeCluster";
        if hidden(&self.settings.cluster) && (pattern.is_some() || about_cluster) {
            self.settings.cluster.clear();
        }
    }

    /// Keeps as much of the past as reads may need; to be called when faults are set or removed.
    pub fn keep_history(&mut self) {
        let span = self.faults.longest_lag(self.now);
        if span.is_none() {
            self.history = History::default();
            return;
        }
        if self.history.span.is_none() {
            self.history.copies.push_back((self.now, self.view()));
            self.history.last_copy = self.now;
            self.history.last_event = self.now;
        }
        self.history.span = span;
    }

    /// To be called before anything changes at `at`: what was so since the last change is the past from now on.
    pub fn remember(&mut self, at: SimTime) {
        let Some(span) = self.history.span else { return };
        let since = self.history.last_event;
        if at > since && at.since(self.history.last_copy) >= self.history.step() {
            let copy = self.view();
            self.history.copies.push_back((since, copy));
            self.history.last_copy = at;
        }
        self.history.last_event = at;
        while self
            .history
            .copies
            .get(1)
            .is_some_and(|(next, _)| at.since(*next) >= span)
        {
            self.history.copies.pop_front();
        }
    }

    /// The account so long ago, or when the past began to be kept if that was later.
    pub fn past(&self, lag: Duration) -> Account {
        let long_ago = |at: &SimTime| self.now.since(*at) >= lag;
        if long_ago(&self.history.last_event) {
            return self.view();
        }
        let copies = &self.history.copies;
        let then = copies.iter().rev().find(|(since, _)| long_ago(since));
        then.or(copies.front())
            .map_or_else(|| self.view(), |(_, account)| account.view())
    }
}
