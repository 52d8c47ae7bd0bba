//! SDK types -> the planner's types. Total: an unknown value becomes the most cautious known one.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_autoscaling::types::{Activity, AutoScalingGroup, LifecycleState, ScalingActivityStatusCode};
use aws_sdk_ec2::types::{InstanceTypeInfo, LaunchTemplate};
use aws_sdk_eks::primitives::DateTime;
use aws_sdk_eks::types::{Nodegroup, NodegroupStatus};
use crds::key;
use jiff::Timestamp;
use planner::observed::{
    GroupObserved, GroupOwner, GroupState, InstanceObserved, InstanceType, LaunchFailure, Lifecycle,
    PoolName, ScalingObserved, TemplateObserved,
};
use planner::plan::GroupName;

pub(super) fn timestamp(at: Option<&DateTime>) -> Option<Timestamp> {
    let at = at?;
    Timestamp::new(at.secs(), i32::try_from(at.subsec_nanos()).ok()?).ok()
}

/// Who a group of `cluster` belongs to; `None` for a group that is not ours, or whose tags were damaged by hand.
pub(super) fn group_owner(cluster: &str, tags: Option<&HashMap<String, String>>) -> Option<GroupOwner> {
    let tags = tags?;
    if tags.get(key::CLUSTER)? != cluster {
        return None;
    }
    Some(GroupOwner {
        pool: PoolName(tags.get(key::POOL)?.clone()),
        pool_uid: tags.get(key::POOL_UID)?.clone(),
        shard: tags.get(key::SHARD)?.parse().ok()?,
        spec_hash: tags.get(key::SPEC_HASH)?.clone(),
        released: tags.get(key::RELEASED).is_some_and(|value| value == "true"),
    })
}

pub(super) fn group_state(group: &Nodegroup) -> GroupState {
    match group.status() {
        Some(NodegroupStatus::Creating) => GroupState::Creating,
        Some(NodegroupStatus::Active) => GroupState::Active,
        Some(NodegroupStatus::Deleting) => GroupState::Deleting,
        Some(NodegroupStatus::CreateFailed) => GroupState::CreateFailed,
        Some(NodegroupStatus::DeleteFailed) => GroupState::DeleteFailed,
        Some(NodegroupStatus::Degraded) => GroupState::Degraded,
        // A state of its own that is over some day, like one this version does not know.
        _ => GroupState::Updating,
    }
}

/// Name of the Auto Scaling group, once EKS has made it.
pub(super) fn scaling_name(group: &Nodegroup) -> Option<&str> {
    group.resources()?.auto_scaling_groups().first()?.name()
}

/// `None` when the group is not ours. `zones` holds the zone of each subnet.
pub(super) fn group(
    cluster: &str,
    group: &Nodegroup,
    scaling: Option<&AutoScalingGroup>,
    launch_failure: Option<LaunchFailure>,
    zones: &BTreeMap<String, String>,
) -> Option<GroupObserved> {
    let subnet = group.subnets().first().cloned().unwrap_or_default();
    let zone = zones.get(&subnet).cloned();
    let zone = zone.or_else(|| scaling?.availability_zones().first().cloned());
    Some(GroupObserved {
        name: GroupName(group.nodegroup_name()?.to_owned()),
        owner: group_owner(cluster, group.tags())?,
        state: group_state(group),
        created: timestamp(group.created_at()).unwrap_or_default(),
        instance_type: instance_type(group, scaling).unwrap_or_default(),
        subnet,
        zone: zone.unwrap_or_default(),
        scaling: scaling.map(|group| scaling_observed(group, launch_failure)),
        issues: issues(group),
    })
}

/// DescribeNodegroup is documented to leave the types out for groups with a launch template, though it does not
/// when the template names none; the Auto Scaling group then has them as overrides.
fn instance_type(group: &Nodegroup, scaling: Option<&AutoScalingGroup>) -> Option<String> {
    group.instance_types().first().cloned().or_else(|| {
        let template = scaling?.mixed_instances_policy()?.launch_template()?;
        template.overrides().first()?.instance_type().map(str::to_owned)
    })
}

fn issues(group: &Nodegroup) -> Vec<String> {
    let issues = group.health().map(|health| health.issues()).unwrap_or_default();
    issues
        .iter()
        .map(|issue| {
            let code = issue.code().map_or("Unknown", |code| code.as_str());
            format!("{code}: {}", issue.message().unwrap_or_default())
        })
        .collect()
}

pub(super) fn scaling_observed(
    group: &AutoScalingGroup,
    launch_failure: Option<LaunchFailure>,
) -> ScalingObserved {
    let size = |value: Option<i32>| u32::try_from(value.unwrap_or_default()).unwrap_or_default();
    ScalingObserved {
        name: group.auto_scaling_group_name().unwrap_or_default().to_owned(),
        desired: size(group.desired_capacity()),
        max: size(group.max_size()),
        instances: group
            .instances()
            .iter()
            .filter_map(|instance| {
                Some(InstanceObserved {
                    id: instance.instance_id()?.to_owned(),
                    lifecycle: lifecycle(instance.lifecycle_state()),
                    protected: instance.protected_from_scale_in().unwrap_or_default(),
                })
            })
            .collect(),
        launch_failure,
        unfilled: None,
    }
}

