//! Node groups that fail because a test wants them to: CREATE_FAILED, DELETE_FAILED, DEGRADED.

use super::{GroupStatus, HealthIssue, NodeGroup};
use crate::account::Account;
use crate::fault::Hit;
use crate::fault::kind::Kind;
use crate::fault::mark::Event;
use crate::glob;

impl Account {
    fn note_group(&mut self, hit: &Hit, action: &'static str, group: &str, code: &str) {
        self.faults.note(Event {
            mark: hit.mark(),
            action,
            resource: group.to_owned(),
            message: code.to_owned(),
        });
    }

    /// Fails a creation that is complete, or about to be, when a fault says so.
    pub(super) fn creation_faulty(&mut self, group: &NodeGroup) -> bool {
        let wanted = |kind: &Kind| matches!(kind, Kind::CreateFailed { .. });
        let now = self.now();
        let Some(hit) = self.faults.hit_group(group.name(), now, wanted) else {
            return false;
        };
        let Kind::CreateFailed { code } = hit.kind else {
            return false;
        };
        let scaling = group
            .scaling_group
            .as_ref()
            .and_then(|s| self.scaling_groups.get(s));
        let resources = match (code, scaling) {
            ("NodeCreationFailure", Some(scaling)) => scaling.members.clone(),
            _ => group.scaling_group.iter().cloned().collect(),
        };
        self.fail_creation(&group.key(), code, message(code), resources);
        self.note_group(&hit, "CreateGroup", group.name(), code);
        true
    }

    /// Leaves a group that is about to go in DELETE_FAILED, when a fault says so.
    pub(super) fn deletion_faulty(&mut self, group: &NodeGroup) -> bool {
        let wanted = |kind: &Kind| matches!(kind, Kind::DeleteFailed { .. });
        let now = self.now();
        let Some(hit) = self.faults.hit_group(group.name(), now, wanted) else {
            return false;
        };
        let Kind::DeleteFailed { code } = hit.kind else {
            return false;
        };
        if let Some(group) = self.node_groups.get_mut(group.name()) {
            group.status = GroupStatus::DeleteFailed;
            group.modified = now;
            group.delete_not_before = None;
            group.issues = vec![issue(code, group)];
        }
        self.note_group(&hit, "DeleteGroup", group.name(), code);
        true
    }

    /// Makes the ACTIVE groups that a pattern names DEGRADED until the fault is over; how many there were.
    pub(crate) fn degrade_groups(&mut self, fault: u64, pattern: &str, code: &'static str) -> usize {
        let now = self.now();
        let mut found = Vec::new();
        for (name, group) in &mut self.node_groups {
            if group.status == GroupStatus::Active && glob::matches(pattern, name) {
                group.status = GroupStatus::Degraded;
                group.modified = now;
                group.degraded_by = Some(fault);
                group.issues = vec![issue(code, group)];
                found.push(name.clone());
            }
        }
        let hit = Hit {
            id: fault,
            kind: Kind::Degraded { code },
        };
        for name in &found {
            self.note_group(&hit, "DegradeGroup", name, code);
        }
        found.len()
    }

    /// The end of a fault that made groups DEGRADED.
    pub(crate) fn heal_groups(&mut self, fault: u64) {
        let now = self.now();
        let of_fault = self
            .node_groups
            .values_mut()
            .filter(|g| g.degraded_by == Some(fault));
        for group in of_fault {
            group.degraded_by = None;
            if group.status == GroupStatus::Degraded {
                group.status = GroupStatus::Active;
                group.modified = now;
                group.issues.clear();
            }
        }
    }

    /// Names of the groups that a DEGRADED fault could meet now.
    pub(crate) fn active_groups(&self) -> Vec<&str> {
        let active = self
            .node_groups
            .values()
            .filter(|g| g.status == GroupStatus::Active);
        active.map(NodeGroup::name).collect()
    }
}

fn issue(code: &'static str, group: &NodeGroup) -> HealthIssue {
    HealthIssue {
        code,
        message: message(code),
        resources: group.scaling_group.iter().cloned().collect(),
    }
}

/// EKS's words where they are known; else none to be relied on.
fn message(code: &str) -> String {
    match code {
        "NodeCreationFailure" => "Instances failed to join the kubernetes cluster".to_owned(),
        "Ec2SecurityGroupDeletionFailure" => {
            "DependencyViolation - resource has a dependent object".to_owned()
        }
        code => format!("{code} (simulated)"),
    }
}
