//! Launches: in which zone, of which type, and what can go wrong with them.

use super::activity::LaunchFailure;
use crate::account::{Account, Offering, Timer};
use crate::ec2::instance::LaunchRequest;
use crate::fault::Hit;
use crate::fault::kind::{Kind, Shortage};
use crate::fault::mark::{Event, Mark};

impl Account {
    pub(super) fn grow(&mut self, name: &str, missing: i64) {
        let now = self.now();
        let Some(group) = self.scaling_groups.get(name) else {
            return;
        };
        if group.retry_at.is_some_and(|at| at > now) {
            return;
        }
        let node_group = group.node_group.clone();
        for _ in 0..missing {
            if self.order_late(name, &node_group) {
                continue;
            }
            let launched = match self.faults.hit_partial(&node_group, now) {
                None => self.launch_member(name),
                Some(hit) => Err(self.run_short(name, &hit)),
            };
            if let Err(failure) = launched {
                self.launch_failed(name, &failure);
                break;
            }
        }
    }

    /// Leaves an order with EC2 that is delivered late, when a fault says so.
    fn order_late(&mut self, name: &str, node_group: &str) -> bool {
        let late = |kind: &Kind| matches!(kind, Kind::LateDelivery { .. });
        let now = self.now();
        let Some(hit) = self.faults.hit_group(node_group, now, late) else {
            return false;
        };
        let Kind::LateDelivery { delay } = hit.kind else {
            return false;
        };
        if let Some(group) = self.scaling_groups.get_mut(name) {
            group.ordered += 1;
        }
        self.faults.note(Event {
            mark: hit.mark(),
            action: "Launch",
            resource: node_group.to_owned(),
            message: format!(
                "an instance is ordered, and comes {} s later",
                delay.as_secs_f64()
            ),
        });
        self.schedule(delay, Timer::LateDelivery(name.to_owned(), hit.id));
        true
    }

    /// An order is met, whether anybody still wants it or not.
    pub(crate) fn delivered_late(&mut self, name: &str, fault: u64) {
        let Some(group) = self.scaling_groups.get_mut(name).filter(|g| !g.deleting) else {
            return;
        };
        group.ordered -= 1;
        let (node_group, desired, before) = (group.node_group.clone(), group.desired, group.members.len());
        if let Err(failure) = self.launch_member(name) {
            self.launch_failed(name, &failure);
            return;
        }
        let newest = self.scaling_groups.get(name).and_then(|g| g.members.last());
        let event = Event {
            mark: Mark {
                id: Some(fault),
                kind: "late-delivery",
            },
            action: "Deliver",
            resource: newest.cloned().unwrap_or_default(),
            message: format!("delivered to {node_group}, which has {before} instances and wants {desired}"),
        };
        self.faults.note(event);
        self.reconcile_scaling(name);
    }

    /// A launch that fails because a fault says so.
    fn run_short(&mut self, name: &str, hit: &Hit) -> LaunchFailure {
        let group = self.scaling_groups.get(name).expect("the caller looked it up");
        let (subnet, zone) = group.subnets.first().expect("a group has a subnet").clone();
        let instance_type = group.types.first().expect("a group has an instance type");
        let offering = Offering {
            instance_type: instance_type.name.to_owned(),
            zone,
            purchase: group.purchase,
        };
        let (failure, message) = match hit.kind {
            Kind::PartialLaunch {
                reason: Shortage::Addresses,
                ..
            } => (
                LaunchFailure::NoAddress { subnet },
                "no addresses for more instances",
            ),
            Kind::PartialLaunch {
                reason: Shortage::VcpuQuota,
                ..
            } => (
                LaunchFailure::VcpuQuota(offering.purchase),
                "no quota for more instances",
            ),
            _ => (
                LaunchFailure::NoCapacity(offering),
                "no capacity for more instances",
            ),
        };
        let event = Event {
            mark: hit.mark(),
            action: "Launch",
            resource: group.node_group.clone(),
            message: message.to_owned(),
        };
        self.faults.note(event);
        failure
    }

    /// Launches one member in the emptiest zone, with the first of the types that has capacity.
    fn launch_member(&mut self, name: &str) -> Result<(), LaunchFailure> {
        let group = self
            .scaling_groups
            .get(name)
            .expect("the caller looked it up")
            .clone();
        let live = self.members(&group);
        let count = |subnet: &str| live.iter().filter(|i| i.is_live() && i.subnet == subnet).count();
        let (subnet, zone) = group
            .subnets
            .iter()
            .min_by_key(|(s, _)| count(s))
            .cloned()
            .expect("a group has a subnet");
        let zone_index = self.zone_index(&zone);
        let mut failure = None;
        for instance_type in &group.types {
            let offering = Offering {
                instance_type: instance_type.name.to_owned(),
                zone: zone.clone(),
                purchase: group.purchase,
            };
            if !instance_type.is_offered_in(zone_index) {
                failure.get_or_insert(LaunchFailure::NotOffered(offering));
                continue;
            }
            if !self.take_capacity(&offering) {
                failure.get_or_insert(LaunchFailure::NoCapacity(offering));
                continue;
            }
            let request = LaunchRequest {
                instance_type,
                purchase: group.purchase,
                subnet: subnet.clone(),
                zone,
                image_id: group.image_id.clone(),
                node_group: group.node_group.clone(),
                scaling_group: name.to_owned(),
                tags: group.instance_tags.clone(),
            };
            return match self.launch_instance(request) {
                Some(id) => {
                    self.launch_started(name, &id);
                    Ok(())
                }
                None => Err(LaunchFailure::NoAddress { subnet }),
            };
        }
        Err(failure.expect("a group has an instance type"))
    }
}
