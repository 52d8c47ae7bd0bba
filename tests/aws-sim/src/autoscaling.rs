//! Auto Scaling: every node group owns one group that makes its number of instances match the desired
//! size, whatever happens to the instances.

pub mod activity;
mod launch;

use std::collections::VecDeque;

use crate::account::{Account, Tags, Timer};
use crate::assumptions as aws;
use crate::catalog::{InstanceType, Purchase};
use crate::clock::SimTime;
use crate::ec2::instance::{Instance, InstanceState};
use crate::error::{ApiError, ApiResult, autoscaling};
use activity::Activity;

#[derive(Clone, Debug)]
pub struct ScalingGroup {
    pub name: String,
    pub uuid: String,
    pub node_group: String,
    pub min: i64,
    pub max: i64,
    pub desired: i64,
    pub types: Vec<&'static InstanceType>,
    pub purchase: Purchase,
    /// Subnet and zone.
    pub subnets: Vec<(String, String)>,
    pub image_id: String,
    /// The template EKS made for this group: id, name.
    pub template: (String, String),
    pub tags: Tags,
    pub instance_tags: Tags,
    pub created: SimTime,
    pub deleting: bool,
    /// Instances of the group until they are terminated, in order of launch.
    pub members: Vec<String>,
    /// Launches that are ordered and come late.
    pub ordered: i64,
    /// Newest first.
    pub activities: VecDeque<Activity>,
    pub retry_at: Option<SimTime>,
    pub failing_since: Option<SimTime>,
    pub last_change: Option<SimTime>,
    reported_protected: bool,
}

impl ScalingGroup {
    pub fn new(name: String, uuid: String, node_group: String, created: SimTime) -> Self {
        Self {
            name,
            uuid,
            node_group,
            min: 0,
            max: 0,
            desired: 0,
            types: Vec::new(),
            purchase: Purchase::OnDemand,
            subnets: Vec::new(),
            image_id: String::new(),
            template: (String::new(), String::new()),
            tags: Tags::new(),
            instance_tags: Tags::new(),
            created,
            deleting: false,
            members: Vec::new(),
            ordered: 0,
            activities: VecDeque::new(),
            retry_at: None,
            failing_since: None,
            last_change: None,
            reported_protected: false,
        }
    }
}

impl Account {
    pub fn scaling_arn(&self, group: &ScalingGroup) -> String {
        self.arn(
            "autoscaling",
            format_args!(
                "autoScalingGroup:{}:autoScalingGroupName/{}",
                group.uuid, group.name
            ),
        )
    }

    pub fn find_scaling_group(&self, name: &str) -> ApiResult<&ScalingGroup> {
        self.scaling_groups.get(name).ok_or_else(|| {
            autoscaling::validation(format!(
                "AutoScalingGroup name not found - AutoScalingGroup {name} not found"
            ))
        })
    }

    fn find_scaling_group_mut(&mut self, name: &str) -> ApiResult<&mut ScalingGroup> {
        self.find_scaling_group(name)?;
        Ok(self.scaling_groups.get_mut(name).expect("found above"))
    }

    pub fn members(&self, group: &ScalingGroup) -> Vec<&Instance> {
        group
            .members
            .iter()
            .filter_map(|id| self.instances.get(id))
            .collect()
    }

