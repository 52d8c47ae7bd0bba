//! The account with faults: nodes, groups, late reads and other hands.

use super::by_hand::Change;
use super::life::{grow, in_service, open, pass, request, seconds, with_group};
use super::*;
use crate::ec2::instance::InstanceState;
use crate::eks::GroupStatus;
use crate::fault::describe::Description;

fn set(account: &mut Account, text: &str) -> u64 {
    let description = Description::parse(text.as_bytes()).expect(text);
    let shown = account.set_fault(description).expect(text);
    shown["id"].as_u64().expect("a number")
}

fn stages(account: &Account) -> Vec<Option<NodeStage>> {
    account.instances.values().map(|i| i.stage).collect()
}

fn status(account: &Account) -> (GroupStatus, Option<&'static str>) {
    let group = account.find_node_group("g").expect("there");
    (group.status, group.issues.first().map(|i| i.code))
}

#[test]
fn nodes_that_never_join_are_in_service_all_the_same() {
    let (mut account, scaling) = with_group(1);
    let id = set(
        &mut account,
        r#"{"kind": "never-joins", "group": "g", "count": 1}"#,
    );
    account.take_effects();
    assert_eq!(grow(&mut account, &scaling, 2).len(), 2);
    pass(&mut account, 10_000);
    let mut reached = stages(&account);
    reached.sort();
    assert_eq!(reached, [None, Some(NodeStage::GpusAllocatable)]);
    let events = account.faults.take_events();
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].action, events[0].mark.id), ("JoinCluster", Some(id)));
    let registered = account
        .take_effects()
        .into_iter()
        .filter(|e| matches!(e, NodeEffect::Register(_)));
    assert_eq!(registered.count(), 1);
}

