//! Effects on the cluster: objects, pod costs, node marks, status, events. Each call has a deadline.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use crds::Reason;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Resource, ResourceExt as _};
use planner::plan::{Eviction, NodeMark, ObjectRef, PlannedEvent};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Applier, identity};

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A failed effect.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("{operation} {object}")]
    Kubernetes {
        operation: &'static str,
        object: String,
        source: Box<kube::Error>,
    },
    #[error("{operation} {object}: no answer within 10 s")]
    Timeout { operation: &'static str, object: String },
    #[error("{object} has another uid or generation than the plan was made for")]
    OwnerMoved { object: String },
    #[error("{object} exists and is not this model's; delete or rename it, or rename the model")]
    Foreign { object: String },
    #[error("not sent: the lease's deadline has passed, or the process is ending")]
    LeaseLost,
    #[error(transparent)]
    Cloud(crate::cloud::CloudError),
}

impl ApplyError {
    /// Static class, for logs.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::Timeout { .. } => "timeout",
            Self::OwnerMoved { .. } => "owner_moved",
            Self::Foreign { .. } => "foreign",
            Self::LeaseLost => "lease_lost",
            Self::Cloud(_) => "cloud",
        }
    }

    /// What a condition says of it, if it concerns the reader.
    pub(super) fn trouble(&self) -> Option<(Reason, String)> {
        match self {
            Self::Cloud(error) => {
                super::reason_of_cloud(error.class()).map(|reason| (reason, error.to_string()))
            }
            Self::Kubernetes {
                operation,
                object,
                source,
            } => {
                let kube::Error::Api(status) = &**source else {
                    return None;
                };
                let refused = matches!(status.code, 400 | 403 | 422);
                refused.then(|| {
                    let message = format!("Kubernetes refuses to {operation} {object}: {}", status.message);
                    (Reason::ReplicaFailure, message)
                })
            }
            Self::Foreign { .. } => Some((Reason::NameTaken, self.to_string())),
            Self::Timeout { .. } | Self::OwnerMoved { .. } | Self::LeaseLost => None,
        }
    }
}

