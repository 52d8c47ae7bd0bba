//! The Kubernetes objects of a model: pure functions from what fleet decided to whole objects, of which only those that
//! differ from what exists are handed on.
//!
//! ```text
//! revision.rs    spec -> hash of what makes a pod; image and environment, resolved once per revision
//! cell.rs        replicas per pool -> Deployments of at most 1,000 replicas, with their share of the rollout bounds
//! deployment.rs  pod.rs      one cell -> Deployment
//! companion.rs   Services, ServiceAccount, PodDisruptionBudget, NetworkPolicy
//! settled.rs     nothing changed since nothing differed: nothing to do
//! drift.rs       desired object vs. observed one -> must it be applied?
//! ```
//!
//! *Invariant:* whatever changes the pod template rolls every replica of every model. The goldens of `workload/tests.rs` say
//! what the template is; a new operator version that has to change it changes it for new revisions only.

mod cell;
mod companion;
mod deployment;
mod drift;
mod pod;
mod revision;
mod settled;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crds::GpuPool;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use serde::Serialize;
use serde_json::Value;

use crate::name;
use crate::observed::{ModelKey, ModelObserved, PoolName, Settings};
use crate::plan::ObjectRef;
use cell::Cell;
use revision::Resolved;

pub use drift::needs_apply;
pub use revision::revision;
pub use settled::Settled;

/// Replicas that one Deployment holds at most: a ReplicaSet of 12,000 is slow to act on and cannot say whom to remove.
pub const CELL_REPLICAS: u32 = 1000;

/// Annotation: hash of the object as it was applied. A field that is no longer wanted shows by it alone.
pub const APPLIED: &str = "pinnace.dev/applied";
/// Annotation of Deployments: what operator settings gave to this revision (image, environment), as JSON.
pub const RESOLVED: &str = "pinnace.dev/resolved";

/// Name of the container that serves.
pub const CONTAINER: &str = "runtime";
pub const HTTP_PORT: i32 = 8000;
pub const GRPC_PORT: i32 = 8001;
pub const ADMIN_PORT: i32 = 8002;

/// Pod names add 17 characters (`-<hash>-<suffix>`), and a host name has 63.
const DEPLOYMENT_NAME_MAX: usize = 46;

/// What fleet decided for one model.
pub struct Shape<'a> {
    pub key: &'a ModelKey,
    /// The spec, and the objects that exist.
    pub model: &'a ModelObserved,
    pub settings: &'a Settings,
    /// Replicas to have now in each pool (a shrink that still waits for cordons keeps the old number).
    pub replicas: &'a BTreeMap<PoolName, u32>,
    /// Pods tolerate the taints of their pool.
    pub pools: &'a BTreeMap<PoolName, GpuPool>,
    /// Pods beyond `replicas` may start during a roll; false where the pools are full.
    pub surge: bool,
}

/// What has to be done to a model's objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Objects {
    /// Objects that differ from what exists, whole, in the order in which to apply them.
    pub apply: Vec<Value>,
    /// Objects of ours that are no longer wanted.
    pub deletes: Vec<ObjectRef>,
    /// Revision of the pods that the Deployments make.
    pub revision: String,
    /// Label selector of the model's pods.
    pub selector: String,
    /// Set when nothing differs: for the next plan to remember.
    pub settled: Option<Settled>,
}

/// The objects of a model; not looked at again while everything is as it was when nothing differed.
#[must_use]
pub fn objects_unless_settled(shape: &Shape, known: Option<&Settled>) -> Objects {
    let inputs = settled::inputs(shape);
    if let Some(known) = known.filter(|known| Some(known.inputs) == inputs) {
        return Objects {
            apply: vec![],
            deletes: vec![],
            revision: known.revision.clone(),
            selector: pod_selector(shape),
            settled: Some(known.clone()),
        };
    }
    let mut objects = objects(shape);
    let revision = || objects.revision.clone();
    if objects.apply.is_empty() && objects.deletes.is_empty() {
        objects.settled = inputs.map(|inputs| Settled {
            inputs,
            revision: revision(),
        });
    }
    objects
}

