//! Auto Scaling: the query protocol with `member` lists.

use super::params::{Page, Params};
use super::{Session, Xml};
use crate::autoscaling::ScalingGroup;
use crate::autoscaling::activity::Activity;
use crate::error::{ApiError, ApiResult, autoscaling};
use crate::iam::Context;

pub(super) fn run(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    match params.action() {
        "DescribeAutoScalingGroups" => describe_groups(session, params),
        "DescribeScalingActivities" => describe_activities(session, params),
        "SetDesiredCapacity" => set_desired(session, params),
        "SetInstanceProtection" => set_protection(session, params),
        "TerminateInstanceInAutoScalingGroup" => terminate(session, params),
        action => Err(ApiError::new(
            400,
            "InvalidAction",
            format!("Could not find operation {action}"),
        )),
    }
}

fn known(params: &Params, names: &[&str]) -> ApiResult<()> {
    params.only(names).map_err(autoscaling::validation)
}

fn required<'a>(params: &'a Params, name: &str) -> ApiResult<&'a str> {
    params.get(name).filter(|v| !v.is_empty()).ok_or_else(|| {
        autoscaling::validation(format!("1 validation error detected: Value null at '{name}' failed to satisfy constraint: Member must not be null"))
    })
}

fn page(params: &Params, largest: usize) -> ApiResult<Page> {
    Page::parse(params.get("NextToken"), params.get("MaxRecords"), largest)
        .map_err(|message| ApiError::new(400, "InvalidNextToken", message))
}

/// The group that a call changes, and the caller's right to change it.
fn allowed(session: &mut Session<'_>, action: &str, name: &str) -> ApiResult<()> {
    let group = session.account.find_scaling_group(name)?;
    let arn = session.account.scaling_arn(group);
    let context = Context::default().resource_tags(&group.tags);
    session.authorize(action, &arn, &context)
}

fn set_desired(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &["AutoScalingGroupName", "DesiredCapacity", "HonorCooldown"],
    )?;
    let name = required(params, "AutoScalingGroupName")?;
    let desired = required(params, "DesiredCapacity")?;
    let desired = desired
        .parse()
        .map_err(|_| autoscaling::validation(format!("DesiredCapacity {desired:?} is not a number")))?;
    let cooldown = params
        .bool("HonorCooldown")
        .map_err(autoscaling::validation)?
        .unwrap_or(false);
    allowed(session, "autoscaling:SetDesiredCapacity", name)?;
    session.account.set_desired_capacity(name, desired, cooldown)?;
    Ok(Xml::default())
}

fn set_protection(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &["AutoScalingGroupName", "InstanceIds", "ProtectedFromScaleIn"],
    )?;
    let name = required(params, "AutoScalingGroupName")?;
    required(params, "ProtectedFromScaleIn")?;
    let protected = params
        .bool("ProtectedFromScaleIn")
        .map_err(autoscaling::validation)?
        .unwrap_or_default();
    allowed(session, "autoscaling:SetInstanceProtection", name)?;
    session
        .account
        .set_instance_protection(name, &params.list("InstanceIds.member"), protected)?;
    Ok(Xml::default())
}

fn terminate(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["InstanceId", "ShouldDecrementDesiredCapacity"])?;
    let id = required(params, "InstanceId")?;
    required(params, "ShouldDecrementDesiredCapacity")?;
    let decrement = params
        .bool("ShouldDecrementDesiredCapacity")
        .map_err(autoscaling::validation)?
        .unwrap_or_default();
    if let Some(name) = session.account.instances.get(id).map(|i| i.scaling_group.clone()) {
        allowed(session, "autoscaling:TerminateInstanceInAutoScalingGroup", &name)?;
    }
    let (name, activity) = session.account.terminate_in_scaling_group(id, decrement)?;
    let mut xml = Xml::default();
    xml.element("Activity", |x| show_activity(x, session, &name, &activity));
    Ok(xml)
}

fn describe_groups(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &[
            "AutoScalingGroupNames",
            "MaxRecords",
            "NextToken",
            "IncludeInstances",
        ],
    )?;
    session.authorize("autoscaling:DescribeAutoScalingGroups", "*", &Context::default())?;
    let names = params.list("AutoScalingGroupNames.member");
    // Names that do not exist are left out, not refused.
    let wanted = |g: &&ScalingGroup| names.is_empty() || names.contains(&g.name);
    let found: Vec<&ScalingGroup> = session.account.scaling_groups.values().filter(wanted).collect();
    let (found, next) = session.cut(page(params, 100)?, found);
    let mut xml = Xml::default();
    xml.list("AutoScalingGroups", "member", found, |x, group| {
        show_group(x, session, group)
    })
    .optional("NextToken", next);
    Ok(xml)
}