impl<C> Applier<C> {
    /// A call to the API server, refused when the lease's deadline has passed.
    pub(super) async fn send<T>(
        &self,
        operation: &'static str,
        object: &str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, ApplyError> {
        if !self.permission.may_send() {
            return Err(ApplyError::LeaseLost);
        }
        answered(operation, object, call).await
    }

    /// Server-side apply of a whole object. Forced, so that what others changed comes back; never over an object of the
    /// same name that somebody else made.
    pub(super) async fn apply_object(&self, object: &Value) -> Result<bool, ApplyError> {
        let label = name_of(object);
        let field = |name: &str| object[name].as_str().unwrap_or_default();
        let meta = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let api = self.dynamic(field("apiVersion"), field("kind"), meta("namespace"));
        let stands = answered("get", &label, api.get_metadata_opt(meta("name"))).await?;
        let ours = |labels: &BTreeMap<String, String>| {
            labels.get(crds::key::MANAGED_BY).map(String::as_str) == Some(crds::key::MANAGED_BY_VALUE)
        };
        if stands.is_some_and(|stands| !ours(stands.labels())) {
            return Err(ApplyError::Foreign { object: label });
        }
        let params = PatchParams::apply(crds::FIELD_MANAGER).force();
        let patch = Patch::Apply(object);
        self.send("apply", &label, api.patch(meta("name"), &params, &patch))
            .await?;
        Ok(true)
    }

    pub(super) async fn delete_object(&self, object: &ObjectRef) -> Result<bool, ApplyError> {
        let api = self.dynamic(&object.api_version, &object.kind, &object.namespace);
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(object.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        let label = format!("{} {}/{}", object.kind, object.namespace, object.name);
        match self
            .send("delete", &label, api.delete(&object.name, &params))
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &[404, 409]) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn write_pod_cost(
        &self,
        namespace: &str,
        pod: &str,
        cost: i32,
    ) -> Result<bool, ApplyError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = json!({"metadata": {"annotations": {POD_DELETION_COST: cost.to_string()}}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let label = format!("{namespace}/{pod}");
        match self
            .send(
                "write the deletion cost of",
                &label,
                api.patch_metadata(pod, &params, &patch),
            )
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &[404]) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn mark_node(&self, mark: &NodeMark) -> Result<bool, ApplyError> {
        let (node, unschedulable, since) = match mark {
            NodeMark::Drain { node, since } => (node, true, Value::from(since.to_string())),
            NodeMark::Reclaim { node } => (node, false, Value::Null),
        };
        let patch = json!({
            "metadata": {"annotations": {crds::key::VICTIM_SINCE: since}},
            "spec": {"unschedulable": if unschedulable { Value::from(true) } else { Value::Null }},
        });
        let api: Api<Node> = Api::all(self.client.clone());
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        match self.send("mark", node, api.patch(node, &params, &patch)).await {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &[404]) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// `Ok(false)`: a disruption budget says not now (429), or the pod is gone or another one.
    ///
    /// Not by `Api::evict`: kube 5.0 sends its options as `delete_options`, which no API server reads, and with it the uid.
    pub(super) async fn evict(&self, eviction: &Eviction) -> Result<bool, ApplyError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &eviction.namespace);
        let body = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": eviction.namespace, "name": eviction.pod},
            "deleteOptions": {"preconditions": {"uid": eviction.uid}},
        });
        let params = PostParams::default();
        let call = api.create_subresource::<Value, Value>("eviction", &eviction.pod, &params, &body);
        let label = format!("{}/{}", eviction.namespace, eviction.pod);
        match self.send("evict", &label, call).await {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &[404, 409, 429]) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One merge patch, guarded by the uid: an object of the same name made anew is another one.
    pub(super) async fn write_status<K, S>(
        &self,
        api: &Api<K>,
        object: &K,
        status: &S,
    ) -> Result<bool, ApplyError>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Serialize,
        S: Serialize,
    {
        let stands = serde_json::to_value(object).expect("a custom resource is plain JSON");
        let status = serde_json::to_value(status).expect("a status is plain JSON");
        let status = instead_of(&stands["status"], status);
        let patch = Patch::Merge(json!({"metadata": {"uid": object.uid()}, "status": status}));
        let (name, params) = (object.name_any(), PatchParams::default());
        match self
            .send(
                "write the status of",
                &identity(object),
                api.patch_status(&name, &params, &patch),
            )
            .await
        {
            Ok(_) => Ok(true),
            Err(error) if is_code(&error, &[404, 409]) || is_another_uid(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Events are told once, after the status that they speak of is written; a lost one is lost.
    pub(super) async fn emit<K: Resource<DynamicType = ()>>(&self, object: &K, events: &[PlannedEvent]) {
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let about = object.object_ref(&());
        for planned in events {
            let event = Event {
                type_: if planned.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: planned.reason.name(),
                note: Some(planned.message.chars().take(1000).collect()),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            let call = async { recorder.publish(&event, &about).await.map(drop) };
            if let Err(error) = self.send("tell an event of", &identity(object), call).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "an event is lost");
            }
        }
    }

    fn dynamic(&self, api_version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let plural = match kind {
            // The only plural here that does not follow the rule.
            "NetworkPolicy" => "networkpolicies".to_owned(),
            _ => format!("{}s", kind.to_ascii_lowercase()),
        };
        let resource =
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), &plural);
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }
}

pub(super) async fn answered<T>(
    operation: &'static str,
    object: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, ApplyError> {
    let object = object.to_owned();
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(ApplyError::Kubernetes {
            operation,
            object,
            source: Box::new(source),
        }),
        Err(_) => Err(ApplyError::Timeout { operation, object }),
    }
}

pub(super) fn is_code(error: &ApplyError, codes: &[u16]) -> bool {
    let ApplyError::Kubernetes { source, .. } = error else {
        return false;
    };
    matches!(&**source, kube::Error::Api(status) if codes.contains(&status.code))
}

/// A patch that names the uid of an object that is gone, sent to its namesake, is invalid (and no conflict).
fn is_another_uid(error: &ApplyError) -> bool {
    let ApplyError::Kubernetes { source, .. } = error else {
        return false;
    };
    matches!(&**source, kube::Error::Api(status) if status.code == 422 && status.message.contains("metadata.uid"))
}

/// The merge patch that leaves `after` where `before` stands: such a patch keeps what it does not name, so what is gone is
/// named as null. Otherwise a field would never be cleared, and its status be written on every tick.
fn instead_of(before: &Value, after: Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (before, &after) else {
        return after;
    };
    let mut patch: serde_json::Map<String, Value> = before.keys().map(|k| (k.clone(), Value::Null)).collect();
    for (key, value) in after {
        let stands = before.get(key).unwrap_or(&Value::Null);
        patch.insert(key.clone(), instead_of(stands, value.clone()));
    }
    Value::Object(patch)
}

/// Kind, namespace and name of an object as JSON.
pub(super) fn name_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, meta) = (text(&object["kind"]), &object["metadata"]);
    format!("{kind} {}/{}", text(&meta["namespace"]), text(&meta["name"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7386.
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().unwrap();
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                merge(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    #[test]
    fn a_merged_status_is_the_planned_one() {
        let statuses = [
            Value::Null,
            json!({"assigned": {"a": 3}, "selector": "x", "conditions": [{"type": "Ready"}], "hourlyUsd": "1.00"}),
            json!({"assigned": {"b": 3}, "conditions": [], "replicas": {"ready": 1}}),
            json!({"replicas": {"ready": 0}}),
        ];
        for before in &statuses {
            for after in statuses.iter().skip(1) {
                let mut stands = before.clone();
                merge(&mut stands, &instead_of(before, after.clone()));
                assert_eq!(&stands, after, "from {before}");
            }
        }
    }
}
