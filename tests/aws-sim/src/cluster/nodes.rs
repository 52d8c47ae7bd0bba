//! Node objects. KWOK takes over those that carry its label, and lets go of those that lose it. (Of its annotation it would
//! notice neither: it watches by label, and looks at annotations only when a Node is new.)

use std::path::Path;

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::node::NodeSpec;

pub const GPU: &str = "nvidia.com/gpu";
const KWOK: &str = "kwok.x-k8s.io/node";

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("read the kubeconfig")]
    Kubeconfig(#[source] kube::config::KubeconfigError),
    #[error("make a Kubernetes client")]
    Client(#[source] kube::Error),
    #[error("{verb} node {node}")]
    Call {
        verb: &'static str,
        node: String,
        source: Box<kube::Error>,
    },
}

#[derive(Clone)]
pub struct Nodes {
    api: Api<Node>,
}

impl Nodes {
    pub async fn connect(kubeconfig: &Path) -> Result<Self, ClusterError> {
        let file = Kubeconfig::read_from(kubeconfig).map_err(ClusterError::Kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .map_err(ClusterError::Kubeconfig)?;
        let client = Client::try_from(config).map_err(ClusterError::Client)?;
        Ok(Self {
            api: Api::all(client),
        })
    }

    /// A Node that is registered and not ready yet: KWOK does not know it before [`Self::hand_to_kwok`].
    pub async fn create(&self, spec: &NodeSpec) -> Result<(), ClusterError> {
        let failed = |source| call("create", spec, source);
        let node: Node = serde_json::from_value(object(spec)).expect("object() writes a Node");
        match self.api.create(&PostParams::default(), &node).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let other = self.api.get_opt(&spec.name).await.map_err(failed)?;
                if other
                    .as_ref()
                    .is_some_and(|n| provider_id(n) == Some(&spec.provider_id))
                {
                    return Ok(());
                }
                // Left behind by an earlier account: its instance does not exist any more.
                self.api
                    .delete(&spec.name, &DeleteParams::default())
                    .await
                    .map_err(failed)?;
                self.api
                    .create(&PostParams::default(), &node)
                    .await
                    .map_err(failed)?;
                Ok(())
            }
            Err(other) => Err(failed(other)),
        }
    }

    pub async fn hand_to_kwok(&self, spec: &NodeSpec) -> Result<(), ClusterError> {
        self.label(spec, json!("fake")).await?;
        let status = json!({ "status": { "conditions": [ready(true)] } });
        let patch = Patch::Strategic(&status);
        let failed = |source| call("patch", spec, source);
        self.api
            .patch_status(&spec.name, &PatchParams::default(), &patch)
            .await
            .map_err(failed)?;
        Ok(())
    }

    /// The machine goes down: nobody reports for the Node any more.
    pub async fn take_from_kwok(&self, spec: &NodeSpec) -> Result<(), ClusterError> {
        self.label(spec, Value::Null).await
    }

    async fn label(&self, spec: &NodeSpec, value: Value) -> Result<(), ClusterError> {
        let patch = json!({ "metadata": { "labels": { KWOK: value } } });
        match self
            .api
            .patch(&spec.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 && value.is_null() => Ok(()),
            Err(source) => Err(call("patch", spec, source)),
        }
    }

    /// Makes the GPUs allocatable once the Node is Ready; false: not Ready yet.
    pub async fn show_gpus(&self, spec: &NodeSpec) -> Result<bool, ClusterError> {
        let found = self
            .api
            .get_opt(&spec.name)
            .await
            .map_err(|source| call("get", spec, source))?;
        let Some(node) = found.filter(|n| provider_id(n) == Some(&spec.provider_id)) else {
            return Ok(false);
        };
        if !is_ready(&node) {
            return Ok(false);
        }
        let count = spec.instance_type.gpu.map_or(0, |g| g.count).to_string();
        let patch = json!({ "status": { "capacity": { GPU: count }, "allocatable": { GPU: count } } });
        let patched = self
            .api
            .patch_status(&spec.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        patched.map_err(|source| call("patch", spec, source))?;
        Ok(true)
    }

    /// Removes the Node object, if it is the one of this instance.
    pub async fn delete(&self, spec: &NodeSpec) -> Result<(), ClusterError> {
        let failed = |source| call("delete", spec, source);
        let found = self.api.get_opt(&spec.name).await.map_err(failed)?;
        let Some(node) = found.filter(|n| provider_id(n) == Some(&spec.provider_id)) else {
            return Ok(());
        };
        let exactly = Preconditions {
            uid: node.metadata.uid,
            resource_version: None,
        };
        let params = DeleteParams {
            preconditions: Some(exactly),
            ..DeleteParams::default()
        };
        match self.api.delete(&spec.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(other) => Err(failed(other)),
        }
    }
}

fn call(verb: &'static str, spec: &NodeSpec, source: kube::Error) -> ClusterError {
    ClusterError::Call {
        verb,
        node: spec.name.clone(),
        source: Box::new(source),
    }
}

fn provider_id(node: &Node) -> Option<&String> {
    node.spec.as_ref()?.provider_id.as_ref()
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|s| s.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

fn ready(yes: bool) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": "Ready",
        "status": if yes { "True" } else { "False" },
        "reason": if yes { "KubeletReady" } else { "KubeletNotReady" },
        "message": if yes { "simulated kubelet is ready" } else { "simulated kubelet is starting" },
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    })
}

