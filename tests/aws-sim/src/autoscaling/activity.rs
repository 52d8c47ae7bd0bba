//! The diary of an Auto Scaling group: what it tried, and in EC2's words why it failed.

use crate::account::{Account, Offering, Timer};
use crate::assumptions as aws;
use crate::catalog::Purchase;
use crate::clock::SimTime;

#[derive(Clone, Debug, PartialEq)]
pub struct Activity {
    pub id: String,
    pub description: String,
    pub cause: String,
    pub start: SimTime,
    pub end: Option<SimTime>,
    pub status: &'static str,
    pub message: Option<String>,
    pub progress: u8,
    /// The instance it is about.
    pub subject: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LaunchFailure {
    NoCapacity(Offering),
    NotOffered(Offering),
    NoAddress {
        subnet: String,
    },
    /// Only faults run into it: no quota is counted.
    VcpuQuota(Purchase),
}

impl LaunchFailure {
    /// The words of the services, with the zones that EC2 recommends instead.
    fn message(&self, account: &Account) -> String {
        let other_zones = |offering: &Offering| {
            let zones = account.zones();
            let others: Vec<&str> = zones.into_iter().filter(|z| *z != offering.zone).collect();
            others.join(", ")
        };
        match self {
            LaunchFailure::NoCapacity(o) if o.purchase == Purchase::Spot => {
                "Could not launch Spot Instances. InsufficientInstanceCapacity - There is no Spot capacity \
                 available that matches your request. Launching EC2 instance failed."
                    .to_owned()
            }
            LaunchFailure::NoCapacity(o) => format!(
                "Could not launch On-Demand Instances. InsufficientInstanceCapacity - We currently do not have \
                 sufficient {ty} capacity in the Availability Zone you requested ({zone}). Our system will be \
                 working on provisioning additional capacity. You can currently get {ty} capacity by not \
                 specifying an Availability Zone in your request or choosing {others}. Launching EC2 instance \
                 failed.",
                ty = o.instance_type,
                zone = o.zone,
                others = other_zones(o),
            ),
            LaunchFailure::NotOffered(o) => format!(
                "Could not launch On-Demand Instances. Unsupported - Your requested instance type ({}) is not \
                 supported in your requested Availability Zone ({}). Please retry your request by not \
                 specifying an Availability Zone or choosing {}. Launching EC2 instance failed.",
                o.instance_type,
                o.zone,
                other_zones(o),
            ),
            LaunchFailure::VcpuQuota(Purchase::Spot) => {
                "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count \
                 exceeded. Launching EC2 instance failed."
                    .to_owned()
            }
            LaunchFailure::VcpuQuota(Purchase::OnDemand) => {
                "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity \
                 than your current vCPU limit of 32 allows for the instance bucket that the specified instance \
                 type belongs to. Please visit http://aws.amazon.com/contact-us/ec2-request to request an \
                 adjustment to this limit. Launching EC2 instance failed."
                    .to_owned()
            }
            LaunchFailure::NoAddress { subnet } => format!(
                "Could not launch On-Demand Instances. InsufficientFreeAddressesInSubnet - There are not enough \
                 free addresses in subnet '{subnet}' to satisfy the requested number of instances. Launching \
                 EC2 instance failed."
            ),
        }
    }
}

const GROWING: &str = "an instance was started in response to a difference between desired and actual capacity, increasing the capacity.";

impl Account {
    pub(super) fn push_activity(&mut self, name: &str, activity: Activity) {
        if let Some(group) = self.scaling_groups.get_mut(name) {
            group.activities.push_front(activity);
            group.activities.truncate(aws::MAX_ACTIVITIES);
        }
    }

    pub(super) fn launch_started(&mut self, name: &str, instance: &str) {
        let now = self.now();
        let activity = Activity {
            id: self.new_uuid(),
            description: format!("Launching a new EC2 instance: {instance}"),
            cause: GROWING.to_owned(),
            start: now,
            end: None,
            status: "PreInService",
            message: None,
            progress: 30,
            subject: Some(instance.to_owned()),
        };
        self.push_activity(name, activity);
        if let Some(group) = self.scaling_groups.get_mut(name) {
            group.members.push(instance.to_owned());
            group.retry_at = None;
            group.failing_since = None;
            group.last_change = Some(now);
        }
        self.heal_launches(name);
    }

    pub(super) fn launch_failed(&mut self, name: &str, failure: &LaunchFailure) {
        let now = self.now();
        let message = failure.message(self);
        let activity = Activity {
            id: self.new_uuid(),
            description: "Launching a new EC2 instance.  Status Reason: ".to_owned() + &message,
            cause: GROWING.to_owned(),
            start: now,
            end: Some(now),
            status: "Failed",
            message: Some(message.clone()),
            progress: 100,
            subject: None,
        };
        self.push_activity(name, activity);
        if let Some(group) = self.scaling_groups.get_mut(name) {
            let since = *group.failing_since.get_or_insert(now);
            group.retry_at = Some(now.after(aws::LAUNCH_RETRY));
            let node_group = group.node_group.clone();
            if now.since(since) >= aws::DEGRADED_AFTER {
                self.degrade(&node_group, &message);
            }
        }
        self.schedule(aws::LAUNCH_RETRY, Timer::ScalingReconcile(name.to_owned()));
    }

    pub(crate) fn launch_succeeded(&mut self, name: &str, instance: &str) {
        self.finish_activity(name, instance);
    }

    pub(super) fn all_protected(&mut self, name: &str) {
        let now = self.now();
        let message = "Could not scale to desired capacity because all remaining instances are protected from scale-in.";
        let activity = Activity {
            id: self.new_uuid(),
            description: message.to_owned(),
            cause: "a difference between desired and actual capacity, shrinking the capacity.".to_owned(),
            start: now,
            end: Some(now),
            status: "Cancelled",
            message: Some(message.to_owned()),
            progress: 100,
            subject: None,
        };
        self.push_activity(name, activity);
    }

    /// A member is terminated: its activities end, and a group that was waiting for it may go.
    pub(crate) fn member_gone(&mut self, name: &str, instance: &str) {
        self.finish_activity(name, instance);
        let Some(group) = self.scaling_groups.get_mut(name) else {
            return;
        };
        group.members.retain(|m| m != instance);
        let node_group = group.node_group.clone();
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(name.to_owned()));
        if let Some(key) = self.node_groups.get(&node_group).map(crate::eks::NodeGroup::key) {
            self.group_gone(&key);
        }
    }

    fn finish_activity(&mut self, name: &str, instance: &str) {
        let now = self.now();
        let Some(group) = self.scaling_groups.get_mut(name) else {
            return;
        };
        let open = |a: &&mut Activity| a.end.is_none() && a.subject.as_deref() == Some(instance);
        for activity in group.activities.iter_mut().filter(open) {
            activity.end = Some(now);
            activity.status = "Successful";
            activity.progress = 100;
        }
    }
}
