//! Is a spec usable? What the schema cannot say: things that refer to other objects or to the cloud.

use crds::gpu_pool::Purpose;
use crds::{GpuPool, Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeMap;

use crate::observed::{ModelKey, ModelObserved, PoolName};
use crate::view::{self, View};

/// Why a spec, or a part of it, cannot be used: the reason and the remedy.
pub type Refusal = (Reason, String);

/// What became of a model's spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelVerdict {
    /// Pools of the placement that may be used, in order, with their upper bound on replicas.
    pub pools: Vec<(PoolName, Option<u32>)>,
    /// The first thing that is wrong, if any.
    pub refusal: Option<Refusal>,
    /// The refusal is such that nothing of the model's objects may change.
    pub frozen: bool,
}

#[must_use]
pub fn model(view: &View, key: &ModelKey, model: &ModelObserved) -> ModelVerdict {
    let mut verdict = ModelVerdict {
        refusal: runtime_refusal(view, key, model),
        ..ModelVerdict::default()
    };
    verdict.frozen = verdict.refusal.is_some();
    for placement in &model.spec.spec.placement {
        let name = PoolName(placement.pool.clone());
        match pool_refusal(view, key, model, &name) {
            None => {
                let bound = placement.max_replicas.map(|max| u32::try_from(max).unwrap_or(0));
                verdict.pools.push((name, bound));
            }
            Some(refusal) => verdict.refusal = verdict.refusal.or(Some(refusal)),
        }
    }
    // Without a pool nothing is made of a model that has nothing yet; what serves already goes on as it is.
    verdict.frozen |= verdict.pools.is_empty() && model.deployments.is_empty();
    verdict
}

fn runtime_refusal(view: &View, key: &ModelKey, model: &ModelObserved) -> Option<Refusal> {
    let runtime = &model.spec.spec.runtime;
    let allowed = &view.observed.settings.allowed_runtime_images;
    if let Some(image) = &runtime.builtin.image
        && !allowed.is_empty()
        && !allowed.iter().any(|prefix| image.starts_with(prefix))
    {
        let message = format!(
            "runtime.builtin.image: {image} is not allowed here; use an image that starts with {}",
            allowed.join(" or ")
        );
        return Some((Reason::ImageNotAllowed, message));
    }
    if let Some(account) = &runtime.service_account_name {
        let namespace = &key.namespace;
        let remedy = format!(
            "kubectl label serviceaccount -n {namespace} {account} {}=true",
            crds::key::ALLOW_RUNTIME
        );
        let problem = match &model.named_account {
            None => format!("does not exist in namespace {namespace}; create it, then: {remedy}"),
            Some(named) if !named.allows_runtime => {
                format!("is not marked for use by models; if it may be used: {remedy}")
            }
            Some(_) => return None,
        };
        let message = format!("runtime.serviceAccountName: ServiceAccount {account} {problem}");
        return Some((Reason::ServiceAccountNotAllowed, message));
    }
    None
}

fn pool_refusal(view: &View, key: &ModelKey, model: &ModelObserved, name: &PoolName) -> Option<Refusal> {
    let PoolName(pool_name) = name;
    let Some(pool) = view.observed.pools.get(name) else {
        let message = format!("placement: GpuPool {pool_name} does not exist; create it, or name another");
        return Some((Reason::PoolNotFound, message));
    };
    if pool.metadata.deletion_timestamp.is_some() {
        let message = format!("placement: GpuPool {pool_name} is being deleted; name another pool");
        return Some((Reason::PoolDeleting, message));
    }
    if pool.spec.purpose != Purpose::Inference {
        let message =
            format!("placement: GpuPool {pool_name} is for training; name a pool with purpose: Inference");
        return Some((Reason::SpecInvalid, message));
    }
    let labels = view.observed.namespaces.get(&key.namespace);
    if !labels.is_some_and(|labels| selects(&pool.spec.namespace_selector, labels)) {
        let message = format!(
            "placement: GpuPool {pool_name} does not admit namespace {}; its owner decides by spec.namespaceSelector",
            key.namespace
        );
        return Some((Reason::NamespaceNotAllowed, message));
    }
    let request = view::request_of(&model.spec);
    let rooms: Vec<_> = pool
        .spec
        .instance_types
        .iter()
        .filter_map(|t| view.new_node(name, t))
        .collect();
    if !rooms.is_empty() && rooms.iter().all(|room| room.fits(&request) == 0) {
        let largest = rooms.iter().fold((0, 0, 0), |most, r| {
            (
                most.0.max(r.gpus),
                most.1.max(r.milli_cpu),
                most.2.max(r.memory_mib),
            )
        });
        let message = format!(
            "runtime.resources: a replica ({} GPUs, {}m CPU, {}Mi) fits on no node of GpuPool {pool_name}, \
             which have at most {} GPUs, {}m CPU and {}Mi left for models",
            request.gpus, request.milli_cpu, request.memory_mib, largest.0, largest.1, largest.2
        );
        return Some((Reason::ResourcesDoNotFit, message));
    }
    None
}

