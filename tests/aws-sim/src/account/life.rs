//! The account from outside the wire: verbs and virtual time.

use super::*;
use crate::assumptions::{DEGRADED_AFTER, LAUNCH_RETRY, MAX_NODE_GROUPS};
use crate::ec2::launch_template::{NewTemplate, TemplateData};
use crate::eks::GroupStatus;
use crate::eks::request::CreateNodegroup;
use crate::node::NodeSpec;

const ROLE: &str = "arn:aws:iam::111122223333:role/node";

pub(super) fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub(super) fn open(seed: u64) -> Account {
    let subnet = |id: &str, zone: &str| SubnetSpec {
        id: id.to_owned(),
        zone: zone.to_owned(),
    };
    Account::open(Settings {
        account_id: "111122223333".to_owned(),
        region: "us-east-1".to_owned(),
        cluster: "demo".to_owned(),
        kubernetes_version: "1.34".to_owned(),
        subnets: vec![
            subnet("subnet-a", "us-east-1a"),
            subnet("subnet-b", "us-east-1b"),
            subnet("subnet-c", "us-east-1c"),
        ],
        node_roles: vec![ROLE.to_owned()],
        delays: Delays {
            create: seconds(60),
            register: seconds(40),
            ready: seconds(20),
            gpu: seconds(30),
            terminate: seconds(30),
        },
        seed,
    })
}

pub(super) fn request(name: &str) -> CreateNodegroup {
    serde_json::from_value(serde_json::json!({
        "nodegroupName": name,
        "subnets": ["subnet-a"],
        "nodeRole": ROLE,
        "instanceTypes": ["g5.xlarge"],
        "scalingConfig": { "minSize": 0, "maxSize": 450, "desiredSize": 0 },
        "labels": { "pinnace.dev/pool": "g5" },
        "taints": [{ "key": "nvidia.com/gpu", "value": "present", "effect": "NO_SCHEDULE" }],
        "tags": { "pinnace.dev/cluster": "demo" },
        "clientRequestToken": format!("token-{name}"),
    }))
    .expect("a valid request")
}

/// Lets so many simulated seconds pass.
pub(super) fn pass(account: &mut Account, secs: u64) {
    let then = account.now().after(seconds(secs));
    account.advance(then);
}

/// An account with one ACTIVE group; the name of its Auto Scaling group.
pub(super) fn with_group(seed: u64) -> (Account, String) {
    let mut account = open(seed);
    account.create_nodegroup(request("g")).expect("valid");
    pass(&mut account, 61);
    let group = account.find_node_group("g").expect("created");
    assert_eq!(group.status, GroupStatus::Active);
    let scaling = group
        .scaling_group
        .clone()
        .expect("listed from half of the delay on");
    (account, scaling)
}

pub(super) fn in_service(account: &Account, scaling: &str) -> Vec<String> {
    let group = account.find_scaling_group(scaling).expect("exists");
    let serving = account
        .members(group)
        .into_iter()
        .filter(|i| i.lifecycle() == "InService");
    serving.map(|i| i.id.clone()).collect()
}

pub(super) fn grow(account: &mut Account, scaling: &str, desired: i64) -> Vec<String> {
    account
        .set_desired_capacity(scaling, desired, false)
        .expect("within bounds");
    pass(account, 120);
    in_service(account, scaling)
}

#[test]
fn a_group_is_created_in_steps_and_cannot_be_deleted_before() {
    let mut account = open(1);
    account.create_nodegroup(request("g")).expect("valid");
    assert_eq!(
        account.delete_nodegroup("g").expect_err("CREATING").code,
        "ResourceInUseException"
    );
    pass(&mut account, 29);
    assert!(
        account
            .find_node_group("g")
            .expect("there")
            .scaling_group
            .is_none()
    );
    pass(&mut account, 2);
    assert!(
        account
            .find_node_group("g")
            .expect("there")
            .scaling_group
            .is_some()
    );
    assert_eq!(
        account.find_node_group("g").expect("there").status,
        GroupStatus::Creating
    );
    pass(&mut account, 30);
    assert_eq!(
        account.find_node_group("g").expect("there").status,
        GroupStatus::Active
    );
}

