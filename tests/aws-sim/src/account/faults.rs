//! Setting and removing faults: what happens at once, rather than when something meets them.

use serde_json::Value;

use super::{Account, Timer};
use crate::fault::describe::{Description, Target};
use crate::fault::kind::Kind;
use crate::glob;

impl Account {
    /// Sets a fault and shows it; refused when there is nothing that it could ever meet.
    pub fn set_fault(&mut self, description: Description) -> Result<Value, String> {
        let degraded = match (&description.kind, &description.target) {
            (Kind::Degraded { code }, Target::Groups(pattern)) => {
                let active = self.active_groups();
                if !active.iter().any(|name| glob::matches(pattern, name)) {
                    return Err(format!(
                        "group: {pattern:?} names no ACTIVE node group; there are: [{}]",
                        active.join(", ")
                    ));
                }
                Some((pattern.clone(), *code))
            }
            _ => None,
        };
        let lasts = description.lasts;
        let id = self.faults.set(description, self.now);
        if let Some((pattern, code)) = degraded {
            let groups = self.degrade_groups(id, &pattern, code);
            self.faults.count(id, groups);
        }
        self.keep_history();
        if let Some(lasts) = lasts {
            self.schedule(lasts, Timer::FaultOver(id));
        }
        Ok(self.faults.show(id, self.now))
    }

    /// Whether there was such a fault.
    pub fn remove_fault(&mut self, id: u64) -> bool {
        let removed = self.faults.remove(id);
        self.fault_over(id);
        removed
    }

    pub(super) fn fault_over(&mut self, id: u64) {
        self.heal_groups(id);
        self.keep_history();
    }
}
