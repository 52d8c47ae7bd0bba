//! What a node group is made from. Immutable: a changed spec is another hash, and so another group.

use std::collections::BTreeMap;

use crds::gpu_pool::ImageFamily;
use serde_json::json;

use super::Task;
use crate::name;
use crate::plan::GroupSpec;
use crate::view::View;

/// Bumped when the inputs of the hash change their meaning. An upgrade of the operator must not roll nodes, so a new
/// version goes together with code that still recognises the old one.
const HASH_VERSION: &str = "1";

#[must_use]
pub fn spec(view: &View, task: &Task, instance_type: &str, subnet: &str, shard: u32) -> GroupSpec {
    let spec = &task.pool.spec;
    let settings = &view.observed.settings;
    let mut labels = spec.labels.clone();
    labels.insert(crds::key::POOL.to_owned(), task.name.0.clone());
    let mut taints = spec.taints.clone();
    taints.sort();
    let mut security_groups = spec.security_group_ids.clone();
    security_groups.sort();
    let mut group = GroupSpec {
        name: crate::plan::GroupName(String::new()),
        template_name: String::new(),
        pool: task.name.clone(),
        pool_uid: task.uid.to_owned(),
        shard,
        spec_hash: String::new(),
        instance_type: instance_type.to_owned(),
        subnet: subnet.to_owned(),
        purchase: spec.purchase,
        node_role: spec.node_role.clone(),
        image: spec.image.family,
        release_version: spec.image.release_version.clone(),
        disk_gib: spec.disk_size.trim_end_matches("Gi").parse().unwrap_or(100),
        kms_key_id: spec.kms_key_id.clone(),
        security_groups,
        tags: spec.tags.clone(),
        labels,
        taints,
        max_nodes: settings.group_max_nodes,
    };
    group.spec_hash = spec_hash(&group);
    let pool = (task.name.0.as_str(), task.uid);
    #[cfg(feature = "seeded-bugs")]
    let random = view.now.to_string();
    #[cfg(feature = "seeded-bugs")]
    let subnet = if crate::seeded::is_planted(crate::seeded::Bug::RandomName) {
        random.as_str()
    } else {
        subnet
    };
    group.name = name::group_name(
        &settings.cluster,
        pool,
        (instance_type, subnet),
        &group.spec_hash,
        shard,
    );
    group.template_name = name::template_name(&settings.cluster, pool, &group.spec_hash);
    group
}

/// Over what makes the nodes what they are; not over owner, shard and the size limit.
fn spec_hash(group: &GroupSpec) -> String {
    let family = match group.image {
        ImageFamily::Al2023Nvidia => "Al2023Nvidia",
        ImageFamily::BottlerocketNvidia => "BottlerocketNvidia",
    };
    let inputs: BTreeMap<&str, serde_json::Value> = BTreeMap::from([
        ("instanceType", json!(group.instance_type)),
        ("subnet", json!(group.subnet)),
        ("purchase", json!(group.purchase)),
        ("nodeRole", json!(group.node_role)),
        ("image", json!([family, group.release_version])),
        ("diskGib", json!(group.disk_gib)),
        ("kmsKeyId", json!(group.kms_key_id)),
        ("securityGroups", json!(group.security_groups)),
        ("tags", json!(group.tags)),
        ("labels", json!(group.labels)),
        ("taints", json!(group.taints)),
    ]);
    let text = serde_json::to_string(&inputs).expect("strings and numbers are JSON");
    name::hash(&[HASH_VERSION, &text], 16)
}