/// The objects of a model.
#[must_use]
pub fn objects(shape: &Shape) -> Objects {
    let resolved = Resolved::of(shape);
    let revision = revision(&shape.model.spec, &resolved.image);
    let cells: Vec<Cell> = cell::cells(shape).into_iter().filter(|c| !c.is_over()).collect();
    let mut desired = companion::objects(shape, &cells);
    let deployment = |cell: &Cell| deployment::deployment(shape, &resolved, &revision, cell);
    desired.extend(cells.iter().map(|cell| value(&deployment(cell))));
    desired.iter_mut().for_each(stamp);

    let existing = existing(shape);
    let wanted: BTreeSet<(&str, &str)> = desired.iter().map(identity).collect();
    let deletes = existing
        .values()
        .filter(|e| !e.deleting && !wanted.contains(&(e.reference.kind.as_str(), e.reference.name.as_str())))
        .filter(|e| e.reference.kind != "ServiceAccount" || !account_is_used(shape, &e.reference.name))
        .map(|e| e.reference.clone())
        .collect();
    let apply = desired
        .iter()
        .filter(|d| {
            existing
                .get(&identity(d))
                .is_none_or(|e| needs_apply(d, &e.value))
        })
        .cloned()
        .collect();
    Objects {
        apply,
        deletes,
        revision,
        selector: pod_selector(shape),
        settled: None,
    }
}

fn pod_selector(shape: &Shape) -> String {
    format!("{}={}", crds::key::MODEL, shape.key.name)
}

struct Existing {
    reference: ObjectRef,
    deleting: bool,
    value: Value,
}

/// Objects of this model that exist, by kind and name. What others made is not ours to delete.
fn existing<'a>(shape: &Shape<'a>) -> BTreeMap<(&'a str, &'a str), Existing> {
    let model = shape.model;
    let mut all = BTreeMap::new();
    collect(shape, &model.deployments, &mut all);
    collect(shape, &model.services, &mut all);
    collect(shape, &model.service_accounts, &mut all);
    collect(shape, &model.budgets, &mut all);
    collect(shape, &model.network_policies, &mut all);
    all
}

fn collect<'a, K>(shape: &Shape<'a>, objects: &'a [K], all: &mut BTreeMap<(&'a str, &'a str), Existing>)
where
    K: Metadata<Ty = ObjectMeta> + Resource + Serialize,
{
    let owner = shape.model.spec.metadata.uid.as_deref().unwrap_or_default();
    for object in objects {
        let meta = object.metadata();
        let labels = meta.labels.as_ref();
        let managed = labels
            .and_then(|l| l.get(crds::key::MANAGED_BY))
            .is_some_and(|v| v == crds::key::MANAGED_BY_VALUE);
        let owned = meta.owner_references.iter().flatten().any(|r| r.uid == owner);
        let Some(name) = meta.name.as_deref() else {
            continue;
        };
        if !managed || !owned {
            continue;
        }
        let reference = ObjectRef {
            api_version: K::API_VERSION.to_owned(),
            kind: K::KIND.to_owned(),
            namespace: shape.key.namespace.clone(),
            name: name.to_owned(),
            uid: meta.uid.clone().unwrap_or_default(),
        };
        let deleting = meta.deletion_timestamp.is_some();
        let value = value(object);
        all.insert(
            (K::KIND, name),
            Existing {
                reference,
                deleting,
                value,
            },
        );
    }
}

/// Pods that the Deployments still make or hold run under this account: without it, creating them is refused.
fn account_is_used(shape: &Shape, account: &str) -> bool {
    shape.model.deployments.iter().any(|deployment| {
        let pod = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        let named = pod.and_then(|p| p.service_account_name.as_deref()) == Some(account);
        named || !settled(deployment)
    })
}