/// What is wrong with a pool's spec, given what AWS sells.
#[must_use]
pub fn pool(view: &View, pool: &GpuPool) -> Option<Refusal> {
    let cloud = view.cloud()?;
    let spec = &pool.spec;
    if is_unasked(view, pool) {
        return None;
    }
    if let Some(unknown) = spec.instance_types.iter().find(|t| !cloud.types.contains_key(*t)) {
        let message = format!("instanceTypes: AWS knows no {unknown} in this region; correct or remove it");
        return Some((Reason::UnknownInstanceType, message));
    }
    let gpus: BTreeMap<u32, &String> = spec
        .instance_types
        .iter()
        .map(|t| (cloud.types[t].gpus, t))
        .collect();
    if let Some(plain) = gpus.get(&0) {
        let message = format!("instanceTypes: {plain} has no GPU; remove it");
        return Some((Reason::SpecInvalid, message));
    }
    if gpus.len() > 1 {
        let list: Vec<_> = gpus.iter().map(|(n, t)| format!("{t} has {n}")).collect();
        let message = format!(
            "instanceTypes: all need the same number of GPUs a node, but {}; make a pool for each",
            list.join(", ")
        );
        return Some((Reason::MixedGpuCounts, message));
    }
    if let Some(missing) = spec.subnet_ids.iter().find(|s| !cloud.subnets.contains_key(*s)) {
        let message = format!("subnetIds: {missing} does not exist in this account and region; correct it");
        return Some((Reason::SubnetNotFound, message));
    }
    let offered = |t: &String| {
        let zones = spec.subnet_ids.iter().filter_map(|s| cloud.subnets.get(s));
        zones
            .into_iter()
            .any(|zone| cloud.offered.get(t).is_some_and(|z| z.contains(zone)))
    };
    if let Some(nowhere) = spec.instance_types.iter().find(|t| !offered(t)) {
        let message = format!(
            "instanceTypes: {nowhere} is offered in no zone of subnetIds; add a subnet in another zone"
        );
        return Some((Reason::InstanceTypeNotOffered, message));
    }
    None
}

/// The pool names something that AWS has not been asked about yet.
#[must_use]
pub fn is_unasked(view: &View, pool: &GpuPool) -> bool {
    let names = pool.spec.instance_types.iter().chain(&pool.spec.subnet_ids);
    view.cloud()
        .is_none_or(|cloud| names.into_iter().any(|name| cloud.unasked.contains(name)))
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    equal.into_iter().all(|(k, v)| labels.get(k) == Some(v))
        && expressions.all(|e| {
            let value = labels.get(&e.key);
            let values = e.values.as_deref().unwrap_or_default();
            match e.operator.as_str() {
                "In" => value.is_some_and(|v| values.contains(v)),
                "NotIn" => value.is_none_or(|v| !values.contains(v)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    #[test]
    fn selectors_follow_kubernetes() {
        let labels = BTreeMap::from([("team".to_owned(), "recsys".to_owned())]);
        let requirement = |operator: &str, key: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.into(),
                operator: operator.into(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            match_labels: None,
        };
        assert!(selects(&LabelSelector::default(), &labels));
        assert!(selects(&requirement("In", "team", &["recsys"]), &labels));
        assert!(!selects(&requirement("NotIn", "team", &["recsys"]), &labels));
        assert!(selects(&requirement("NotIn", "other", &["x"]), &labels));
        assert!(selects(&requirement("Exists", "team", &[]), &labels));
        assert!(!selects(&requirement("DoesNotExist", "team", &[]), &labels));
        assert!(!selects(&requirement("Unheard", "team", &[]), &labels));
    }
}
