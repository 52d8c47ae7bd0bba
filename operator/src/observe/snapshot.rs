//! Stores, inventory and settings put together.

use std::collections::{BTreeMap, BTreeSet};

use crds::ModelDeployment;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::{Selector, SelectorExt as _};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use planner::observed::{
    AccountObserved, CloudObserved, CloudTrouble, ModelKey, ModelObserved, Observed, PodObserved, PoolName,
    Settings,
};

use super::{Stores, node, pod};

/// Our objects of one kind, by the model that they belong to.
type ByModel<K> = BTreeMap<ModelKey, Vec<K>>;

impl Stores {
    /// The snapshot of this moment.
    #[must_use]
    pub fn observe(
        &self,
        settings: &Settings,
        (cloud, unread): (Option<CloudObserved>, Option<CloudTrouble>),
        launch_tokens: u32,
    ) -> Observed {
        let nodes: BTreeMap<_, _> = self
            .nodes
            .state()
            .iter()
            .filter_map(|n| node::observed(n))
            .collect();
        let names: BTreeSet<&str> = nodes.values().map(|n| n.name.as_str()).collect();
        let on_pool =
            |p: &PodObserved| p.owner.is_some() || p.node.as_deref().is_some_and(|n| names.contains(n));
        let pods: Vec<_> = self
            .pods
            .state()
            .iter()
            .map(|p| pod::observed(p))
            .filter(on_pool)
            .collect();
        Observed {
            settings: settings.clone(),
            models: self.observe_models(),
            pools: self
                .pools
                .state()
                .iter()
                .map(|p| (PoolName(p.name_any()), p.as_ref().clone()))
                .collect(),
            namespaces: self
                .namespaces
                .state()
                .iter()
                .map(|n| (n.name_any(), n.labels().clone()))
                .collect(),
            priority_classes: self
                .priorities
                .state()
                .iter()
                .map(|p| (p.name_any(), p.value))
                .collect(),
            nodes,
            pods,
            cloud,
            unread,
            launch_tokens,
            load: BTreeMap::new(),
            memories: BTreeMap::new(),
            settled: BTreeMap::new(),
        }
    }

    fn observe_models(&self) -> BTreeMap<ModelKey, ModelObserved> {
        let models = self.models.state();
        let uids = models
            .iter()
            .map(|m| (key_of(m.as_ref()), m.uid().unwrap_or_default()))
            .collect();
        let mut deployments = by_model(&self.deployments, &uids);
        let mut services = by_model(&self.services, &uids);
        let mut accounts = by_model(&self.accounts, &uids);
        let mut budgets = by_model(&self.budgets, &uids);
        let mut policies = by_model(&self.policies, &uids);
        let named: BTreeMap<(String, String), bool> = self
            .accounts
            .state()
            .iter()
            .map(|a| {
                (
                    (a.namespace().unwrap_or_default(), a.name_any()),
                    allows_runtime(a.labels()),
                )
            })
            .collect();
        let foreign = others_budgets(&self.budgets);
        let observed = models.iter().map(|model| {
            let key = key_of(model.as_ref());
            let account = model.spec.runtime.service_account_name.as_ref();
            let account = account.and_then(|name| named.get(&(key.namespace.clone(), name.clone())));
            let deployments = deployments.remove(&key).unwrap_or_default();
            let near = foreign.get(&key.namespace).map_or(&[][..], Vec::as_slice);
            let observed = ModelObserved {
                spec: model.as_ref().clone(),
                foreign_budgets: foreign_budgets(near, &deployments),
                deployments,
                services: services.remove(&key).unwrap_or_default(),
                service_accounts: accounts.remove(&key).unwrap_or_default(),
                budgets: budgets.remove(&key).unwrap_or_default(),
                network_policies: policies.remove(&key).unwrap_or_default(),
                named_account: account.map(|allows_runtime| AccountObserved {
                    allows_runtime: *allows_runtime,
                }),
            };
            (key, observed)
        });
        observed.collect()
    }
}

fn key_of(model: &ModelDeployment) -> ModelKey {
    ModelKey {
        namespace: model.namespace().unwrap_or_default(),
        name: model.name_any(),
    }
}

