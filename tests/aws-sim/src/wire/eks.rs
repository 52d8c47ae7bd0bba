//! EKS: rest-json. Paths name the resource, bodies are JSON.

mod render;

use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::Session;
use super::params::Page;
use crate::account::Tags;
use crate::ec2::launch_template::{TemplateData, TemplateRef};
use crate::eks::NodeGroup;
use crate::eks::validate::CreateNodegroup;
use crate::error::{ApiError, ApiResult, eks};
use crate::iam::Context;

#[derive(Clone, Debug)]
pub enum Request {
    DescribeCluster {
        cluster: String,
    },
    CreateNodegroup {
        cluster: String,
        body: Box<CreateNodegroup>,
        raw: Value,
    },
    ListNodegroups {
        cluster: String,
        query: Query,
    },
    DescribeNodegroup {
        cluster: String,
        name: String,
    },
    DeleteNodegroup {
        cluster: String,
        name: String,
    },
    ListUpdates {
        cluster: String,
        query: Query,
    },
    DescribeUpdate {
        cluster: String,
        id: String,
        query: Query,
    },
    TagResource {
        arn: String,
        tags: Tags,
    },
    UntagResource {
        arn: String,
        keys: Vec<String>,
    },
    ListTagsForResource {
        arn: String,
    },
}

type Query = Vec<(String, String)>;

fn value<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
}

impl Request {
    pub fn parse(method: &Method, uri: &Uri, body: &[u8]) -> ApiResult<Self> {
        // Split before decoding: a resource name may hold an encoded slash, as ARNs do.
        let segments: Vec<String> = uri
            .path()
            .trim_matches('/')
            .split('/')
            .map(|s| percent_decode_str(s).decode_utf8_lossy().into_owned())
            .collect();
        let query: Query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let request = match (method.as_str(), &segments[..]) {
            ("GET", ["clusters", cluster]) => Request::DescribeCluster {
                cluster: (*cluster).to_owned(),
            },
            ("POST", ["clusters", cluster, "node-groups"]) => {
                let raw = json_body(body)?;
                let parsed = serde_json::from_value(raw.clone())
                    .map_err(|e| eks::parameter(format!("CreateNodegroup: {e}")))?;
                Request::CreateNodegroup {
                    cluster: (*cluster).to_owned(),
                    body: Box::new(parsed),
                    raw,
                }
            }
            ("GET", ["clusters", cluster, "node-groups"]) => Request::ListNodegroups {
                cluster: (*cluster).to_owned(),
                query,
            },
            ("GET", ["clusters", cluster, "node-groups", name]) => Request::DescribeNodegroup {
                cluster: (*cluster).to_owned(),
                name: (*name).to_owned(),
            },
            ("DELETE", ["clusters", cluster, "node-groups", name]) => Request::DeleteNodegroup {
                cluster: (*cluster).to_owned(),
                name: (*name).to_owned(),
            },
            ("GET", ["clusters", cluster, "updates"]) => Request::ListUpdates {
                cluster: (*cluster).to_owned(),
                query,
            },
            ("GET", ["clusters", cluster, "updates", id]) => Request::DescribeUpdate {
                cluster: (*cluster).to_owned(),
                id: (*id).to_owned(),
                query,
            },
            ("POST", ["tags", arn @ ..]) => {
                let tags = serde_json::from_value(json_body(body)?["tags"].clone())
                    .map_err(|e| bad_request(format!("tags: {e}")))?;
                Request::TagResource {
                    arn: arn.join("/"),
                    tags,
                }
            }
            ("DELETE", ["tags", arn @ ..]) => {
                let keys = query
                    .iter()
                    .filter(|(k, _)| k == "tagKeys")
                    .map(|(_, v)| v.clone());
                Request::UntagResource {
                    arn: arn.join("/"),
                    keys: keys.collect(),
                }
            }
            ("GET", ["tags", arn @ ..]) => Request::ListTagsForResource { arn: arn.join("/") },
            _ => {
                let message = format!("{method} {} is not simulated", uri.path());
                return Err(ApiError::new(404, "UnknownOperationException", message));
            }
        };
        Ok(request)
    }

    pub fn action(&self) -> &'static str {
        match self {
            Request::DescribeCluster { .. } => "DescribeCluster",
            Request::CreateNodegroup { .. } => "CreateNodegroup",
            Request::ListNodegroups { .. } => "ListNodegroups",
            Request::DescribeNodegroup { .. } => "DescribeNodegroup",
            Request::DeleteNodegroup { .. } => "DeleteNodegroup",
            Request::ListUpdates { .. } => "ListUpdates",
            Request::DescribeUpdate { .. } => "DescribeUpdate",
            Request::TagResource { .. } => "TagResource",
            Request::UntagResource { .. } => "UntagResource",
            Request::ListTagsForResource { .. } => "ListTagsForResource",
        }
    }

    /// For the journal.
    pub fn parameters(&self) -> Value {
        match self {
            Request::DescribeCluster { cluster } => json!({ "name": cluster }),
            Request::CreateNodegroup { cluster, raw, .. } => {
                let mut shown = raw.clone();
                shown["clusterName"] = json!(cluster);
                shown
            }
            Request::ListNodegroups { cluster, .. } | Request::ListUpdates { cluster, .. } => {
                json!({ "clusterName": cluster })
            }
            Request::DescribeNodegroup { cluster, name } | Request::DeleteNodegroup { cluster, name } => {
                json!({ "clusterName": cluster, "nodegroupName": name })
            }
            Request::DescribeUpdate { cluster, id, .. } => json!({ "name": cluster, "updateId": id }),
            Request::TagResource { arn, tags } => json!({ "resourceArn": arn, "tags": tags }),
            Request::UntagResource { arn, keys } => json!({ "resourceArn": arn, "tagKeys": keys }),
            Request::ListTagsForResource { arn } => json!({ "resourceArn": arn }),
        }
    }
}

fn json_body(body: &[u8]) -> ApiResult<Value> {
    serde_json::from_slice(body).map_err(|e| ApiError::new(400, "SerializationException", e.to_string()))
}

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
            let (names, next) = page.cut(session.account.node_groups.keys().cloned().collect());
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