fn show_group(x: &mut Xml, session: &Session<'_>, group: &ScalingGroup) {
    let account = &*session.account;
    let template = |x: &mut Xml| {
        x.text("LaunchTemplateId", &group.template.0)
            .text("LaunchTemplateName", &group.template.1)
            .text("Version", 1);
    };
    let types: Vec<&str> = group.types.iter().map(|t| t.name).collect();
    let subnets: Vec<&str> = group.subnets.iter().map(|(s, _)| s.as_str()).collect();
    x.text("AutoScalingGroupName", &group.name)
        .text("AutoScalingGroupARN", account.scaling_arn(group))
        .element("MixedInstancesPolicy", |x| {
            x.element("LaunchTemplate", |x| {
                x.element("LaunchTemplateSpecification", template).list(
                    "Overrides",
                    "member",
                    types,
                    |x, t| {
                        x.text("InstanceType", t);
                    },
                );
            });
        })
        .text("MinSize", group.min)
        .text("MaxSize", group.max)
        .text("DesiredCapacity", group.desired)
        .text("DefaultCooldown", crate::assumptions::DEFAULT_COOLDOWN.as_secs())
        .values(
            "AvailabilityZones",
            "member",
            group.subnets.iter().map(|(_, zone)| zone),
        )
        .text("VPCZoneIdentifier", subnets.join(","))
        .text("HealthCheckType", "EC2")
        .text("HealthCheckGracePeriod", 15)
        .text("CreatedTime", session.time(group.created))
        .text("NewInstancesProtectedFromScaleIn", false);
    if group.deleting {
        x.text("Status", "Delete in progress");
    }
    x.list("Instances", "member", account.members(group), |x, i| {
        x.text("InstanceId", &i.id)
            .text("InstanceType", i.instance_type.name)
            .text("AvailabilityZone", &i.zone)
            .text("LifecycleState", i.lifecycle())
            .text("HealthStatus", if i.unhealthy { "Unhealthy" } else { "Healthy" })
            .element("LaunchTemplate", template)
            .text("ProtectedFromScaleIn", i.protected);
    })
    .list("Tags", "member", &group.tags, |x, (key, value)| {
        x.text("ResourceId", &group.name)
            .text("ResourceType", "auto-scaling-group")
            .text("Key", key)
            .text("Value", value)
            .text("PropagateAtLaunch", true);
    });
}

fn describe_activities(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(
        params,
        &["AutoScalingGroupName", "ActivityIds", "MaxRecords", "NextToken"],
    )?;
    session.authorize("autoscaling:DescribeScalingActivities", "*", &Context::default())?;
    let ids = params.list("ActivityIds.member");
    let groups: Vec<&ScalingGroup> = match params.get("AutoScalingGroupName") {
        Some(name) => vec![session.account.find_scaling_group(name)?],
        None => session.account.scaling_groups.values().collect(),
    };
    let found: Vec<(&str, &Activity)> = groups
        .iter()
        .flat_map(|g| g.activities.iter().map(|a| (g.name.as_str(), a)))
        .filter(|(_, a)| ids.is_empty() || ids.contains(&a.id))
        .collect();
    let (found, next) = session.cut(page(params, 100)?, found);
    let mut xml = Xml::default();
    xml.list("Activities", "member", found, |x, (group, a)| {
        show_activity(x, session, group, a)
    })
    .optional("NextToken", next);
    Ok(xml)
}

fn show_activity(x: &mut Xml, session: &Session<'_>, group: &str, activity: &Activity) {
    x.text("ActivityId", &activity.id)
        .text("AutoScalingGroupName", group)
        .text("Description", &activity.description)
        .text(
            "Cause",
            format!("At {} {}", session.time(activity.start), activity.cause),
        )
        .text("StartTime", session.time(activity.start))
        .optional("EndTime", activity.end.map(|at| session.time(at)))
        .text("StatusCode", activity.status)
        .optional("StatusMessage", activity.message.as_ref())
        .text("Progress", activity.progress)
        .text("Details", "{}");
}
