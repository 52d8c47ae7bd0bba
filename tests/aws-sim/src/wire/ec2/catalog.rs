//! What can be bought, and where: instance types, offerings, subnets.

use super::super::params::passes;
use super::super::{Params, Session, Xml};
use super::{VPC_ID, known, page};
use crate::account::Subnet;
use crate::catalog::{INSTANCE_TYPES, InstanceType, instance_type};
use crate::error::{ApiResult, ec2};
use crate::iam::Context;

pub(super) fn types(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["InstanceType", "Filter", "MaxResults", "NextToken"])?;
    session.authorize("ec2:DescribeInstanceTypes", "*", &Context::default())?;
    let names = params.list("InstanceType");
    let unknown: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|n| instance_type(n).is_none())
        .collect();
    if !unknown.is_empty() {
        return Err(ec2::client(
            "InvalidInstanceType",
            format!(
                "The following supplied instance types do not exist: [{}]",
                unknown.join(", ")
            ),
        ));
    }
    let filters = params.filters();
    let mut found = Vec::new();
    for ty in INSTANCE_TYPES
        .iter()
        .filter(|t| names.is_empty() || names.iter().any(|n| n == t.name))
    {
        let field = |name: &str| match name {
            "instance-type" => Some(vec![ty.name]),
            "processor-info.supported-architecture" => Some(vec!["x86_64"]),
            _ => None,
        };
        if passes(&filters, None, field)? {
            found.push(ty);
        }
    }
    let (found, next) = session.cut(page(params)?, found);
    let mut xml = Xml::default();
    xml.list("instanceTypeSet", "item", found, show_type)
        .optional("nextToken", next);
    Ok(xml)
}

fn show_type(x: &mut Xml, ty: &InstanceType) {
    x.text("instanceType", ty.name)
        .text("currentGeneration", true)
        .text("bareMetal", false)
        .text("hypervisor", "nitro")
        .values("supportedUsageClasses", "item", ["on-demand", "spot"])
        .element("processorInfo", |x| {
            x.values("supportedArchitectures", "item", ["x86_64"]);
        })
        .element("vCpuInfo", |x| {
            x.text("defaultVCpus", ty.vcpus);
        })
        .element("memoryInfo", |x| {
            x.text("sizeInMiB", ty.memory_mib);
        })
        .element("networkInfo", |x| {
            x.text("maximumNetworkInterfaces", ty.interfaces)
                .text("ipv4AddressesPerInterface", ty.addresses_per_interface)
                .text("efaSupported", ty.name.starts_with("p4"));
        });
    if let Some(gpu) = ty.gpu {
        x.element("gpuInfo", |x| {
            x.list("gpus", "item", [gpu], |x, gpu| {
                x.text("name", gpu.name)
                    .text("manufacturer", "NVIDIA")
                    .text("count", gpu.count)
                    .element("memoryInfo", |x| {
                        x.text("sizeInMiB", gpu.memory_mib);
                    });
            })
            .text("totalGpuMemoryInMiB", gpu.count * gpu.memory_mib);
        });
    }
}

pub(super) fn offerings(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["LocationType", "Filter", "MaxResults", "NextToken"])?;
    session.authorize("ec2:DescribeInstanceTypeOfferings", "*", &Context::default())?;
    let by = params.get("LocationType").unwrap_or("region");
    let account = &*session.account;
    let locations: Vec<(usize, String)> = match by {
        "region" => vec![(0, account.settings.region.clone())],
        "availability-zone" => account
            .zones()
            .into_iter()
            .map(str::to_owned)
            .enumerate()
            .collect(),
        "availability-zone-id" => (0..account.zones().len()).map(|i| (i, zone_id(i))).collect(),
        other => {
            return Err(ec2::value(format!(
                "Value ({other}) for parameter locationType is invalid."
            )));
        }
    };
    let filters = params.filters();
    let mut found = Vec::new();
    for ty in INSTANCE_TYPES {
        for (index, location) in locations.iter().filter(|(index, _)| ty.is_offered_in(*index)) {
            let field = |name: &str| match name {
                "instance-type" => Some(vec![ty.name]),
                "location" => Some(vec![location.as_str()]),
                _ => None,
            };
            if passes(&filters, None, field)? {
                found.push((ty.name, location.clone(), *index));
            }
        }
    }
    let (found, next) = session.cut(page(params)?, found);
    let mut xml = Xml::default();
    xml.list(
        "instanceTypeOfferingSet",
        "item",
        found,
        |x, (ty, location, _)| {
            x.text("instanceType", ty)
                .text("locationType", by)
                .text("location", location);
        },
    )
    .optional("nextToken", next);
    Ok(xml)
}

fn zone_id(index: usize) -> String {
    format!("use1-az{}", index + 1)
}

pub(super) fn subnets(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    known(params, &["SubnetId", "Filter", "MaxResults", "NextToken"])?;
    session.authorize("ec2:DescribeSubnets", "*", &Context::default())?;
    let account = &*session.account;
    let ids = params.list("SubnetId");
    let candidates: Vec<&Subnet> = if ids.is_empty() {
        account.subnets.iter().collect()
    } else {
        let find = |id: &String| {
            account.subnet(id).ok_or_else(|| {
                ec2::client(
                    "InvalidSubnetID.NotFound",
                    format!("The subnet ID '{id}' does not exist"),
                )
            })
        };
        ids.iter().map(find).collect::<ApiResult<_>>()?
    };
    let filters = params.filters();
    let mut found = Vec::new();
    for subnet in candidates {
        let field = |name: &str| match name {
            "subnet-id" => Some(vec![subnet.spec.id.as_str()]),
            "availability-zone" | "availabilityZone" => Some(vec![subnet.spec.zone.as_str()]),
            "vpc-id" => Some(vec![VPC_ID]),
            _ => None,
        };
        if passes(&filters, None, field)? {
            found.push(subnet);
        }
    }
    let (found, next) = session.cut(page(params)?, found);
    let mut xml = Xml::default();
    xml.list("subnetSet", "item", found, |x, subnet| {
        x.text("subnetId", &subnet.spec.id)
            .text(
                "subnetArn",
                account.arn("ec2", format_args!("subnet/{}", subnet.spec.id)),
            )
            .text("state", "available")
            .text("vpcId", VPC_ID)
            .text("ownerId", &account.settings.account_id)
            .text("cidrBlock", subnet.cidr())
            .text("availableIpAddressCount", subnet.free_addresses())
            .text("availabilityZone", &subnet.spec.zone)
            .text(
                "availabilityZoneId",
                zone_id(account.zone_index(&subnet.spec.zone)),
            );
    })
    .optional("nextToken", next);
    Ok(xml)
}
