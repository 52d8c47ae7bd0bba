//! Instances on the wire.

use super::super::params::passes;
use super::super::{Params, Session, Xml};
use super::{VPC_ID, known, page, tag_set};
use crate::catalog::Purchase;
use crate::ec2::instance::{Instance, InstanceState};
use crate::error::{ApiResult, ec2};
use crate::iam::Context;

pub(super) fn describe(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["InstanceId", "Filter", "MaxResults", "NextToken"])?;
    session.authorize("ec2:DescribeInstances", "*", &Context::default())?;
    let ids = params.list("InstanceId");
    let candidates = if ids.is_empty() {
        session.account.instances.values().collect()
    } else {
        session.account.find_instances(&ids)?
    };
    let filters = params.filters();
    let mut found = Vec::new();
    for instance in candidates {
        let field = |name: &str| match name {
            "instance-state-name" => Some(vec![instance.state().name()]),
            "instance-type" => Some(vec![instance.instance_type.name]),
            "instance-id" => Some(vec![instance.id.as_str()]),
            "availability-zone" => Some(vec![instance.zone.as_str()]),
            "subnet-id" => Some(vec![instance.subnet.as_str()]),
            "vpc-id" => Some(vec![VPC_ID]),
            _ => None,
        };
        if passes(&filters, Some(&instance.tags), field)? {
            found.push(instance);
        }
    }
    let (found, next) = session.cut(page(params)?, found);
    let mut xml = Xml::default();
    let owner = &session.account.settings.account_id;
    xml.list("reservationSet", "item", found, |x, instance| {
        x.text("reservationId", instance.id.replacen("i-", "r-", 1))
            .text("ownerId", owner)
            .element("groupSet", |_| {})
            .list("instancesSet", "item", [instance], |x, i| show(x, session, i));
    })
    .optional("nextToken", next);
    Ok(xml)
}

fn show(x: &mut Xml, session: &Session<'_>, instance: &Instance) {
    let gone = instance.state() == InstanceState::Terminated;
    x.text("instanceId", &instance.id)
        .text("imageId", &instance.image_id)
        .element("instanceState", |x| show_state(x, instance.state()))
        .text("instanceType", instance.instance_type.name)
        .text("launchTime", session.time(instance.launched))
        .element("placement", |x| {
            x.text("availabilityZone", &instance.zone)
                .text("tenancy", "default");
        })
        .text("architecture", "x86_64")
        .text("rootDeviceType", "ebs")
        .text("virtualizationType", "hvm");
    if gone {
        x.text("privateDnsName", "");
    } else {
        x.text(
            "privateDnsName",
            instance.private_dns_name(&session.account.settings.region),
        )
        .text("privateIpAddress", instance.address)
        .text("subnetId", &instance.subnet)
        .text("vpcId", VPC_ID);
    }
    if instance.purchase == Purchase::Spot {
        x.text("instanceLifecycle", "spot");
    }
    tag_set(x, &instance.tags);
}

fn show_state(x: &mut Xml, state: InstanceState) {
    x.text("code", state.code()).text("name", state.name());
}

pub(super) fn terminate(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["InstanceId"])?;
    let ids = params.list("InstanceId");
    if ids.is_empty() {
        return Err(ec2::missing("InstanceId"));
    }
    let found: Vec<Instance> = session
        .account
        .find_instances(&ids)?
        .into_iter()
        .cloned()
        .collect();
    for instance in found {
        let arn = session
            .account
            .arn("ec2", format_args!("instance/{}", instance.id));
        let context = Context::default().resource_tags(&instance.tags);
        session.authorize("ec2:TerminateInstances", &arn, &context)?;
    }
    let changes = session.account.terminate_instances(&ids)?;
    let mut xml = Xml::default();
    xml.list("instancesSet", "item", changes, |x, (id, before, after)| {
        x.text("instanceId", id)
            .element("currentState", |x| show_state(x, after))
            .element("previousState", |x| show_state(x, before));
    });
    Ok(xml)
}
