//! Stores of the cluster's objects, kept by watches, and the snapshot made from them.
//!
//! ```text
//! watch -> store        one per kind; what planning does not need is cut off before it is kept     start()
//! stores -> Observed    every tick, from memory                                                    snapshot.rs
//!   pod.rs node.rs      one object in the planner's words          trouble.rs   why a pod does not serve
//! ```

mod node;
mod pod;
mod quantity;
mod snapshot;
mod trouble;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use crds::{GpuPool, ModelDeployment};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What the operator watches.
pub struct Stores {
    pub models: Store<ModelDeployment>,
    pub pools: Store<GpuPool>,
    deployments: Store<Deployment>,
    services: Store<Service>,
    accounts: Store<ServiceAccount>,
    budgets: Store<PodDisruptionBudget>,
    policies: Store<NetworkPolicy>,
    pods: Store<Pod>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
    priorities: Store<PriorityClass>,
}

/// Starts one watch a kind in `tasks`. `changed` is told of every change that could change a plan.
pub fn start(client: &Client, changed: Arc<Notify>, tasks: &mut JoinSet<()>) -> Stores {
    let mut watches = Watches {
        client,
        changed,
        tasks,
    };
    let ours = format!("{}={}", crds::key::MANAGED_BY, crds::key::MANAGED_BY_VALUE);
    let ours = watcher::Config::default().labels(&ours);
    let all = watcher::Config::default;
    Stores {
        models: watches.watch(all(), |_| {}),
        pools: watches.watch(all(), |_| {}),
        deployments: watches.watch(ours.clone(), |_| {}),
        services: watches.watch(ours.clone(), |_| {}),
        accounts: watches.watch(all(), |_| {}),
        budgets: watches.watch(all(), |_| {}),
        policies: watches.watch(ours, |_| {}),
        pods: watches.watch(all().page_size(500), pod::cut),
        nodes: watches.watch(all().labels(crds::key::POOL), node::cut),
        namespaces: watches.watch(all(), |_| {}),
        priorities: watches.watch(all(), |_| {}),
    }
}

struct Watches<'a> {
    client: &'a Client,
    changed: Arc<Notify>,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    fn watch<K>(&mut self, config: watcher::Config, cut: fn(&mut K)) -> Store<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone + Send + Sync + 'static,
    {
        let (store, writer) = reflector::store();
        let api: Api<K> = Api::all(self.client.clone());
        let stream = watcher(api, config)
            .default_backoff()
            .modify(move |object| {
                object.managed_fields_mut().clear();
                cut(object);
            })
            .reflect(writer);
        let changed = Arc::clone(&self.changed);
        self.tasks.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(_) => changed.notify_one(),
                    Err(error) => {
                        let kind = std::any::type_name::<K>();
                        tracing::warn!(
                            kind,
                            error = &error as &dyn std::error::Error,
                            "a watch broke; it is taken up again"
                        );
                    }
                }
            }
        });
        store
    }
}

impl Stores {
    /// Returns when every kind has been listed once.
    ///
    /// # Errors
    /// When a watch's task is gone: what its store holds then is no list.
    pub async fn wait_until_synced(&self) -> Result<(), WriterDropped> {
        tokio::try_join!(
            self.models.wait_until_ready(),
            self.pools.wait_until_ready(),
            self.deployments.wait_until_ready(),
            self.services.wait_until_ready(),
            self.accounts.wait_until_ready(),
            self.budgets.wait_until_ready(),
            self.policies.wait_until_ready(),
            self.pods.wait_until_ready(),
            self.nodes.wait_until_ready(),
            self.namespaces.wait_until_ready(),
            self.priorities.wait_until_ready(),
        )
        .map(drop)
    }
}
