//! Every verb of the cloud seam, through the real AWS SDKs, against the simulated account (`aws-sim`, at 600 times the
//! speed of the clock and without nodes).
//!
//! The binary is `$AWS_SIM_BIN`, else the one that a build of the workspace leaves in its target directory.

mod calls;
mod simulator;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use calls::*;
use crds::gpu_pool::{ImageFamily, Purchase, Taint, TaintEffect};
use operator::cloud::eks::Eks;
use operator::cloud::{CatalogQuery, CloudError, NodeGroups};
use planner::name;
use planner::observed::{
    CloudErrorClass, CloudObserved, GroupObserved, GroupState, Lifecycle, PoolName, ScalingObserved,
};
use planner::plan::{CloudAction, GroupName, GroupSpec};
use simulator::{CLUSTER, NODE_ROLE, Simulator};

#[tokio::test(flavor = "multi_thread")]
async fn a_group_lives_from_create_to_gone() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let spec = spec("g5", 0);

    run(&eks, create(&spec)).await;
    run(&eks, create(&spec)).await;
    let group = wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    assert!(group.matches(&spec));
    assert_eq!((group.zone.as_str(), group.owner.shard), ("us-east-1a", 0));
    assert_eq!(group.owner.pool_uid, UID);
    let scaling = group.scaling.expect("an active group has one");
    assert_eq!(
        (scaling.desired, scaling.max, scaling.instances.len()),
        (0, 450, 0)
    );

    let cloud = describe(&eks).await;
    assert_eq!(
        (cloud.groups.len(), cloud.group_count, cloud.templates.len()),
        (1, 1, 1)
    );
    let template = &cloud.templates[&spec.template_name];
    assert_eq!(
        (template.pool_uid.as_str(), template.spec_hash.as_str()),
        (UID, HASH)
    );
    // The second create was answered from its tokens.
    let created = ["CreateLaunchTemplate", "CreateNodegroup"];
    assert_eq!(simulator.mutations().await, created.repeat(2));

    run(&eks, grow(&spec, 3)).await;
    run(&eks, grow(&spec, 3)).await;
    run(&eks, grow(&spec, 2)).await;
    let instances = in_service(&with_instances(&eks, &spec, 3).await);
    assert_eq!(
        simulator.count("SetDesiredCapacity").await,
        1,
        "never lower, never twice"
    );

    let victims = vec![instances[1].clone()];
    run(&eks, remove(&spec, &victims, 2)).await;
    run(&eks, remove(&spec, &victims, 2)).await;
    let left = with_instances(&eks, &spec, 2).await;
    let expected: BTreeSet<_> = instances.iter().filter(|id| !victims.contains(id)).collect();
    assert_eq!(in_service(&left).iter().collect::<BTreeSet<_>>(), expected);
    assert!(left.instances.iter().all(|instance| instance.protected));
    assert_eq!(left.desired, 2);

    assert_eq!(
        refusal(&eks, delete(&spec)).await.class(),
        CloudErrorClass::Conflict
    );
    run(&eks, remove(&spec, &in_service(&left), 0)).await;
    with_instances(&eks, &spec, 0).await;
    assert_eq!(
        refusal(&eks, delete_template(&spec)).await.class(),
        CloudErrorClass::Conflict
    );
    run(&eks, delete(&spec)).await;
    run(&eks, delete(&spec)).await;
    wait_gone(&eks, &spec.name).await;
    run(&eks, delete(&spec)).await;
    run(&eks, delete_template(&spec)).await;
    run(&eks, delete_template(&spec)).await;
    let cloud = describe(&eks).await;
    assert!(cloud.groups.is_empty() && cloud.templates.is_empty());
    assert_eq!(cloud.group_count, 0);

    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    assert_eq!(simulator.denied().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_is_asked_once_and_leaves_out_what_does_not_exist() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let cloud = describe(&eks).await;
    let names: Vec<_> = cloud.types.keys().map(String::as_str).collect();
    assert_eq!(names, ["g5.xlarge", "p4d.24xlarge"]);
    let g5 = &cloud.types["g5.xlarge"];
    assert_eq!((g5.vcpus, g5.memory_mib, g5.gpus), (4, 16 * 1024, 1));
    assert_eq!(cloud.types["p4d.24xlarge"].gpus, 8);
    assert_eq!(cloud.offered["g5.xlarge"].len(), 3);
    assert_eq!(cloud.offered["p4d.24xlarge"].len(), 2);
    let zones: Vec<_> = cloud.subnets.values().map(String::as_str).collect();
    assert_eq!(zones, ["us-east-1a", "us-east-1b"]);

    let asked = simulator.calls().await.len();
    describe(&eks).await;
    // Sent at once: either may arrive first.
    let mut again = simulator.calls().await.split_off(asked);
    again.sort();
    assert_eq!(again, ["DescribeLaunchTemplates", "ListNodegroups"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_belongs_to_others_is_not_touched() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let ours = spec("g5", 0);
    run(&eks, create(&ours)).await;
    wait(&eks, &ours.name, |group| group.state == GroupState::Active).await;
    let before = simulator.mutations().await;

    let theirs = GroupSpec {
        pool_uid: OTHER_UID.to_owned(),
        ..ours.clone()
    };
    for action in [
        create(&theirs),
        grow(&theirs, 2),
        remove(&theirs, &["i-0123".to_owned()], 0),
        delete(&theirs),
        delete_template(&theirs),
        CloudAction::Release {
            group: ours.name.clone(),
            pool_uid: OTHER_UID.to_owned(),
        },
        CloudAction::Adopt {
            group: ours.name.clone(),
            from_uid: OTHER_UID.to_owned(),
            to_uid: "another".to_owned(),
        },
    ] {
        let verb = action.verb();
        assert_eq!(
            refusal(&eks, action).await.class(),
            CloudErrorClass::Conflict,
            "{verb}"
        );
    }
    // Nothing but the refused creation of a template of the same name was sent.
    let after = simulator.mutations().await.split_off(before.len());
    assert_eq!(after, Vec::<String>::new());

    // A group of the same cluster that only has a name like ours.
    let foreign = "pn-somebody-else";
    simulator.create_foreign_group(foreign).await;
    let cloud = describe(&eks).await;
    assert_eq!((cloud.groups.len(), cloud.group_count), (1, 2));
    let name = GroupName(foreign.to_owned());
    let action = CloudAction::DeleteGroup {
        group: name,
        pool_uid: UID.to_owned(),
    };
    assert_eq!(refusal(&eks, action).await.class(), CloudErrorClass::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_an_owner_is_released_and_adopted() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let spec = spec("g5", 0);
    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    let release = CloudAction::Release {
        group: spec.name.clone(),
        pool_uid: UID.to_owned(),
    };
    run(&eks, release.clone()).await;
    run(&eks, release).await;
    let cloud = describe(&eks).await;
    assert!(cloud.groups[&spec.name].owner.released);

    let adopt = CloudAction::Adopt {
        group: spec.name.clone(),
        from_uid: UID.to_owned(),
        to_uid: OTHER_UID.to_owned(),
    };
    run(&eks, adopt.clone()).await;
    run(&eks, adopt).await;
    let cloud = describe(&eks).await;
    let owner = &cloud.groups[&spec.name].owner;
    assert_eq!((owner.pool_uid.as_str(), owner.released), (OTHER_UID, false));
    assert_eq!(cloud.templates[&spec.template_name].pool_uid, OTHER_UID);
    assert_eq!(simulator.count("TagResource").await, 2);
    assert_eq!(simulator.count("CreateTags").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_whose_answers_are_lost_is_made_once() {
    let simulator = Simulator::start().await;
    let eks = Arc::new(simulator.operator(|| true).await);
    let spec = spec("g5", 0);
    for action in ["CreateLaunchTemplate", "CreateNodegroup"] {
        simulator.hold_answers(action, 1).await;
        let call = tokio::spawn({
            let (eks, action) = (Arc::clone(&eks), create(&spec));
            async move { eks.execute(&action).await }
        });
        simulator.wait_held(action).await;
        // Committed, and the caller is gone before the answer.
        call.abort();
        assert!(call.await.expect_err("aborted").is_cancelled());
        simulator.release_holds().await;
    }
    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    let cloud = describe(&eks).await;
    assert_eq!((cloud.group_count, cloud.templates.len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_meets_no_capacity_is_seen_and_withdrawn() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let spec = spec("g5", 0);
    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    simulator.set_capacity("g5.xlarge", "us-east-1a", Some(2)).await;
    run(&eks, grow(&spec, 5)).await;
    let short = wait(&eks, &spec.name, |group| {
        group.scaling.as_ref().is_some_and(|scaling| {
            in_service(scaling).len() == 2 && scaling.instances.len() == 2 && scaling.launch_failure.is_some()
        })
    });
    let scaling = short.await.scaling.expect("just seen");
    let failure = scaling.launch_failure.expect("just seen");
    assert!(failure.no_capacity, "{}", failure.message);

    run(&eks, remove(&spec, &[], 0)).await;
    let left = with_instances(&eks, &spec, 2).await;
    assert_eq!(left.desired, 2);
    assert!(left.instances.iter().all(|instance| instance.protected));
    // The refusal outlives its order, or the planner would order here again at once.
    let remembered = left.launch_failure.expect("a refusal a moment ago");
    assert!(remembered.no_capacity && remembered.at >= failure.at);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_once_the_guard_says_no() {
    let simulator = Simulator::start().await;
    let may_send = Arc::new(AtomicBool::new(true));
    let guard = Arc::clone(&may_send);
    let eks = simulator.operator(move || guard.load(Ordering::SeqCst)).await;
    let spec = spec("g5", 0);
    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    may_send.store(false, Ordering::SeqCst);
    let before = simulator.mutations().await;
    for action in [create(&spec), grow(&spec, 1), delete(&spec)] {
        let error = refusal(&eks, action).await;
        assert_eq!(error.class(), CloudErrorClass::Conflict);
        assert!(error.message.contains("lease lost"), "{error}");
    }
    assert_eq!(simulator.mutations().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_a_class_and_name_the_call() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let wrong = GroupSpec {
        release_version: "1.20.0-20261101".to_owned(),
        ..spec("g5", 0)
    };
    let error = refusal(&eks, create(&wrong)).await;
    assert_eq!(
        (error.class(), error.operation),
        (CloudErrorClass::Invalid, "CreateNodegroup")
    );
    assert_eq!(error.resource, wrong.name.0);
    let error = refusal(&eks, grow(&spec("absent", 0), 1)).await;
    assert_eq!(error.class(), CloudErrorClass::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_removed_while_an_instance_is_on_its_way() {
    // At the speed of the clock an instance is pending for 15 s.
    let simulator = Simulator::start_with(&["--time-scale", "1", "--create-delay", "1s"]).await;
    let eks = simulator.operator(|| true).await;
    let spec = spec("g5", 0);
    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    run(&eks, grow(&spec, 1)).await;
    let group = wait(&eks, &spec.name, |group| {
        let scaling = group.scaling.as_ref();
        scaling.is_some_and(|scaling| !scaling.instances.is_empty())
    });
    let instance = group.await.scaling.expect("just seen").instances.remove(0);
    assert_eq!(instance.lifecycle, Lifecycle::Pending);
    for action in [
        remove(&spec, std::slice::from_ref(&instance.id), 0),
        remove(&spec, &[], 0),
        delete(&spec),
    ] {
        assert_eq!(refusal(&eks, action).await.class(), CloudErrorClass::Conflict);
    }
    assert_eq!(simulator.count("SetDesiredCapacity").await, 1);
    assert_eq!(simulator.count("SetInstanceProtection").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_instances_are_protected_fifty_at_a_time() {
    let simulator = Simulator::start().await;
    let eks = simulator.operator(|| true).await;
    let spec = spec("g5", 0);
    run(&eks, create(&spec)).await;
    wait(&eks, &spec.name, |group| group.state == GroupState::Active).await;
    run(&eks, grow(&spec, 121)).await;
    let instances = in_service(&with_instances(&eks, &spec, 121).await);
    run(&eks, remove(&spec, &instances[..1], 120)).await;
    let left = in_service(&with_instances(&eks, &spec, 120).await);
    assert!(!left.contains(&instances[0]));
    assert_eq!(simulator.count("SetInstanceProtection").await, 3);
    // The second removal finds the others protected, and only frees its victims.
    run(&eks, remove(&spec, &instances[1..61], 60)).await;
    let left = in_service(&with_instances(&eks, &spec, 60).await);
    assert_eq!(
        left.iter().collect::<BTreeSet<_>>(),
        instances[61..].iter().collect()
    );
    assert_eq!(simulator.count("SetInstanceProtection").await, 5);
}
