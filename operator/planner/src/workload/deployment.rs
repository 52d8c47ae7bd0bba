//! One cell as a Deployment.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::cell::Cell;
use super::revision::Resolved;
use super::{RESOLVED, Shape, cell_label, cell_labels, cell_name, metadata, pod, seconds, selector};

/// A roll may wait for nodes (minutes) before its pods even start; only then is "no progress" worth saying.
const NODE_WAIT_SECONDS: i32 = 1800;

pub(super) fn deployment(shape: &Shape, resolved: &Resolved, revision: &str, cell: &Cell) -> Deployment {
    let name = cell_name(&shape.key.name, &cell.pool, cell.index);
    let mut meta = metadata(shape, name, cell_labels(shape, cell));
    let kept = serde_json::to_string(resolved).expect("a map with string keys");
    meta.annotations = Some(BTreeMap::from([(RESOLVED.to_owned(), kept)]));
    Deployment {
        metadata: meta,
        spec: Some(DeploymentSpec {
            replicas: Some(int(cell.replicas)),
            selector: selector(cell_label(shape, cell)),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(int(cell.max_surge))),
                    max_unavailable: Some(IntOrString::Int(int(cell.max_unavailable))),
                }),
            }),
            progress_deadline_seconds: Some(
                seconds(&shape.model.spec.spec.runtime.startup_timeout) + NODE_WAIT_SECONDS,
            ),
            revision_history_limit: Some(2),
            template: pod::template(shape, resolved, revision, cell),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