fn object(spec: &NodeSpec) -> Value {
    let resources = spec.instance_type.node_resources();
    let pods = spec.instance_type.max_pods.to_string();
    let taints: Vec<Value> = spec
        .taints
        .iter()
        .map(|t| json!({ "key": t.key, "value": t.value, "effect": t.effect }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": spec.name, "labels": spec.labels },
        "spec": { "providerID": spec.provider_id, "taints": taints },
        "status": {
            "capacity": {
                "cpu": format!("{}m", resources.cpu_milli),
                "memory": format!("{}Mi", resources.memory_mib),
                "pods": pods,
            },
            "allocatable": {
                "cpu": format!("{}m", resources.allocatable_cpu_milli),
                "memory": format!("{}Mi", resources.allocatable_memory_mib),
                "pods": pods,
            },
            "addresses": [
                { "type": "InternalIP", "address": spec.address },
                { "type": "Hostname", "address": spec.name },
            ],
            "conditions": [ready(false)],
            "nodeInfo": {
                "architecture": "amd64", "operatingSystem": "linux", "kubeletVersion": "fake",
                "kubeProxyVersion": "fake", "containerRuntimeVersion": "fake", "kernelVersion": "fake",
                "osImage": "fake", "bootID": "", "machineID": "", "systemUUID": "",
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::instance_type;
    use crate::node::NodeTaint;

    #[test]
    fn a_simulated_node_is_a_node_with_the_size_of_its_type() {
        let spec = NodeSpec {
            instance_id: "i-1".to_owned(),
            name: "ip-10-1-0-4.ec2.internal".to_owned(),
            provider_id: "aws:///us-east-1a/i-1".to_owned(),
            address: "10.1.0.4".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            taints: vec![NodeTaint {
                key: "k".to_owned(),
                value: String::new(),
                effect: "NoSchedule",
            }],
            instance_type: instance_type("g5.xlarge").expect("in the table"),
        };
        let node: Node = serde_json::from_value(object(&spec)).expect("a Node");
        assert!(!is_ready(&node));
        assert_eq!(provider_id(&node), Some(&spec.provider_id));
        let allocatable = node.status.and_then(|s| s.allocatable).expect("set");
        assert_eq!(allocatable["cpu"].0, "3920m");
        assert_eq!(allocatable["memory"].0, "14162Mi");
        assert!(!allocatable.contains_key(GPU), "GPUs come later");
    }
}