#[test]
fn a_repeated_token_creates_once_and_refuses_other_parameters() {
    let mut account = open(1);
    let first = account
        .create_nodegroup(request("g"))
        .expect("valid")
        .uuid
        .clone();
    assert_eq!(
        account.create_nodegroup(request("g")).expect("repeated").uuid,
        first
    );
    let mut other = request("g");
    other.labels.clear();
    assert_eq!(
        account.create_nodegroup(other).expect_err("differs").code,
        "InvalidParameterException"
    );
    let mut same_name = request("g");
    same_name.client_request_token = Some("another".to_owned());
    assert_eq!(
        account.create_nodegroup(same_name).expect_err("taken").code,
        "ResourceInUseException"
    );
    assert_eq!(account.node_groups.len(), 1);
}

#[test]
fn groups_are_limited_per_cluster() {
    let mut account = open(1);
    for n in 0..MAX_NODE_GROUPS {
        account
            .create_nodegroup(request(&format!("g{n}")))
            .expect("within the quota");
    }
    let refused = account
        .create_nodegroup(request("more"))
        .expect_err("over the quota");
    assert_eq!(refused.code, "ResourceLimitExceededException");
}

#[test]
fn nodes_register_get_ready_and_show_gpus_one_after_the_other() {
    let (mut account, scaling) = with_group(1);
    account
        .set_desired_capacity(&scaling, 1, false)
        .expect("within bounds");
    account.take_effects();
    let mut seen = Vec::new();
    for second in 1..=120u64 {
        pass(&mut account, 1);
        for effect in account.take_effects() {
            let what = match &effect {
                NodeEffect::Register(spec) => {
                    check_node(spec);
                    "register"
                }
                NodeEffect::Ready(_) => "ready",
                NodeEffect::GpusAllocatable(_) => "gpus",
                NodeEffect::Stop(_) | NodeEffect::Delete(_) => "end",
            };
            seen.push((what, second));
        }
    }
    // Two seconds until Auto Scaling reacts, then 40, 20 and 30.
    assert_eq!(seen, [("register", 42), ("ready", 62), ("gpus", 92)]);
}

