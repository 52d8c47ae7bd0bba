//! EKS: rest-json. Paths name the resource, bodies are JSON.

mod render;
mod request;

use serde_json::{Value, json};

use super::Session;
use super::params::Page;
use crate::ec2::launch_template::{TemplateData, TemplateRef};
use crate::eks::NodeGroup;
use crate::eks::request::CreateNodegroup;
use crate::error::{ApiError, ApiResult, eks};
use crate::iam::Context;
pub use request::Request;
use request::{Query, value};

/// Tagging has error codes of its own.
fn bad_request(message: impl Into<String>) -> ApiError {
    ApiError::new(400, "BadRequestException", message)
}

pub(super) fn run(session: &mut Session<'_>, request: Request) -> ApiResult<Value> {
    match request {
        Request::DescribeCluster { cluster } => {
            session.account.check_cluster(&cluster)?;
            on_cluster(session, "eks:DescribeCluster")?;
            Ok(json!({ "cluster": render::cluster(session) }))
        }
        Request::CreateNodegroup { cluster, body, .. } => {
            session.account.check_cluster(&cluster)?;
            may_create(session, &body)?;
            let group = session.account.create_nodegroup(*body)?.clone();
            Ok(json!({ "nodegroup": render::node_group(session, &group) }))
        }
        Request::ListNodegroups { cluster, query } => {
            session.account.check_cluster(&cluster)?;
            on_cluster(session, "eks:ListNodegroups")?;
            let page = page(&query)?;
            let (names, next) = session.cut(page, session.account.node_groups.keys().cloned().collect());
            Ok(with_token(json!({ "nodegroups": names }), next))
        }
        Request::DescribeNodegroup { cluster, name } => {
            let group = find(session, &cluster, &name)?;
            on_group(session, "eks:DescribeNodegroup", &group, Context::default())?;
            Ok(json!({ "nodegroup": render::node_group(session, &group) }))
        }
        Request::DeleteNodegroup { cluster, name } => {
            let group = find(session, &cluster, &name)?;
            on_group(session, "eks:DeleteNodegroup", &group, Context::default())?;
            let group = session.account.delete_nodegroup(&name)?.clone();
            Ok(json!({ "nodegroup": render::node_group(session, &group) }))
        }
        Request::ListUpdates { cluster, query } => {
            session.account.check_cluster(&cluster)?;
            match value(&query, "nodegroupName") {
                Some(name) => {
                    let group = find(session, &cluster, name)?;
                    on_group(session, "eks:ListUpdates", &group, Context::default())?;
                }
                None => on_cluster(session, "eks:ListUpdates")?,
            }
            Ok(json!({ "updateIds": [] }))
        }
        Request::DescribeUpdate { cluster, id, query } => {
            session.account.check_cluster(&cluster)?;
            match value(&query, "nodegroupName") {
                Some(name) => {
                    let group = find(session, &cluster, name)?;
                    on_group(session, "eks:DescribeUpdate", &group, Context::default())?;
                }
                None => on_cluster(session, "eks:DescribeUpdate")?,
            }
            Err(eks::not_found(format!("No update found for ID: {id}")))
        }
        tagging => tags(session, tagging),
    }
}

fn tags(session: &mut Session<'_>, request: Request) -> ApiResult<Value> {
    let (Request::TagResource { arn, .. }
    | Request::UntagResource { arn, .. }
    | Request::ListTagsForResource { arn }) = &request
    else {
        return Err(bad_request("not a request about tags"));
    };
    let not_found = || {
        ApiError::new(
            404,
            "NotFoundException",
            format!("No resource found for ARN: {arn}"),
        )
    };
    let group = session
        .account
        .node_groups
        .values()
        .find(|g| session.account.group_arn(g) == *arn);
    let group = group.cloned().ok_or_else(not_found)?;
    match request {
        Request::TagResource { tags, .. } => {
            let context = Context::default().request_tags(&tags);
            on_group(session, "eks:TagResource", &group, context)?;
            session
                .account
                .tag_nodegroup(group.name(), tags)
                .map_err(bad_request)?;
            Ok(json!({}))
        }
        Request::UntagResource { keys, .. } => {
            on_group(
                session,
                "eks:UntagResource",
                &group,
                Context::default().tag_keys(&keys),
            )?;
            session.account.untag_nodegroup(group.name(), &keys);
            Ok(json!({}))
        }
        _ => {
            on_group(session, "eks:ListTagsForResource", &group, Context::default())?;
            Ok(json!({ "tags": group.tags }))
        }
    }
}

