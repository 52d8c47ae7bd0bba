//! What was sent to AWS and does not show in every inventory yet. The executor's memory; lost with it, because an operator that
//! starts reads AWS before it plans anything there.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::plan::CloudAction;

/// A call whose answer was lost may still take effect for this long: none of the operator's is in flight longer.
const IN_FLIGHT: SignedDuration = SignedDuration::from_secs(30);

#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// By group or template: an inventory speaks of it that was read after this.
    settled: BTreeMap<String, Timestamp>,
    /// The plan that grew something last, and when that is settled.
    grown: Option<(Timestamp, Timestamp)>,
}

impl Sent {
    /// May an action be sent that was planned at `planned` from an inventory of `read_at`?
    ///
    /// Not where the group was changed since. And nothing grows from an inventory without the growth of an earlier plan: the
    /// two together could exceed a cap, where a spec changed in between and each buys in a group of its own.
    #[must_use]
    pub fn allows(&self, action: &CloudAction, planned: Timestamp, read_at: Timestamp) -> bool {
        let settled = self.settled.get(action.target());
        let grown = self.grown.filter(|(by, _)| *by != planned);
        let grows = matches!(action, CloudAction::Grow { .. });
        settled.is_none_or(|t| read_at > *t) && !(grows && grown.is_some_and(|(_, t)| read_at <= t))
    }

    /// `answered`: AWS said what became of it.
    pub fn note(&mut self, action: &CloudAction, planned: Timestamp, now: Timestamp, answered: bool) {
        let settled = if answered {
            now
        } else {
            now.saturating_add(IN_FLIGHT).unwrap_or(Timestamp::MAX)
        };
        self.settled.insert(action.target().to_owned(), settled);
        if matches!(action, CloudAction::Grow { .. }) {
            let before = self.grown.map_or(settled, |(_, t)| t);
            self.grown = Some((planned, settled.max(before)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::GroupName;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn grow(group: &str) -> CloudAction {
        CloudAction::Grow {
            group: GroupName(group.into()),
            pool_uid: "uid".into(),
            desired: 1,
        }
    }

    fn delete(group: &str) -> CloudAction {
        CloudAction::DeleteGroup {
            group: GroupName(group.into()),
            pool_uid: "uid".into(),
        }
    }

    #[test]
    fn a_group_waits_for_an_inventory_that_knows_what_was_done_to_it() {
        let mut sent = Sent::default();
        sent.note(&delete("a"), at(10), at(11), true);
        assert!(!sent.allows(&delete("a"), at(12), at(11)));
        assert!(sent.allows(&delete("a"), at(13), at(12)));
        assert!(sent.allows(&delete("b"), at(12), at(5)));
        // Its answer was lost: it may be on its way.
        sent.note(&delete("a"), at(20), at(20), false);
        assert!(!sent.allows(&grow("a"), at(51), at(50)));
        assert!(sent.allows(&grow("a"), at(52), at(51)));
    }

    #[test]
    fn growth_waits_for_the_growth_of_earlier_plans() {
        let mut sent = Sent::default();
        sent.note(&grow("a"), at(10), at(11), true);
        assert!(sent.allows(&grow("b"), at(10), at(9)), "of the same plan");
        assert!(!sent.allows(&grow("b"), at(12), at(9)));
        assert!(sent.allows(&delete("b"), at(12), at(9)));
        assert!(sent.allows(&grow("b"), at(13), at(12)));
    }
}
