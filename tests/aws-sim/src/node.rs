//! What a Kubernetes node of an instance looks like, and the steps of its life as the account orders
//! them. Nothing here does I/O; `cluster` carries the steps out.

use std::collections::BTreeMap;

use crate::catalog::InstanceType;

#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NodeTaint {
    pub key: String,
    pub value: String,
    pub effect: &'static str,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    pub instance_id: String,
    pub name: String,
    pub provider_id: String,
    pub address: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<NodeTaint>,
    pub instance_type: &'static InstanceType,
}

/// One step in the life of a node; those of one instance are carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeEffect {
    Register(Box<NodeSpec>),
    Ready(String),
    GpusAllocatable(String),
    /// The machine goes down: its kubelet stops, its Node object stays.
    Stop(String),
    /// The instance is gone: the cloud provider removes its Node object.
    Delete(String),
}

impl NodeEffect {
    pub fn instance_id(&self) -> &str {
        match self {
            NodeEffect::Register(spec) => &spec.instance_id,
            NodeEffect::Ready(id)
            | NodeEffect::GpusAllocatable(id)
            | NodeEffect::Stop(id)
            | NodeEffect::Delete(id) => id,
        }
    }
}
