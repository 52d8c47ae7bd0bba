//! What makes a pod what it is, as a hash; and what operator settings add to it, resolved once.

use std::collections::BTreeMap;

use crds::ModelDeployment;
use serde::{Deserialize, Serialize};

use super::{RESOLVED, Shape};
use crate::name;

/// First part of both hashes. Another version is another revision of every model, so it changes only together with a
/// way to keep the revisions that run.
const HASH_VERSION: &str = "1";

/// Revision of the pods: the spec inputs and the image. 16 hex digits.
#[must_use]
pub fn revision(model: &ModelDeployment, image: &str) -> String {
    let inputs = inputs(model);
    name::hash(&[HASH_VERSION, &inputs, image], 16)
}

/// What operator settings gave to a revision. It stays while the inputs stay, so that neither a new operator nor a changed
/// flag rolls a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Resolved {
    pub inputs: String,
    pub image: String,
    pub env: BTreeMap<String, String>,
}

impl Resolved {
    pub fn of(shape: &Shape) -> Self {
        let inputs = inputs(&shape.model.spec);
        let mut deployments: Vec<_> = shape.model.deployments.iter().map(|d| &d.metadata).collect();
        deployments.sort_by_key(|meta| &meta.name);
        let annotations = deployments
            .into_iter()
            .filter_map(|meta| meta.annotations.as_ref()?.get(RESOLVED));
        let mut resolved = annotations.filter_map(|json| serde_json::from_str::<Self>(json).ok());
        resolved.find(|r| r.inputs == inputs).unwrap_or_else(|| {
            let own = shape.model.spec.spec.runtime.builtin.image.as_ref();
            Self {
                inputs,
                image: own.unwrap_or(&shape.settings.runtime_image).clone(),
                env: shape.settings.runtime_env.clone(),
            }
        })
    }
}

/// Hash of everything in the spec that a pod template depends on.
fn inputs(model: &ModelDeployment) -> String {
    let spec = &model.spec;
    let (runtime, resources) = (&spec.runtime, &spec.runtime.resources);
    let optional = |value: &Option<String>| value.clone().unwrap_or_default();
    let gpus = resources.gpus.to_string();
    let max_queue = runtime.builtin.max_queue.map(|n| n.to_string());
    let secrets: Vec<&str> = runtime
        .image_pull_secrets
        .iter()
        .map(|s| s.name.as_str())
        .collect();
    name::hash(
        &[
            HASH_VERSION,
            &spec.model.uri,
            &spec.model.version,
            &optional(&spec.model.digest),
            &optional(&runtime.builtin.image),
            &optional(&max_queue),
            &optional(&runtime.service_account_name),
            &optional(&spec.priority_class_name),
            &secrets.join(","),
            &gpus,
            &resources.cpu,
            &resources.memory,
            &runtime.startup_timeout,
            &runtime.drain_timeout,
        ],
        16,
    )
}
