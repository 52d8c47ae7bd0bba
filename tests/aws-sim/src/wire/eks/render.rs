//! EKS objects as its JSON shows them.

use serde_json::{Map, Value, json};

use super::Session;
use crate::clock::SimTime;
use crate::eks::NodeGroup;

/// Epoch seconds, as rest-json writes timestamps.
#[allow(
    clippy::cast_precision_loss,
    reason = "milliseconds of this century fit a double exactly"
)]
fn epoch(session: &Session<'_>, at: SimTime) -> Value {
    json!(session.clock.wall(at).as_millisecond() as f64 / 1000.0)
}

pub(super) fn cluster(session: &Session<'_>) -> Value {
    let account = &*session.account;
    let settings = &account.settings;
    let subnets: Vec<&str> = settings.subnets.iter().map(|s| s.id.as_str()).collect();
    json!({
        "name": settings.cluster,
        "arn": account.cluster_arn(),
        "createdAt": epoch(session, SimTime::default()),
        "version": settings.kubernetes_version,
        "platformVersion": "eks.1",
        "status": "ACTIVE",
        "endpoint": format!("https://SIMULATED.gr7.{}.eks.amazonaws.com", settings.region),
        "roleArn": format!("arn:aws:iam::{}:role/{}-control-plane", settings.account_id, settings.cluster),
        "resourcesVpcConfig": {
            "subnetIds": subnets,
            "securityGroupIds": [],
            "clusterSecurityGroupId": "sg-0c1u5t3r00000000a",
            "vpcId": crate::wire::ec2::VPC_ID,
            "endpointPublicAccess": true,
            "endpointPrivateAccess": true,
            "publicAccessCidrs": ["0.0.0.0/0"],
        },
        "kubernetesNetworkConfig": { "serviceIpv4Cidr": "10.96.0.0/16", "ipFamily": "ipv4" },
        "health": { "issues": [] },
        "tags": {},
    })
}

pub(super) fn node_group(session: &Session<'_>, group: &NodeGroup) -> Value {
    let account = &*session.account;
    let (spec, request) = (&group.spec, &group.request);
    let scaling = group
        .scaling_group
        .as_ref()
        .and_then(|name| account.scaling_groups.get(name));
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| {
        out.insert(key.to_owned(), value);
    };
    put("nodegroupName", json!(group.name()));
    put("nodegroupArn", json!(account.group_arn(group)));
    put("clusterName", json!(account.settings.cluster));
    put("version", json!(spec.version));
    put("releaseVersion", json!(spec.release_version));
    put("createdAt", epoch(session, group.created));
    put("modifiedAt", epoch(session, group.modified));
    put("status", json!(group.status.as_str()));
    put("capacityType", json!(spec.purchase.as_str()));
    put(
        "scalingConfig",
        json!({
            "minSize": spec.min,
            "maxSize": spec.max,
            "desiredSize": scaling.map_or(spec.desired, |s| s.desired),
        }),
    );
    if !spec.types_from_template {
        put(
            "instanceTypes",
            json!(spec.types.iter().map(|t| t.name).collect::<Vec<_>>()),
        );
    }
    put("subnets", json!(request.subnets));
    put("amiType", json!(spec.ami_type));
    put("nodeRole", json!(request.node_role));
    put("labels", json!(request.labels));
    let taints: Vec<Value> = request
        .taints
        .iter()
        .map(|t| json!({ "key": t.key, "value": t.value.clone().unwrap_or_default(), "effect": t.effect }))
        .collect();
    put("taints", json!(taints));
    let groups: Vec<Value> = group
        .scaling_group
        .iter()
        .map(|name| json!({ "name": name }))
        .collect();
    put("resources", json!({ "autoScalingGroups": groups }));
    match &spec.template {
        Some(t) => put(
            "launchTemplate",
            json!({ "id": t.id, "name": t.name, "version": t.version }),
        ),
        None => put("diskSize", json!(spec.disk_size)),
    }
    let issues: Vec<Value> = group
        .issues
        .iter()
        .map(|i| json!({ "code": i.code, "message": i.message, "resourceIds": i.resources }))
        .collect();
    put("health", json!({ "issues": issues }));
    put(
        "updateConfig",
        request
            .update_config
            .map_or(json!({ "maxUnavailable": 1 }), |c| json!(c)),
    );
    if let Some(repair) = request.node_repair_config {
        put("nodeRepairConfig", json!(repair));
    }
    put("tags", json!(group.tags));
    Value::Object(out)
}