fn lifecycle(state: Option<&LifecycleState>) -> Lifecycle {
    use LifecycleState as State;
    match state {
        Some(State::InService) => Lifecycle::InService,
        // A root volume being replaced: the instance stays, and counts, and comes back.
        Some(
            State::Pending
            | State::PendingWait
            | State::PendingProceed
            | State::ReplacingRootVolume
            | State::ReplacingRootVolumeWait
            | State::ReplacingRootVolumeProceed
            | State::RootVolumeReplaced,
        ) => Lifecycle::Pending,
        Some(
            State::Terminating
            | State::TerminatingWait
            | State::TerminatingProceed
            | State::TerminatingRetained,
        ) => Lifecycle::Terminating,
        _ => Lifecycle::Other,
    }
}

/// The newest launch that failed, unless a launch succeeded after it. A launch that began together with a failed one
/// (2 of 5 came) does not hide the failure.
pub(super) fn launch_failure(activities: &[Activity]) -> Option<LaunchFailure> {
    let launches = || {
        activities.iter().filter(|activity| {
            activity
                .description()
                .is_some_and(|text| text.starts_with("Launching"))
        })
    };
    let newest = |wanted: fn(&ScalingActivityStatusCode) -> bool| {
        launches()
            .filter(|activity| activity.status_code().is_some_and(wanted))
            .max_by_key(|activity| timestamp(activity.start_time()))
    };
    use ScalingActivityStatusCode as Code;
    let failed = newest(|code| *code == Code::Failed)?;
    // From PreInService on, the instance exists.
    let came = newest(|code| {
        matches!(
            code,
            Code::PreInService | Code::MidLifecycleAction | Code::Successful
        )
    });
    let at = timestamp(failed.start_time()).unwrap_or_default();
    if came.is_some_and(|came| timestamp(came.start_time()).unwrap_or_default() > at) {
        return None;
    }
    let message = failed
        .status_message()
        .or(failed.description())
        .unwrap_or_default();
    Some(LaunchFailure {
        at,
        no_capacity: no_capacity(message),
        message: message.to_owned(),
    })
}

/// EC2 has none of this type in this zone now, as opposed to a quota, a permission or a mistake.
fn no_capacity(message: &str) -> bool {
    [
        "InsufficientInstanceCapacity",
        "InsufficientCapacity",
        "InsufficientHostCapacity",
        "do not have sufficient",
        "UnfulfillableCapacity",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

pub(super) fn template(template: &LaunchTemplate) -> Option<TemplateObserved> {
    let tag = |key: &str| template_tag(template, key).map(str::to_owned);
    Some(TemplateObserved {
        id: template.launch_template_id()?.to_owned(),
        name: template.launch_template_name()?.to_owned(),
        pool: PoolName(tag(key::POOL)?),
        pool_uid: tag(key::POOL_UID)?,
        spec_hash: tag(key::SPEC_HASH)?,
        created: timestamp(template.create_time()).unwrap_or_default(),
    })
}

pub(super) fn template_tag<'a>(template: &'a LaunchTemplate, key: &str) -> Option<&'a str> {
    let tag = template.tags().iter().find(|tag| tag.key() == Some(key))?;
    tag.value()
}

pub(super) fn hardware(info: &InstanceTypeInfo) -> Option<InstanceType> {
    let gpus = info.gpu_info().map(|gpus| gpus.gpus()).unwrap_or_default();
    let gpus: i32 = gpus.iter().filter_map(|gpu| gpu.count()).sum();
    Some(InstanceType {
        name: info.instance_type()?.as_str().to_owned(),
        vcpus: u32::try_from(info.v_cpu_info()?.default_v_cpus()?).ok()?,
        memory_mib: u64::try_from(info.memory_info()?.size_in_mib()?).ok()?,
        gpus: u32::try_from(gpus).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(start_seconds: i64, code: ScalingActivityStatusCode, message: &str) -> Activity {
        Activity::builder()
            .description("Launching a new EC2 instance")
            .start_time(DateTime::from_secs(start_seconds))
            .status_code(code)
            .status_message(message)
            .build()
    }

    const ICE: &str = "InsufficientInstanceCapacity - We currently do not have sufficient g5.xlarge capacity";

    #[test]
    fn a_failure_counts_until_a_later_launch_succeeds() {
        use ScalingActivityStatusCode as Code;
        let failed = launch(20, Code::Failed, ICE);
        let seen = |others: &[Activity]| {
            let mut all = others.to_vec();
            all.push(failed.clone());
            launch_failure(&all)
        };
        let failure = seen(&[launch(10, Code::Successful, "")]).expect("the failure is newer");
        assert!(failure.no_capacity);
        assert_eq!(failure.at.as_second(), 20);
        assert!(
            seen(&[launch(20, Code::PreInService, "")]).is_some(),
            "two of five came"
        );
        assert_eq!(seen(&[launch(30, Code::PreInService, "")]), None);
        assert_eq!(launch_failure(&[launch(30, Code::Successful, "")]), None);
        let quota = launch(
            40,
            Code::Failed,
            "VcpuLimitExceeded - You have requested more vCPU capacity",
        );
        assert!(!seen(&[quota]).expect("newest").no_capacity);
    }

    #[test]
    fn damaged_or_foreign_tags_are_nobodys() {
        let tags = |shard: &str, cluster: &str| {
            HashMap::from(
                [
                    (key::CLUSTER, cluster),
                    (key::POOL, "g5"),
                    (key::POOL_UID, "u"),
                    (key::SHARD, shard),
                    (key::SPEC_HASH, "h"),
                ]
                .map(|(key, value)| (key.to_owned(), value.to_owned())),
            )
        };
        assert_eq!(
            group_owner("c", Some(&tags("3", "c"))).map(|owner| owner.shard),
            Some(3)
        );
        assert_eq!(group_owner("c", Some(&tags("3", "other"))), None);
        assert_eq!(group_owner("c", Some(&tags("three", "c"))), None);
        assert_eq!(group_owner("c", None), None);
    }
}
