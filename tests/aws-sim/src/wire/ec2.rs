//! EC2: the query protocol with `item` lists.

mod catalog;
mod instances;
mod tags;
mod templates;

use super::Session;
use super::params::{Page, Params};
use super::xml::Xml;
use crate::account::Tags;
use crate::error::{ApiError, ApiResult, ec2};

pub(super) const VPC_ID: &str = "vpc-0a1b2c3d4e5f60718";

pub(super) fn run(session: &mut Session<'_>, params: &Params) -> ApiResult<Xml> {
    if params.bool("DryRun").map_err(ec2::value)? == Some(true) {
        return Err(ec2::client("UnsupportedOperation", "DryRun is not simulated"));
    }
    match params.action() {
        "CreateLaunchTemplate" => templates::create(session, params),
        "CreateLaunchTemplateVersion" => templates::create_version(session, params),
        "DeleteLaunchTemplate" => templates::delete(session, params),
        "DescribeLaunchTemplates" => templates::describe(session, params),
        "DescribeLaunchTemplateVersions" => templates::describe_versions(session, params),
        "DescribeInstances" => instances::describe(session, params),
        "TerminateInstances" => instances::terminate(session, params),
        "DescribeInstanceTypes" => catalog::types(session, params),
        "DescribeInstanceTypeOfferings" => catalog::offerings(session, params),
        "DescribeSubnets" => catalog::subnets(session, params),
        "CreateTags" => tags::create(session, params),
        "DeleteTags" => tags::delete(session, params),
        action => Err(ApiError::new(
            400,
            "InvalidAction",
            format!("The action {action} is not valid for this web service."),
        )),
    }
}

fn known(params: &Params, names: &[&str]) -> ApiResult<()> {
    let unknown = |message| ec2::client("UnknownParameter", message);
    params.only(&[names, &["DryRun"]].concat()).map_err(unknown)
}

fn page(params: &Params) -> ApiResult<Page> {
    let invalid = |message| ec2::client("InvalidParameterValue", message);
    Page::parse(params.get("NextToken"), params.get("MaxResults"), 1000).map_err(invalid)
}

fn tag_set(xml: &mut Xml, tags: &Tags) {
    if !tags.is_empty() {
        xml.list("tagSet", "item", tags, |x, (key, value)| {
            x.text("key", key).text("value", value);
        });
    }
}