fn page(query: &Query) -> ApiResult<Page> {
    Page::parse(value(query, "nextToken"), value(query, "maxResults"), 100).map_err(eks::parameter)
}

fn with_token(mut answer: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    answer
}

fn find(session: &Session<'_>, cluster: &str, name: &str) -> ApiResult<NodeGroup> {
    session.account.check_cluster(cluster)?;
    session.account.find_node_group(name).cloned()
}

fn on_cluster(session: &mut Session<'_>, action: &str) -> ApiResult<()> {
    let arn = session.account.cluster_arn();
    session.authorize(action, &arn, &Context::default())
}

fn on_group(session: &mut Session<'_>, action: &str, group: &NodeGroup, context: Context) -> ApiResult<()> {
    let arn = session.account.group_arn(group);
    session.authorize(action, &arn, &context.resource_tags(&group.tags))
}

/// The rights that a create needs besides its own: tagging, passing the role, and starting instances from
/// the caller's template.
fn may_create(session: &mut Session<'_>, request: &CreateNodegroup) -> ApiResult<()> {
    let tagged = Context::default().request_tags(&request.tags);
    let cluster = session.account.cluster_arn();
    session.authorize("eks:CreateNodegroup", &cluster, &tagged)?;
    if !request.tags.is_empty() {
        let cluster = &session.account.settings.cluster;
        let group = session.account.arn(
            "eks",
            format_args!("nodegroup/{cluster}/{}/*", request.nodegroup_name),
        );
        session.authorize("eks:TagResource", &group, &tagged)?;
    }
    let passed = Context::default().with("iam:PassedToService", "eks.amazonaws.com");
    session.authorize("iam:PassRole", &request.node_role, &passed)?;
    let Some(wanted) = &request.launch_template else {
        return Ok(());
    };
    let reference = match (&wanted.id, &wanted.name) {
        (Some(id), _) => TemplateRef::Id(id.clone()),
        (None, Some(name)) => TemplateRef::Name(name.clone()),
        // Refused by the validation that follows.
        (None, None) => return Ok(()),
    };
    let Ok(template) = session.account.find_template(&reference).cloned() else {
        return Ok(());
    };
    let version = template.version(wanted.version.as_deref().unwrap_or("$Default"));
    let data = version.map(|v| v.data.clone()).unwrap_or_default();
    let arn = session
        .account
        .arn("ec2", format_args!("launch-template/{}", template.id));
    session.authorize(
        "ec2:RunInstances",
        &arn,
        &Context::default().resource_tags(&template.tags),
    )?;
    may_run(session, request, &arn, &data)
}

/// RunInstances asks for each kind of resource that a start touches, and CreateTags for each it tags.
fn may_run(
    session: &mut Session<'_>,
    request: &CreateNodegroup,
    template: &str,
    data: &TemplateData,
) -> ApiResult<()> {
    let region = session.account.settings.region.clone();
    let through = || {
        Context::default()
            .with("ec2:LaunchTemplate", template)
            .with("ec2:IsLaunchTemplateResource", "true")
    };
    for resource in [
        "instance/*",
        "volume/*",
        "network-interface/*",
        "security-group/*",
    ] {
        let kind = resource.trim_end_matches("/*");
        let arn = session.account.arn("ec2", resource);
        session.authorize(
            "ec2:RunInstances",
            &arn,
            &through().request_tags(&data.tags_for(kind)),
        )?;
    }
    for subnet in &request.subnets {
        let arn = session.account.arn("ec2", format_args!("subnet/{subnet}"));
        session.authorize("ec2:RunInstances", &arn, &through())?;
    }
    session.authorize(
        "ec2:RunInstances",
        &format!("arn:aws:ec2:{region}::image/*"),
        &through(),
    )?;
    for kind in [
        "instance",
        "volume",
        "network-interface",
        "spot-instances-request",
    ] {
        let tags = data.tags_for(kind);
        if !tags.is_empty() {
            let arn = session.account.arn("ec2", format_args!("{kind}/*"));
            let context = Context::default()
                .request_tags(&tags)
                .with("ec2:CreateAction", "RunInstances");
            session.authorize("ec2:CreateTags", &arn, &context)?;
        }
    }
    Ok(())
}
