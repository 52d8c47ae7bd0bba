//! Pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt as _;
use planner::observed::{Allocatable, ModelKey, PodObserved, PodOwner, PoolName};

use super::{quantity, trouble};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Keeps what planning needs: 12,000 pods with their environment and volumes are 100 MB.
pub fn cut(pod: &mut Pod) {
    let Some(spec) = &mut pod.spec else { return };
    spec.volumes = None;
    spec.affinity = None;
    spec.tolerations = None;
    for container in spec
        .containers
        .iter_mut()
        .chain(spec.init_containers.iter_mut().flatten())
    {
        container.env = None;
        container.args = None;
        container.command = None;
        container.volume_mounts = None;
        container.liveness_probe = None;
        container.readiness_probe = None;
        container.startup_probe = None;
    }
}

#[must_use]
pub fn observed(pod: &Pod) -> PodObserved {
    let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
    let condition = |type_: &str| {
        let list = status.and_then(|s| s.conditions.as_ref());
        list.into_iter().flatten().find(|c| c.type_ == type_)
    };
    let phase = status.and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let ready = condition("Ready").is_some_and(|c| c.status == "True");
    let unscheduled = condition("PodScheduled").filter(|c| c.status == "False");
    let cost = pod.annotations().get(DELETION_COST);
    PodObserved {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        owner: owner(pod),
        daemon_set: pod.owner_references().iter().any(|o| o.kind == "DaemonSet"),
        node: spec.and_then(|s| s.node_name.clone()).filter(|n| !n.is_empty()),
        ip: status.and_then(|s| s.pod_ip.clone()).filter(|ip| !ip.is_empty()),
        requests: requests(pod),
        created: pod.creation_timestamp().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
        ready,
        ready_since: condition("Ready")
            .and_then(|c| c.last_transition_time.as_ref())
            .map(|t| t.0),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        finished: matches!(phase, "Succeeded" | "Failed"),
        unschedulable: unscheduled.is_some_and(|c| c.reason.as_deref() == Some("Unschedulable")),
        deletion_cost: cost.and_then(|text| text.parse().ok()).unwrap_or(0),
        trouble: if ready { None } else { trouble::of(pod) },
    }
}

fn owner(pod: &Pod) -> Option<PodOwner> {
    let labels = pod.labels();
    if labels.get(crds::key::MANAGED_BY).map(String::as_str) != Some(crds::key::MANAGED_BY_VALUE) {
        return None;
    }
    Some(PodOwner {
        model: ModelKey {
            namespace: pod.namespace()?,
            name: labels.get(crds::key::MODEL)?.clone(),
        },
        pool: PoolName(labels.get(crds::key::POOL)?.clone()),
        cell: labels.get(crds::key::CELL)?.parse().ok()?,
        revision: pod
            .annotations()
            .get(crds::key::REVISION)
            .cloned()
            .unwrap_or_default(),
    })
}

/// As the scheduler counts: containers and sidecars together, or an init container with the sidecars started before it
/// where that is more; and the pod's overhead.
fn requests(pod: &Pod) -> Allocatable {
    let Some(spec) = &pod.spec else {
        return Allocatable::default();
    };
    let of = |container: &Container| {
        let list = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        quantity::requested(list)
    };
    let (mut sidecars, mut most) = (Allocatable::default(), Allocatable::default());
    for init in spec.init_containers.iter().flatten() {
        let here = sidecars.plus(&of(init));
        if init.restart_policy.as_deref() == Some("Always") {
            sidecars = here;
        }
        most = larger(&most, &here);
    }
    let running = spec.containers.iter().fold(sidecars, |sum, c| sum.plus(&of(c)));
    larger(&most, &running).plus(&quantity::requested(spec.overhead.as_ref()))
}

fn larger(a: &Allocatable, b: &Allocatable) -> Allocatable {
    Allocatable {
        gpus: a.gpus.max(b.gpus),
        milli_cpu: a.milli_cpu.max(b.milli_cpu),
        memory_mib: a.memory_mib.max(b.memory_mib),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_of_a_model_is_read() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"namespace": "recsys", "name": "p", "uid": "u",
                "labels": {"app.kubernetes.io/managed-by": "pinnace", "pinnace.dev/model": "ranker",
                    "pinnace.dev/pool": "g5", "pinnace.dev/cell": "3"},
                "annotations": {"pinnace.dev/revision": "r1", (DELETION_COST): "-100"}},
            "spec": {"nodeName": "n", "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "1Gi", "nvidia.com/gpu": "1"}}},
                {"name": "b", "resources": {"requests": {"cpu": "1"}}}],
                "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "3"}}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        let pod = observed(&pod);
        let owner = pod.owner.as_ref().unwrap();
        assert_eq!(
            (owner.model.name.as_str(), owner.cell, owner.revision.as_str()),
            ("ranker", 3, "r1")
        );
        let expected = Allocatable {
            gpus: 1,
            milli_cpu: 3000,
            memory_mib: 1024,
        };
        assert_eq!(pod.requests, expected);
        assert!(pod.ready && !pod.finished && !pod.terminating && pod.deletion_cost == -100);
    }

    #[test]
    fn a_pod_of_somebody_else_has_no_owner() {
        let pod =
            json!({"metadata": {"namespace": "x", "name": "p", "labels": {"pinnace.dev/model": "ranker"}}});
        assert_eq!(observed(&serde_json::from_value(pod).unwrap()).owner, None);
    }
}
