//! What the tests ask of the cloud, and how they wait for it.

use super::*;

pub const UID: &str = "8c0f3b1e-5d1c-4f6a-9a51-1d5d3c8a7b11";
pub const OTHER_UID: &str = "00000000-0000-4000-8000-000000000000";
pub const HASH: &str = "0123456789abcdef";

pub fn spec(pool: &str, shard: u32) -> GroupSpec {
    let labels = [("pinnace.dev/pool", pool), ("team", "ads")];
    GroupSpec {
        name: name::group_name(CLUSTER, (pool, UID), ("g5.xlarge", "subnet-0a1"), HASH, shard),
        template_name: name::template_name(CLUSTER, (pool, UID), HASH),
        pool: PoolName(pool.to_owned()),
        pool_uid: UID.to_owned(),
        shard,
        spec_hash: HASH.to_owned(),
        instance_type: "g5.xlarge".to_owned(),
        subnet: "subnet-0a1".to_owned(),
        purchase: Purchase::OnDemand,
        node_role: NODE_ROLE.to_owned(),
        image: ImageFamily::Al2023Nvidia,
        release_version: "1.33.4-20261101".to_owned(),
        disk_gib: 100,
        kms_key_id: String::new(),
        security_groups: vec!["sg-0a1b2c3d".to_owned()],
        tags: BTreeMap::from([("cost-center".to_owned(), "ads".to_owned())]),
        labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        taints: vec![Taint {
            key: "nvidia.com/gpu".to_owned(),
            value: "present".to_owned(),
            effect: TaintEffect::NoSchedule,
        }],
        max_nodes: 450,
    }
}

pub fn query() -> CatalogQuery {
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    CatalogQuery {
        instance_types: set(&["g5.xlarge", "p4d.24xlarge", "g5.unheard-of"]),
        subnets: set(&["subnet-0a1", "subnet-0b2", "subnet-0ff"]),
    }
}

pub async fn run(eks: &Eks, action: CloudAction) {
    eks.execute(&action)
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", action.verb()));
}

pub async fn refusal(eks: &Eks, action: CloudAction) -> CloudError {
    let verb = action.verb();
    eks.execute(&action)
        .await
        .expect_err(&format!("{verb} has to be refused"))
}

pub fn create(spec: &GroupSpec) -> CloudAction {
    CloudAction::Create(Box::new(spec.clone()))
}

pub fn grow(spec: &GroupSpec, desired: u32) -> CloudAction {
    CloudAction::Grow {
        group: spec.name.clone(),
        pool_uid: spec.pool_uid.clone(),
        desired,
    }
}

pub fn remove(spec: &GroupSpec, instances: &[String], desired: u32) -> CloudAction {
    CloudAction::Remove {
        group: spec.name.clone(),
        pool_uid: spec.pool_uid.clone(),
        instances: instances.to_vec(),
        desired,
    }
}

pub fn delete(spec: &GroupSpec) -> CloudAction {
    CloudAction::DeleteGroup {
        group: spec.name.clone(),
        pool_uid: spec.pool_uid.clone(),
    }
}

pub fn delete_template(spec: &GroupSpec) -> CloudAction {
    CloudAction::DeleteTemplate {
        name: spec.template_name.clone(),
        pool_uid: spec.pool_uid.clone(),
    }
}

pub async fn describe(eks: &Eks) -> CloudObserved {
    eks.describe(&query()).await.expect("described")
}

/// Reads until the group is as wanted.
pub async fn wait(eks: &Eks, name: &GroupName, wanted: impl Fn(&GroupObserved) -> bool) -> GroupObserved {
    let mut last = None;
    for _ in 0..300 {
        last = describe(eks).await.groups.remove(name);
        if let Some(group) = &last
            && wanted(group)
        {
            return group.clone();
        }
        simulator::pause().await;
    }
    panic!("{}: last seen as {last:#?}", name.0);
}

pub async fn wait_gone(eks: &Eks, name: &GroupName) {
    for _ in 0..300 {
        if !describe(eks).await.groups.contains_key(name) {
            return;
        }
        simulator::pause().await;
    }
    panic!("{} is still there", name.0);
}

pub fn in_service(scaling: &ScalingObserved) -> Vec<String> {
    let alive = scaling
        .instances
        .iter()
        .filter(|instance| instance.lifecycle == Lifecycle::InService);
    alive.map(|instance| instance.id.clone()).collect()
}

/// The group, active and with `count` instances in service and none besides.
pub async fn with_instances(eks: &Eks, spec: &GroupSpec, count: usize) -> ScalingObserved {
    let group = wait(eks, &spec.name, |group| {
        group.state == GroupState::Active
            && group
                .scaling
                .as_ref()
                .is_some_and(|scaling| in_service(scaling).len() == count && scaling.instances.len() == count)
    });
    group.await.scaling.expect("just seen")
}
