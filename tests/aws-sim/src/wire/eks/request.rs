//! Which operation a request asks for, and its parameters.

use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::bad_request;
use crate::account::Tags;
use crate::eks::request::CreateNodegroup;
use crate::error::{ApiError, ApiResult, eks};

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

pub(super) type Query = Vec<(String, String)>;

pub(super) fn value<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
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

    /// Names of resources that the request speaks of; of an ARN also its parts, such as the group's name.
    pub fn names(&self) -> Vec<String> {
        let named = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        match self {
            Request::DescribeCluster { cluster } | Request::ListNodegroups { cluster, .. } => {
                named(&[cluster.as_str()])
            }
            Request::CreateNodegroup { cluster, body, .. } => {
                named(&[cluster.as_str(), body.nodegroup_name.as_str()])
            }
            Request::DescribeNodegroup { cluster, name } | Request::DeleteNodegroup { cluster, name } => {
                named(&[cluster.as_str(), name.as_str()])
            }
            Request::ListUpdates { cluster, query } | Request::DescribeUpdate { cluster, query, .. } => {
                let group = value(query, "nodegroupName");
                named(
                    &[Some(cluster.as_str()), group]
                        .into_iter()
                        .flatten()
                        .collect::<Vec<_>>(),
                )
            }
            Request::TagResource { arn, .. }
            | Request::UntagResource { arn, .. }
            | Request::ListTagsForResource { arn } => {
                let mut names: Vec<String> = named(&[arn.as_str()]);
                names.extend(arn.split('/').map(str::to_owned));
                names
            }
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
