//! The CRDs as YAML: what stands in `crds/*.yaml`, and what the charts ship.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::Value;

use crate::{GpuPool, ModelDeployment};

/// File name and content of every CRD.
#[must_use]
pub fn all() -> Vec<(&'static str, String)> {
    vec![
        ("gpupools.yaml", render(GpuPool::crd())),
        ("modeldeployments.yaml", render(ModelDeployment::crd())),
    ]
}

fn render(crd: CustomResourceDefinition) -> String {
    let mut value = serde_json::to_value(crd).expect("a CRD is plain JSON");
    bound_conditions(&mut value);
    let yaml = serde_yaml::to_string(&value).expect("JSON is YAML");
    format!("# Generated from crds/src by `make crds`. Do not edit.\n{yaml}")
}

/// Every list is bounded: conditions come from an embedded Kubernetes type that has no bound of its own.
fn bound_conditions(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(conditions) = map.get_mut("conditions").and_then(Value::as_object_mut)
                && conditions.get("type").is_some_and(|t| t == "array")
            {
                conditions.insert("maxItems".into(), 16.into());
            }
            map.values_mut().for_each(bound_conditions);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_conditions),
        _ => {}
    }
}
