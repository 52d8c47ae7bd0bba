//! Nodes of pools.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use planner::observed::{NodeObserved, PoolName, ProviderId};

use super::quantity;

/// Image lists are most of a Node.
pub fn cut(node: &mut Node) {
    if let Some(status) = &mut node.status {
        status.images = None;
        status.node_info = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}

/// `None` for a node that no cloud knows (without a provider id) or that is in no pool.
#[must_use]
pub fn observed(node: &Node) -> Option<(ProviderId, NodeObserved)> {
    let spec = node.spec.as_ref()?;
    let status = node.status.as_ref();
    let id = spec.provider_id.clone().filter(|id| !id.is_empty())?;
    let pool = PoolName(node.labels().get(crds::key::POOL)?.clone());
    let conditions = status.and_then(|s| s.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    let victim = node.annotations().get(crds::key::VICTIM_SINCE);
    let observed = NodeObserved {
        name: node.name_any(),
        pool,
        ready,
        unschedulable: spec.unschedulable.unwrap_or(false),
        victim_since: victim.and_then(|text| text.parse().ok()),
        created: node.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        allocatable: quantity::allocatable(status.and_then(|s| s.allocatable.as_ref())),
    };
    Some((ProviderId(id), observed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_node_is_read() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "labels": {"pinnace.dev/pool": "g5"},
                "annotations": {"pinnace.dev/victim-since": "2026-11-25T06:00:00Z"}},
            "spec": {"providerID": "aws:///us-east-1a/i-1", "unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "allocatable": {"nvidia.com/gpu": "1"}},
        }))
        .unwrap();
        let (id, node) = observed(&node).unwrap();
        assert_eq!(id.instance_id(), "i-1");
        assert!(node.ready && node.unschedulable && node.victim_since.is_some());
        assert_eq!(node.allocatable.gpus, 1);
    }

    #[test]
    fn a_node_that_no_cloud_knows_is_left_out() {
        let node = json!({"metadata": {"name": "n", "labels": {"pinnace.dev/pool": "g5"}}, "spec": {}});
        assert!(observed(&serde_json::from_value(node).unwrap()).is_none());
    }
}
