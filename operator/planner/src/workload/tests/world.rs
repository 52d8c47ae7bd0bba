//! A model, its pools, and what is applied for them.

use super::*;

/// A model, its pools, and an API server that stores what is applied.
pub struct World {
    pub key: ModelKey,
    pub model: ModelObserved,
    pub settings: Settings,
    pub replicas: BTreeMap<PoolName, u32>,
    pub pools: BTreeMap<PoolName, GpuPool>,
    pub surge: bool,
}

pub fn settings() -> Settings {
    Settings {
        cluster: "prod".into(),
        runtime_image: "registry.example/pinnace-runtime@sha256:1".into(),
        allowed_runtime_images: vec![],
        runtime_env: BTreeMap::from([("AWS_REGION".into(), "us-east-1".into())]),
        operator_namespace: "pinnace-system".into(),
        mutations: CloudMutations::All,
        node_idle: SignedDuration::from_secs(60),
        sweep_after: SignedDuration::from_mins(10),
        absent_twice: SignedDuration::from_secs(60),
        load_max_age: SignedDuration::from_secs(15),
        inventory_max_age: SignedDuration::from_secs(60),
        group_slots: 30,
        group_max_nodes: 450,
        max_nodes: 13_500,
    }
}

pub fn world(replicas: &[(&str, u32)]) -> World {
    let model: ModelDeployment = serde_json::from_value(json!({
        "apiVersion": "pinnace.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "ranker", "namespace": "recsys", "uid": "6f1a"},
        "spec": {
            "model": {"uri": "s3://models/ranker/1", "version": "1"},
            "runtime": {},
            "replicas": 3,
            "placement": [{"pool": "g5"}, {"pool": "g5-more"}],
        },
    }))
    .unwrap();
    let pool = |name: &str, taints: Value| -> (PoolName, GpuPool) {
        let pool = json!({
            "apiVersion": "pinnace.dev/v1alpha1",
            "kind": "GpuPool",
            "metadata": {"name": name, "uid": "77aa"},
            "spec": {
                "purpose": "Inference", "instanceTypes": ["g5.xlarge"], "subnetIds": ["subnet-0a1"],
                "nodeRole": "arn:aws:iam::111122223333:role/gpu",
                "image": {"family": "Al2023Nvidia", "releaseVersion": "1.34.2-20261101"},
                "limits": {"maxNodes": 10}, "namespaceSelector": {}, "taints": taints,
            },
        });
        (PoolName(name.into()), serde_json::from_value(pool).unwrap())
    };
    let taints = json!([
        {"key": "team", "value": "recsys", "effect": "NoExecute"},
        {"key": "gpu-only", "effect": "NoSchedule"},
        {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"},
    ]);
    World {
        key: ModelKey {
            namespace: "recsys".into(),
            name: "ranker".into(),
        },
        model: ModelObserved {
            spec: model,
            deployments: vec![],
            services: vec![],
            service_accounts: vec![],
            budgets: vec![],
            network_policies: vec![],
            named_account: None,
            foreign_budgets: vec![],
        },
        settings: settings(),
        replicas: replicas
            .iter()
            .map(|(pool, n)| (PoolName((*pool).into()), *n))
            .collect(),
        pools: BTreeMap::from([pool("g5", taints), pool("g5-more", json!([]))]),
        surge: true,
    }
}

impl World {
    pub fn objects(&self) -> Objects {
        objects(&Shape {
            key: &self.key,
            model: &self.model,
            settings: &self.settings,
            replicas: &self.replicas,
            pools: &self.pools,
            surge: self.surge,
        })
    }

    /// Stores what is to be applied, as the API server would, and removes what is to be deleted. Controllers follow at once.
    pub fn settle(&mut self) -> Objects {
        let objects = self.objects();
        for object in &objects.apply {
            let mut object = object.clone();
            object["metadata"]["uid"] = json!(format!("uid of {:?}", identity(&object)));
            let model = &mut self.model;
            match object["kind"].as_str().unwrap() {
                "Deployment" => put(&mut model.deployments, &object),
                "Service" => put(&mut model.services, &object),
                "ServiceAccount" => put(&mut model.service_accounts, &object),
                "PodDisruptionBudget" => put(&mut model.budgets, &object),
                "NetworkPolicy" => put(&mut model.network_policies, &object),
                other => panic!("{other}"),
            }
        }
        for ObjectRef { kind, name, .. } in &objects.deletes {
            let stays = |meta: &ObjectMeta| meta.name.as_ref() != Some(name);
            match kind.as_str() {
                "Deployment" => self.model.deployments.retain(|o| stays(&o.metadata)),
                "Service" => self.model.services.retain(|o| stays(&o.metadata)),
                "ServiceAccount" => self.model.service_accounts.retain(|o| stays(&o.metadata)),
                other => panic!("{other}"),
            }
        }
        for deployment in &mut self.model.deployments {
            let replicas = deployment.spec.as_ref().unwrap().replicas;
            deployment.status = Some(DeploymentStatus {
                replicas,
                updated_replicas: replicas,
                observed_generation: deployment.metadata.generation,
                ..DeploymentStatus::default()
            });
        }
        objects
    }

    /// Replicas, surge and unavailable of each Deployment that exists, by pool and cell.
    pub fn rows(&self) -> Vec<(String, i32, String, String)> {
        let mut rows: Vec<_> = self.model.deployments.iter().map(row).collect();
        rows.sort();
        rows
    }

    pub fn image(&self) -> String {
        let pod = self.model.deployments[0]
            .spec
            .as_ref()
            .unwrap()
            .template
            .spec
            .as_ref()
            .unwrap();
        pod.containers[0].image.clone().unwrap()
    }
}

pub fn row(deployment: &Deployment) -> (String, i32, String, String) {
    let spec = value(&deployment.spec);
    let labels = deployment.metadata.labels.as_ref().unwrap();
    let update = &spec["strategy"]["rollingUpdate"];
    (
        format!("{}/{}", labels[crds::key::POOL], labels[crds::key::CELL]),
        deployment.spec.as_ref().unwrap().replicas.unwrap(),
        update["maxSurge"].to_string(),
        update["maxUnavailable"].to_string(),
    )
}

pub fn put<K>(list: &mut Vec<K>, object: &Value)
where
    K: Metadata<Ty = ObjectMeta> + serde::de::DeserializeOwned,
{
    let new: K = serde_json::from_value(object.clone()).unwrap();
    list.retain(|old| old.metadata().name != new.metadata().name);
    list.push(new);
}

pub fn named<'a>(apply: &'a [Value], kind: &str) -> Vec<&'a Value> {
    apply.iter().filter(|o| o["kind"] == kind).collect()
}