fn check_node(spec: &NodeSpec) {
    assert_eq!(spec.name, "ip-10-1-0-4.ec2.internal");
    assert_eq!(
        spec.provider_id,
        format!("aws:///us-east-1a/{}", spec.instance_id)
    );
    for (key, value) in [
        ("pinnace.dev/pool", "g5"),
        ("eks.amazonaws.com/nodegroup", "g"),
        ("eks.amazonaws.com/capacityType", "ON_DEMAND"),
        ("node.kubernetes.io/instance-type", "g5.xlarge"),
        ("topology.kubernetes.io/zone", "us-east-1a"),
    ] {
        assert_eq!(spec.labels.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(spec.taints[0].effect, "NoSchedule");
}

#[test]
fn a_decrease_ends_unprotected_instances_only() {
    for seed in 0..20 {
        let (mut account, scaling) = with_group(seed);
        let ids = grow(&mut account, &scaling, 4);
        assert_eq!(ids.len(), 4);
        account
            .set_instance_protection(&scaling, &ids[1..], true)
            .expect("all in service");
        assert_eq!(grow(&mut account, &scaling, 3), ids[1..], "seed {seed}");
        assert_eq!(
            grow(&mut account, &scaling, 2),
            ids[1..],
            "nothing is left to end"
        );
        let newest = &account.find_scaling_group(&scaling).expect("there").activities[0];
        assert!(
            newest.description.contains("protected from scale-in"),
            "{newest:?}"
        );
        account
            .set_instance_protection(&scaling, &ids[1..2], false)
            .expect("all in service");
        pass(&mut account, 120);
        assert_eq!(
            in_service(&account, &scaling),
            ids[2..],
            "the lowered size is met later"
        );
    }
}

#[test]
fn which_unprotected_instance_goes_is_up_to_the_seed() {
    let mut victims = BTreeSet::new();
    for seed in 0..20 {
        let (mut account, scaling) = with_group(seed);
        let ids = grow(&mut account, &scaling, 3);
        let left = grow(&mut account, &scaling, 2);
        victims.insert(ids.iter().position(|id| !left.contains(id)).expect("one went"));
    }
    assert_eq!(victims, BTreeSet::from([0, 1, 2]));
}

#[test]
fn pending_instances_cannot_be_protected() {
    let (mut account, scaling) = with_group(1);
    account
        .set_desired_capacity(&scaling, 1, false)
        .expect("within bounds");
    pass(&mut account, 3);
    let id = account.find_scaling_group(&scaling).expect("there").members[0].clone();
    let refused = account
        .set_instance_protection(&scaling, &[id], true)
        .expect_err("pending");
    assert!(refused.message.contains("is not in InService"), "{refused}");
}

#[test]
fn a_launch_without_capacity_fails_degrades_and_heals() {
    let (mut account, scaling) = with_group(1);
    let offering = Offering {
        instance_type: "g5.xlarge".to_owned(),
        zone: "us-east-1a".to_owned(),
        purchase: Purchase::OnDemand,
    };
    account.capacity.insert(offering.clone(), 1);
    assert_eq!(grow(&mut account, &scaling, 2).len(), 1);
    let failed = &account.find_scaling_group(&scaling).expect("there").activities[0];
    assert_eq!(failed.status, "Failed");
    assert!(
        failed
            .message
            .as_deref()
            .is_some_and(|m| m.contains("InsufficientInstanceCapacity"))
    );
    pass(&mut account, DEGRADED_AFTER.as_secs() + LAUNCH_RETRY.as_secs());
    let group = account.find_node_group("g").expect("there");
    assert_eq!(
        (group.status, group.issues[0].code),
        (GroupStatus::Degraded, "AsgInstanceLaunchFailures")
    );
    account.capacity.remove(&offering);
    pass(&mut account, LAUNCH_RETRY.as_secs() + 30);
    assert_eq!(in_service(&account, &scaling).len(), 2);
    assert_eq!(
        account.find_node_group("g").expect("there").status,
        GroupStatus::Active
    );
}

#[test]
fn deleting_ends_every_instance_protected_or_not_and_leaves_nothing() {
    let (mut account, scaling) = with_group(1);
    let ids = grow(&mut account, &scaling, 2);
    account
        .set_instance_protection(&scaling, &ids, true)
        .expect("all in service");
    account.take_effects();
    assert_eq!(
        account.delete_nodegroup("g").expect("ACTIVE").status,
        GroupStatus::Deleting
    );
    assert_eq!(
        account.delete_nodegroup("g").expect_err("DELETING").code,
        "ResourceInUseException"
    );
    pass(&mut account, 61);
    assert!(account.node_groups.is_empty() && account.scaling_groups.is_empty());
    assert!(account.templates.is_empty(), "EKS's own copy goes with the group");
    let ends = account.take_effects();
    let of = |wanted: fn(&NodeEffect) -> bool| ends.iter().filter(|e| wanted(e)).count();
    assert_eq!(of(|e| matches!(e, NodeEffect::Stop(_))), 2);
    assert_eq!(of(|e| matches!(e, NodeEffect::Delete(_))), 2);
    account
        .create_nodegroup(request("g"))
        .expect("the token is forgotten with the group");
    pass(&mut account, 61);
    assert_eq!(
        account.find_node_group("g").expect("again").status,
        GroupStatus::Active
    );
}

#[test]
fn a_template_token_is_checked_against_its_parameters() {
    let mut account = open(1);
    let data = TemplateData(BTreeMap::from([("ImageId".to_owned(), "ami-1".to_owned())]));
    let new = NewTemplate {
        name: "t-1".to_owned(),
        description: String::new(),
        data,
        tags: Tags::new(),
        token: Some("token".to_owned()),
    };
    let first = account
        .create_launch_template(new.clone(), "me")
        .expect("valid")
        .id
        .clone();
    assert_eq!(
        account
            .create_launch_template(new.clone(), "me")
            .expect("repeated")
            .id,
        first
    );
    let other = NewTemplate {
        name: "t-2".to_owned(),
        ..new
    };
    let refused = account.create_launch_template(other, "me").expect_err("differs");
    assert_eq!(refused.code, "IdempotentParameterMismatch");
}

#[test]
fn the_same_seed_is_the_same_account() {
    let life = |seed| {
        let (mut account, scaling) = with_group(seed);
        grow(&mut account, &scaling, 5);
        grow(&mut account, &scaling, 2)
    };
    assert_eq!(life(7), life(7));
    assert_ne!(life(7), life(8));
}