fn allows_runtime(labels: &BTreeMap<String, String>) -> bool {
    labels.get(crds::key::ALLOW_RUNTIME).is_some_and(|v| v == "true")
}

/// `uids`: of the models that live. An object of a deleted model of the same name waits for the garbage collector.
fn by_model<K>(store: &Store<K>, uids: &BTreeMap<ModelKey, String>) -> ByModel<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut all = ByModel::<K>::new();
    for object in store.state() {
        if let Some(key) = model_of(object.as_ref()).filter(|key| !is_of_another(object.as_ref(), key, uids))
        {
            all.entry(key).or_default().push(object.as_ref().clone());
        }
    }
    all
}

fn is_of_another<K: Resource>(object: &K, key: &ModelKey, uids: &BTreeMap<ModelKey, String>) -> bool {
    let owners = object.owner_references().iter();
    let mut models = owners.filter(|o| o.kind == "ModelDeployment");
    models.any(|owner| uids.get(key) != Some(&owner.uid))
}

fn model_of<K: Resource>(object: &K) -> Option<ModelKey> {
    let labels = object.labels();
    let ours = labels.get(crds::key::MANAGED_BY).map(String::as_str) == Some(crds::key::MANAGED_BY_VALUE);
    ours.then_some(())?;
    Some(ModelKey {
        namespace: object.namespace()?,
        name: labels.get(crds::key::MODEL)?.clone(),
    })
}

/// Selectors of budgets that others made, by namespace.
type Foreign = BTreeMap<String, Vec<(String, Selector)>>;

fn others_budgets(store: &Store<PodDisruptionBudget>) -> Foreign {
    let mut foreign = Foreign::new();
    for budget in store.state().iter().filter(|b| model_of(b.as_ref()).is_none()) {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.clone());
        // In policy/v1 an absent selector selects nothing, an empty one everything.
        if let Some(Ok(selector)) = selector.map(Selector::try_from) {
            let near = foreign.entry(budget.namespace().unwrap_or_default()).or_default();
            near.push((budget.name_any(), selector));
        }
    }
    foreign
}

/// Budgets that somebody else laid over the pods of a model: evictions are refused for ever where two match.
fn foreign_budgets(near: &[(String, Selector)], deployments: &[Deployment]) -> Vec<String> {
    let templates = deployments
        .iter()
        .filter_map(|d| d.spec.as_ref()?.template.metadata.as_ref()?.labels.as_ref());
    let labels: Vec<_> = templates.collect();
    let selecting = near
        .iter()
        .filter(|(_, selector)| labels.iter().any(|l| selector.matches(l)));
    let mut names: Vec<_> = selecting.map(|(name, _)| name.clone()).collect();
    // The store has no order, and a message that changes is a write.
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn budgets_of_others_are_found_by_any_label_of_the_pods() {
        let labels = json!({"app.kubernetes.io/name": "pinnace-runtime", "pinnace.dev/model": "ranker"});
        let deployment: Deployment = serde_json::from_value(json!({"spec": {
            "selector": {}, "template": {"metadata": {"labels": labels}}}}))
        .unwrap();
        let (mut reader, mut writer) = (None, kube::runtime::reflector::store::Writer::default());
        for (name, selector) in [
            ("all", json!({})),
            (
                "app",
                json!({"matchLabels": {"app.kubernetes.io/name": "pinnace-runtime"}}),
            ),
            (
                "expression",
                json!({"matchExpressions": [{"key": "pinnace.dev/model", "operator": "Exists"}]}),
            ),
            ("nothing", json!(null)),
            ("other", json!({"matchLabels": {"app": "web"}})),
        ] {
            let budget =
                json!({"metadata": {"namespace": "n", "name": name}, "spec": {"selector": selector}});
            let budget: PodDisruptionBudget = serde_json::from_value(budget).unwrap();
            writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(budget));
            reader = Some(writer.as_reader());
        }
        let foreign = others_budgets(&reader.unwrap());
        let found = foreign_budgets(&foreign["n"], std::slice::from_ref(&deployment));
        assert_eq!(found, ["all", "app", "expression"]);
        assert!(foreign_budgets(&foreign["n"], &[]).is_empty());
    }
}