    pub fn set_desired_capacity(&mut self, name: &str, desired: i64, honor_cooldown: bool) -> ApiResult<()> {
        let now = self.now();
        let group = self.find_scaling_group_mut(name)?;
        if group.deleting {
            return Err(pending_delete(name));
        }
        if desired > group.max {
            return Err(autoscaling::validation(format!(
                "New SetDesiredCapacity value {desired} is above max value {} for the AutoScalingGroup.",
                group.max
            )));
        }
        if desired < group.min {
            return Err(autoscaling::validation(format!(
                "New SetDesiredCapacity value {desired} is below min value {} for the AutoScalingGroup.",
                group.min
            )));
        }
        let cooling = group
            .last_change
            .is_some_and(|at| now.since(at) < aws::DEFAULT_COOLDOWN);
        if honor_cooldown && cooling {
            return Err(ApiError::new(
                400,
                "ScalingActivityInProgress",
                format!("Scaling activity in progress: AutoScalingGroup {name} is in its cooldown"),
            ));
        }
        if group.desired != desired {
            group.desired = desired;
            group.reported_protected = false;
            group.retry_at = None;
        }
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(name.to_owned()));
        Ok(())
    }

    pub fn set_instance_protection(&mut self, name: &str, ids: &[String], protected: bool) -> ApiResult<()> {
        let group = self.find_scaling_group(name)?;
        if ids.len() > aws::MAX_PROTECTION_IDS {
            return Err(autoscaling::validation(format!(
                "The number of instance ids that may be passed in is limited to {}",
                aws::MAX_PROTECTION_IDS
            )));
        }
        for id in ids {
            let member = self.instances.get(id).filter(|_| group.members.contains(id));
            match member.map(Instance::state) {
                None => {
                    return Err(autoscaling::validation(format!(
                        "The instance {id} is not part of Auto Scaling group {name}."
                    )));
                }
                Some(InstanceState::Running) => {}
                Some(_) => {
                    return Err(autoscaling::validation(format!(
                        "The instance {id} is not in InService or EnteringStandby or Standby."
                    )));
                }
            }
        }
        for id in ids {
            if let Some(instance) = self.instances.get_mut(id) {
                instance.protected = protected;
            }
        }
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(name.to_owned()));
        Ok(())
    }

    pub fn terminate_in_scaling_group(&mut self, id: &str, decrement: bool) -> ApiResult<(String, Activity)> {
        let not_found = || {
            autoscaling::validation(format!(
                "Instance Id not found - No managed instance found for instance ID: {id}"
            ))
        };
        let instance = self.instances.get(id).ok_or_else(not_found)?;
        let name = instance.scaling_group.clone();
        if instance.terminated.is_some() {
            return Err(not_found());
        }
        let live = instance.is_live();
        let group = self.find_scaling_group_mut(&name)?;
        if decrement && live {
            if group.desired <= group.min {
                return Err(autoscaling::validation(format!(
                    "Currently, desiredSize equals minSize ({}). Terminating instance without replacement will violate group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size.",
                    group.min
                )));
            }
            group.desired -= 1;
        }
        let cause = format!("instance {id} was taken out of service in response to a user request.");
        let activity = self.end_member(&name, id, cause);
        self.schedule(aws::SCALING_REACTION, Timer::ScalingReconcile(name.clone()));
        Ok((name, activity))
    }

    /// One pass of the group's own control loop.
    pub(crate) fn reconcile_scaling(&mut self, name: &str) {
        let Some(group) = self.scaling_groups.get(name) else {
            return;
        };
        let members = self.members(group);
        let live: Vec<&Instance> = members.into_iter().filter(|i| i.is_live()).collect();
        if group.deleting {
            let ids: Vec<String> = live.iter().map(|i| i.id.clone()).collect();
            for id in ids {
                self.end_member(name, &id, "the Auto Scaling group is being deleted.".to_owned());
            }
            return;
        }
        let have = i64::try_from(live.len()).unwrap_or(i64::MAX);
        let coming = have + group.ordered;
        if coming < group.desired {
            self.grow(name, group.desired - coming);
        } else if have > group.desired {
            let excess = usize::try_from(have - group.desired).unwrap_or(0);
            let open: Vec<String> = live
                .iter()
                .filter(|i| i.state() == InstanceState::Running && !i.protected)
                .map(|i| i.id.clone())
                .collect();
            let all_in_service = live.iter().all(|i| i.state() == InstanceState::Running);
            self.shrink(name, excess, open, all_in_service);
        } else if have == group.desired
            && let Some(group) = self.scaling_groups.get_mut(name)
        {
            group.failing_since = None;
            group.retry_at = None;
        }
    }

    /// Ends as many of `open` as are too many; says so once when there are not enough of them.
    fn shrink(&mut self, name: &str, excess: usize, mut open: Vec<String>, all_in_service: bool) {
        for _ in 0..excess.min(open.len()) {
            let victim = open.swap_remove(self.choose(open.len()));
            let cause = "an instance was taken out of service in response to a difference between desired and actual capacity, shrinking the capacity.";
            self.end_member(name, &victim, cause.to_owned());
        }
        let Some(group) = self.scaling_groups.get_mut(name) else {
            return;
        };
        group.retry_at = None;
        group.failing_since = None;
        if excess > 0 && open.is_empty() && all_in_service && !group.reported_protected {
            let remaining = group
                .members
                .iter()
                .filter(|id| self.instances.get(*id).is_some_and(Instance::is_live));
            if i64::try_from(remaining.count()).unwrap_or(i64::MAX) > group.desired {
                group.reported_protected = true;
                self.all_protected(name);
            }
        }
    }

    /// Starts to end a member and records the activity for it.
    fn end_member(&mut self, name: &str, id: &str, cause: String) -> Activity {
        self.stop_instance(id);
        let now = self.now();
        let activity = Activity {
            id: self.new_uuid(),
            description: format!("Terminating EC2 instance: {id}"),
            cause,
            start: now,
            end: None,
            status: "InProgress",
            message: None,
            progress: 0,
            subject: Some(id.to_owned()),
        };
        if let Some(group) = self.scaling_groups.get_mut(name) {
            group.last_change = Some(now);
        }
        self.push_activity(name, activity.clone());
        activity
    }
}

fn pending_delete(name: &str) -> ApiError {
    autoscaling::validation(format!("AutoScalingGroup {name} is pending delete"))
}