/// The Deployment has only pods of its newest template.
fn settled(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation >= deployment.metadata.generation
        && status.replicas.unwrap_or(0) == status.updated_replicas.unwrap_or(0)
}

fn identity(object: &Value) -> (&str, &str) {
    let text = |pointer: &str| {
        object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    (text("/kind"), text("/metadata/name"))
}

fn value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("Kubernetes types are maps with string keys")
}

fn stamp(object: &mut Value) {
    let digest = name::hash(&[&object.to_string()], 16);
    object["metadata"]["annotations"][APPLIED] = Value::String(digest);
}

/// Name of what a model has once, apart from the Service that carries its plain name.
fn own_name(shape: &Shape) -> String {
    format!("pinnace-{}", shape.key.name)
}

/// The account that pods run under.
fn account_name(shape: &Shape) -> String {
    let named = shape.model.spec.spec.runtime.service_account_name.clone();
    named.unwrap_or_else(|| own_name(shape))
}

/// `<model>-<pool>-<cell>-<hash>`. Frozen: another name is another Deployment. The hash keeps model `a-b` in pool `c` apart
/// from model `a` in pool `b-c`.
fn cell_name(model: &str, pool: &PoolName, cell: u32) -> String {
    let cell = cell.to_string();
    let digest = name::hash(&[model, &pool.0, &cell], 6);
    let readable = format!("{model}-{}-{cell}", pool.0);
    let room = DEPLOYMENT_NAME_MAX - digest.len() - 1;
    let readable = readable
        .get(..room)
        .unwrap_or(&readable)
        .trim_end_matches(['-', '.']);
    format!("{readable}-{digest}")
}

fn metadata(shape: &Shape, name: String, labels: BTreeMap<String, String>) -> ObjectMeta {
    let owner = &shape.model.spec.metadata;
    ObjectMeta {
        name: Some(name),
        namespace: Some(shape.key.namespace.clone()),
        labels: Some(labels),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{}/{}", crds::GROUP, crds::VERSION),
            kind: "ModelDeployment".to_owned(),
            name: shape.key.name.clone(),
            uid: owner.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}

fn labels(shape: &Shape) -> BTreeMap<String, String> {
    let mut labels = model_label(shape);
    labels.insert("app.kubernetes.io/name".to_owned(), "pinnace-runtime".to_owned());
    labels.insert(
        crds::key::MANAGED_BY.to_owned(),
        crds::key::MANAGED_BY_VALUE.to_owned(),
    );
    labels
}

fn model_label(shape: &Shape) -> BTreeMap<String, String> {
    BTreeMap::from([(crds::key::MODEL.to_owned(), shape.key.name.clone())])
}

/// Labels that tell one cell from all others; the immutable selector of its Deployment.
fn cell_label(shape: &Shape, cell: &Cell) -> BTreeMap<String, String> {
    let mut labels = model_label(shape);
    labels.insert(crds::key::POOL.to_owned(), cell.pool.0.clone());
    labels.insert(crds::key::CELL.to_owned(), cell.index.to_string());
    labels
}

fn cell_labels(shape: &Shape, cell: &Cell) -> BTreeMap<String, String> {
    let mut labels = labels(shape);
    labels.extend(cell_label(shape, cell));
    labels
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector {
        match_labels: Some(labels),
        match_expressions: None,
    }
}

/// Seconds of a duration of the API (`500ms`, `60s`, `10m`, `2h`), rounded up, at most 30 days.
fn seconds(duration: &str) -> i32 {
    const MONTH: u64 = 30 * 86_400;
    let digits = duration.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let count: u64 = digits.parse().unwrap_or(0);
    let seconds = match &duration[digits.len()..] {
        "ms" => count.div_ceil(1000),
        "m" => count.saturating_mul(60),
        "h" => count.saturating_mul(3600),
        _ => count,
    };
    i32::try_from(seconds.min(MONTH)).unwrap_or(i32::MAX)
}