#[test]
fn gpus_come_late_or_never() {
    let (mut account, scaling) = with_group(1);
    set(
        &mut account,
        r#"{"kind": "no-gpus", "delaySeconds": 900, "count": 1}"#,
    );
    grow(&mut account, &scaling, 1);
    pass(&mut account, 860);
    assert_eq!(stages(&account), [Some(NodeStage::Ready)]);
    pass(&mut account, 20);
    assert_eq!(stages(&account), [Some(NodeStage::GpusAllocatable)]);
    set(&mut account, r#"{"kind": "no-gpus", "group": "g"}"#);
    grow(&mut account, &scaling, 2);
    pass(&mut account, 100_000);
    assert!(stages(&account).contains(&Some(NodeStage::Ready)));
}

#[test]
fn a_withdrawn_order_is_delivered_and_may_cost_a_healthy_instance() {
    let mut healthy_lost = 0;
    for seed in 0..20 {
        let (mut account, scaling) = with_group(seed);
        let old = grow(&mut account, &scaling, 1);
        set(
            &mut account,
            r#"{"kind": "late-delivery", "group": "g", "delaySeconds": 300, "count": 2}"#,
        );
        assert_eq!(grow(&mut account, &scaling, 3), old, "nothing is delivered yet");
        pass(&mut account, 60);
        assert_eq!(account.instances.len(), 1, "and nothing is ordered twice");
        account
            .set_desired_capacity(&scaling, 1, false)
            .expect("within bounds");
        pass(&mut account, 60);
        assert_eq!(in_service(&account, &scaling), old, "withdrawn in time, it seems");
        pass(&mut account, 300);
        assert_eq!(account.instances.len(), 3, "both were delivered");
        let left = in_service(&account, &scaling);
        assert_eq!(left.len(), 1, "the surplus is ended");
        healthy_lost += usize::from(left != old);
        let what: Vec<&str> = account.faults.take_events().iter().map(|e| e.action).collect();
        assert_eq!(what, ["Launch", "Launch", "Deliver", "Deliver"]);
    }
    assert!(healthy_lost > 0, "Auto Scaling picks any of them");
}

#[test]
fn two_of_five_are_launched_and_the_rest_when_the_fault_is_over() {
    let (mut account, scaling) = with_group(1);
    set(
        &mut account,
        r#"{"kind": "partial-launch", "group": "g", "launched": 2, "forSeconds": 1000}"#,
    );
    assert_eq!(grow(&mut account, &scaling, 5).len(), 2);
    let group = account.find_scaling_group(&scaling).expect("there");
    let failed = group
        .activities
        .iter()
        .find(|a| a.status == "Failed")
        .expect("said so");
    assert!(
        failed
            .message
            .as_ref()
            .is_some_and(|m| m.contains("InsufficientInstanceCapacity"))
    );
    pass(&mut account, 1000);
    assert_eq!(in_service(&account, &scaling).len(), 5);
}

#[test]
fn launches_run_short_of_what_was_asked_for() {
    for (reason, purchase, code) in [
        ("no-capacity", "ON_DEMAND", "InsufficientInstanceCapacity"),
        ("no-addresses", "ON_DEMAND", "InsufficientFreeAddressesInSubnet"),
        ("vcpu-quota", "ON_DEMAND", "VcpuLimitExceeded"),
        ("vcpu-quota", "SPOT", "MaxSpotInstanceCountExceeded"),
    ] {
        let mut account = open(1);
        let mut wanted = request("g");
        wanted.capacity_type = serde_json::from_value(purchase.into()).expect("a capacity type");
        account.create_nodegroup(wanted).expect("valid");
        pass(&mut account, 61);
        let scaling = account.scaling_groups.keys().next().expect("there").clone();
        let text = format!(r#"{{"kind": "partial-launch", "launched": 0, "reason": "{reason}"}}"#);
        set(&mut account, &text);
        assert!(grow(&mut account, &scaling, 1).is_empty());
        let newest = &account.find_scaling_group(&scaling).expect("there").activities[0];
        let message = newest.message.as_deref().unwrap_or_default();
        assert!(message.contains(&format!(" {code} - ")), "{message}");
    }
}

#[test]
fn a_creation_fails_with_the_code_that_was_asked_for() {
    let mut account = open(1);
    set(
        &mut account,
        r#"{"kind": "create-failed", "group": "g", "code": "Ec2SubnetNotFound", "count": 1}"#,
    );
    account
        .create_nodegroup(request("g"))
        .expect("accepted all the same");
    pass(&mut account, 59);
    assert_eq!(status(&account), (GroupStatus::Creating, None));
    pass(&mut account, 2);
    assert_eq!(
        status(&account),
        (GroupStatus::CreateFailed, Some("Ec2SubnetNotFound"))
    );
    account
        .delete_nodegroup("g")
        .expect("a failed group can be deleted");
    pass(&mut account, 61);
    account.create_nodegroup(request("g")).expect("again");
    pass(&mut account, 61);
    assert_eq!(status(&account), (GroupStatus::Active, None));
}

#[test]
fn a_deletion_fails_and_can_be_tried_again() {
    let (mut account, scaling) = with_group(1);
    grow(&mut account, &scaling, 1);
    set(
        &mut account,
        r#"{"kind": "delete-failed", "group": "g", "count": 1}"#,
    );
    account.delete_nodegroup("g").expect("ACTIVE");
    pass(&mut account, 61);
    assert_eq!(
        status(&account),
        (GroupStatus::DeleteFailed, Some("Ec2SecurityGroupDeletionFailure"))
    );
    let ended = |i: &Instance| i.state() == InstanceState::Terminated;
    assert!(account.instances.values().all(ended));
    account.delete_nodegroup("g").expect("DELETE_FAILED");
    pass(&mut account, 61);
    assert!(account.node_groups.is_empty() && account.scaling_groups.is_empty());
}

#[test]
fn a_degraded_group_works_and_heals_when_the_fault_goes() {
    let (mut account, scaling) = with_group(1);
    let text = r#"{"kind": "degraded", "group": "g", "code": "Ec2LaunchTemplateNotFound"}"#;
    let id = set(&mut account, text);
    assert_eq!(grow(&mut account, &scaling, 1).len(), 1);
    assert_eq!(
        status(&account),
        (GroupStatus::Degraded, Some("Ec2LaunchTemplateNotFound"))
    );
    assert!(account.remove_fault(id));
    assert_eq!(status(&account), (GroupStatus::Active, None));
    set(&mut account, r#"{"kind": "degraded", "forSeconds": 30}"#);
    pass(&mut account, 29);
    assert_eq!(status(&account).0, GroupStatus::Degraded);
    pass(&mut account, 2);
    assert_eq!(status(&account).0, GroupStatus::Active);
    let nothing = Description::parse(br#"{"kind": "degraded", "group": "other"}"#).expect("well written");
    let refused = account.set_fault(nothing).expect_err("meets no group");
    assert!(
        refused.starts_with("group: ") && refused.contains("[g]"),
        "{refused}"
    );
}

#[test]
fn the_past_is_as_it_was() {
    let (mut account, scaling) = with_group(1);
    set(
        &mut account,
        r#"{"kind": "stale", "action": "*", "lagSeconds": 40}"#,
    );
    let seen = |account: &Account| {
        let past = account.past(seconds(40));
        let group = past.find_scaling_group(&scaling).expect("there before the fault");
        (group.desired, group.members.len())
    };
    for (second, desired) in [(10, 1), (20, 4), (60, 2)] {
        let wait = second - account.now().since(SimTime::from_secs(61)).as_secs();
        pass(&mut account, wait);
        account.remember(account.now());
        account
            .set_desired_capacity(&scaling, desired, false)
            .expect("within bounds");
    }
    // 61 s: the fault; then 10, 20 and 60 s later the sizes, 2 s after each the instances.
    let at = |account: &mut Account, second: u64| {
        account.advance(SimTime::from_secs(61 + second));
        seen(account)
    };
    assert_eq!(at(&mut account, 61), (4, 1), "21 s: asked for, not launched");
    assert_eq!(at(&mut account, 70), (4, 4));
    assert_eq!(at(&mut account, 98), (4, 4));
    assert_eq!(at(&mut account, 101).0, 2);
    assert_eq!(
        account.find_scaling_group(&scaling).expect("there").desired,
        2,
        "writes are current"
    );
}

#[test]
fn without_a_stale_fault_nothing_of_the_past_is_kept() {
    let (mut account, scaling) = with_group(1);
    let id = set(
        &mut account,
        r#"{"kind": "stale", "action": "*", "lagSeconds": 120}"#,
    );
    for size in 1..200 {
        account.remember(account.now());
        account
            .set_desired_capacity(&scaling, size % 7, false)
            .expect("within bounds");
        pass(&mut account, 3);
    }
    assert!(
        (10..=22).contains(&account.history.len()),
        "{}",
        account.history.len()
    );
    account.remove_fault(id);
    assert_eq!(account.history.len(), 0);
}

#[test]
fn a_view_hides_by_name_and_changes_nothing() {
    let (mut account, scaling) = with_group(1);
    let ids = grow(&mut account, &scaling, 2);
    let mut view = account.view();
    view.hide("DescribeInstances", Some(&ids[0]));
    assert!(view.find_instances(&ids[..1]).is_err() && view.find_instances(&ids[1..]).is_ok());
    assert!(view.find_node_group("g").is_ok());
    view.hide("DescribeNodegroup", None);
    assert!(view.node_groups.is_empty() && view.check_cluster("demo").is_ok());
    view.hide("DescribeCluster", None);
    assert!(view.check_cluster("demo").is_err());
    assert!(account.find_instances(&ids).is_ok() && account.check_cluster("demo").is_ok());
}

#[test]
fn somebody_changes_sizes_tags_and_instances() {
    let (mut account, scaling) = with_group(1);
    let size = |min, max, desired| Change::Size {
        group: "g".to_owned(),
        min,
        max,
        desired,
    };
    account
        .change_by_hand(size(None, None, Some(3)))
        .expect("in bounds");
    pass(&mut account, 120);
    assert_eq!(in_service(&account, &scaling).len(), 3);
    account
        .change_by_hand(size(None, Some(2), None))
        .expect("desired follows");
    pass(&mut account, 120);
    let left = in_service(&account, &scaling);
    assert_eq!(left.len(), 2);
    let refused = account
        .change_by_hand(size(None, None, Some(9)))
        .expect_err("above max");
    assert!(refused.starts_with("desired: must be from 0 to 2"), "{refused}");

    let instance = left[0].clone();
    account
        .change_by_hand(Change::Terminate {
            instance: instance.clone(),
        })
        .expect("there");
    pass(&mut account, 120);
    let after = in_service(&account, &scaling);
    assert!(after.len() == 2 && !after.contains(&instance), "replaced");

    let tags = |resource: &str, remove: &[&str]| Change::Tags {
        resource: resource.to_owned(),
        set: Tags::from([("owner".to_owned(), "somebody".to_owned())]),
        remove: remove.iter().map(|k| (*k).to_owned()).collect(),
    };
    account
        .change_by_hand(tags("g", &["pinnace.dev/cluster"]))
        .expect("a group");
    let group = account.find_node_group("g").expect("there");
    assert_eq!(group.tags.keys().collect::<Vec<_>>(), ["owner"]);
    account.change_by_hand(tags(&after[0], &[])).expect("an instance");
    assert!(account.instances[&after[0]].tags.contains_key("owner"));
    assert!(
        account
            .change_by_hand(tags("nothing", &[]))
            .expect_err("none")
            .starts_with("resource: ")
    );
}

#[test]
fn faults_that_meet_nothing_leave_the_account_as_it_would_have_been() {
    let life = |with_faults: bool| {
        let (mut account, scaling) = with_group(7);
        if with_faults {
            set(
                &mut account,
                r#"{"kind": "never-joins", "group": "other", "probability": 0.5}"#,
            );
            set(
                &mut account,
                r#"{"kind": "stale", "action": "*", "lagSeconds": 9}"#,
            );
        }
        grow(&mut account, &scaling, 5);
        grow(&mut account, &scaling, 2)
    };
    assert_eq!(life(false), life(true));
}
