mod drift;
mod world;

use std::collections::BTreeMap;

use crds::{GpuPool, ModelDeployment};
use expect_test::expect_file;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cell::{Rounding, bound};
use super::*;
use crate::observed::CloudMutations;
use world::*;

/// A change of these files rolls or rewrites what every user has: see the head of `workload.rs`.
#[test]
fn whole_objects() {
    let objects = world(&[("g5", 3)]).objects();
    let text = serde_json::to_string_pretty(&objects.apply).unwrap() + "\n";
    expect_file!["golden/small.json"].assert_eq(&text);
    assert_eq!(objects.selector, "pinnace.dev/model=ranker");
    assert_eq!(objects.revision, "2fd69ee6fc67b240");
}

#[test]
fn every_field_of_the_spec_reaches_the_pod() {
    let mut world = world(&[("g5-more", 1)]);
    let spec = &mut world.model.spec.spec;
    spec.model.digest = Some(format!("sha256:{}", "0".repeat(64)));
    spec.priority_class_name = Some("inference-high".into());
    spec.runtime = serde_json::from_value(json!({
        "builtin": {"image": "mine:1", "maxQueue": 7},
        "serviceAccountName": "feed-ranker",
        "imagePullSecrets": [{"name": "pull"}],
        "resources": {"gpus": 2, "cpu": "250m", "memory": "1024Mi"},
        "startupTimeout": "30m",
        "drainTimeout": "1500ms",
    }))
    .unwrap();
    let objects = world.objects();
    assert!(named(&objects.apply, "ServiceAccount").is_empty());
    let deployment = serde_json::to_string_pretty(named(&objects.apply, "Deployment")[0]).unwrap() + "\n";
    expect_file!["golden/full-deployment.json"].assert_eq(&deployment);
}

#[test]
fn cells_hold_a_thousand_replicas() {
    let cells = |replicas| {
        let mut world = world(&[("g5", replicas)]);
        world.settle();
        world.rows().iter().map(|r| r.1).collect::<Vec<_>>()
    };
    assert_eq!(cells(0), [] as [i32; 0]);
    assert_eq!(cells(999), [999]);
    assert_eq!(cells(1000), [1000]);
    assert_eq!(cells(1001), [1000, 1]);
    assert_eq!(cells(2500), [1000, 1000, 500]);
}

#[test]
fn a_surplus_cell_is_emptied_then_deleted() {
    let mut world = world(&[("g5", 1001)]);
    world.settle();
    world.replicas = BTreeMap::from([(PoolName("g5".into()), 900)]);
    let emptying = world.settle();
    assert_eq!(emptying.deletes, []);
    assert_eq!(world.rows().iter().map(|r| r.1).collect::<Vec<_>>(), [900, 0]);
    let kinds: Vec<_> = world.settle().deletes.into_iter().map(|d| d.kind).collect();
    assert_eq!(kinds, ["Deployment", "Service"]);
    assert_eq!(world.rows().len(), 1);
    assert_eq!(world.settle().deletes, []);
}

#[test]
fn cell_0_stays_while_its_pool_is_in_the_placement() {
    let mut world = world(&[("g5", 3), ("g5-more", 2)]);
    world.settle();
    world.replicas = BTreeMap::from([(PoolName("g5".into()), 0), (PoolName("g5-more".into()), 0)]);
    world.settle();
    world.settle();
    assert_eq!(world.rows().len(), 2);
    world.model.spec.spec.placement.truncate(1);
    // The pool itself may be gone by now: its pods keep their template.
    world.pools.remove(&PoolName("g5".into()));
    world.settle();
    assert_eq!(
        world.rows().iter().map(|r| r.0.as_str()).collect::<Vec<_>>(),
        ["g5/0"]
    );
    assert_eq!(world.settle().apply, [] as [Value; 0]);
}

#[test]
fn cells_share_the_bounds_of_the_model() {
    let text = |surge: &str, unavailable: &str, may_surge| {
        let mut world = world(&[("g5", 2500)]);
        world.model.spec.spec.rollout.max_surge = surge.into();
        world.model.spec.spec.rollout.max_unavailable = unavailable.into();
        world.surge = may_surge;
        world.settle();
        let rows = world.rows();
        rows.iter()
            .map(|r| format!("{}+{}-{}", r.1, r.2, r.3))
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(text("2%", "1%", true), "1000+20-10 1000+20-10 500+10-5");
    assert_eq!(text("2%", "0", true), "1000+20-0 1000+20-0 500+10-0");
    assert_eq!(text("2%", "0", false), "1000+0-1 1000+0-1 500+0-1");
    assert_eq!(text("2", "0", true), "1000+1-0 1000+1-0 500+1-0");
    assert_eq!(text("0", "2", true), "1000+0-1 1000+0-1 500+0-1");
    assert_eq!(text("0", "25", false), "1000+0-10 1000+0-10 500+0-5");
}

#[test]
fn percentages_round_as_kubernetes_does() {
    assert_eq!(bound("2%", 3, Rounding::Up), 1);
    assert_eq!(bound("1%", 3, Rounding::Down), 0);
    assert_eq!(bound("1%", 199, Rounding::Down), 1);
    assert_eq!(bound("100%", 7, Rounding::Down), 7);
    assert_eq!(bound("25", 7, Rounding::Up), 25);
}

#[test]
fn an_upgraded_operator_rolls_nothing() {
    let mut world = world(&[("g5", 3)]);
    let before = world.settle().revision;
    world.settings.runtime_image = "registry.example/pinnace-runtime@sha256:2".into();
    world.settings.runtime_env.clear();
    let after = world.objects();
    assert_eq!((after.apply, after.revision.as_str()), (vec![], before.as_str()));

    // A second pool joins with the same image; another model version takes the new one.
    world.replicas.insert(PoolName("g5-more".into()), 1);
    world.settle();
    assert!(world.model.deployments.iter().all(|d| row(d).1 > 0));
    assert!(world.image().ends_with("sha256:1"));
    world.model.spec.spec.model.version = "2".into();
    assert_ne!(world.settle().revision, before);
    assert!(world.image().ends_with("sha256:2"));
}

#[test]
fn replicas_placement_and_rollout_are_not_a_revision() {
    let model = world(&[]).model.spec;
    let same = |change: fn(&mut crds::ModelDeploymentSpec)| {
        let mut changed = model.clone();
        change(&mut changed.spec);
        revision(&changed, "image") == revision(&model, "image")
    };
    assert!(same(|s| s.replicas = Some(9)));
    assert!(same(|s| s.placement.clear()));
    assert!(same(|s| s.rollout.max_surge = "9".into()));
    assert!(!same(|s| s.model.uri.push('x')));
    assert!(!same(|s| s.model.digest = Some("x".into())));
    assert!(!same(|s| s.runtime.builtin.max_queue = Some(1)));
    assert!(!same(|s| s.runtime.resources.gpus = 2));
    assert!(!same(|s| s.priority_class_name = Some("high".into())));
    assert_ne!(revision(&model, "image"), revision(&model, "image2"));
}

#[test]
fn the_virtual_address_goes_at_500_and_comes_back_below_450() {
    let mut world = world(&[("g5", 499)]);
    let mut has = |replicas: u32| {
        world.replicas.insert(PoolName("g5".into()), replicas);
        world.settle();
        let mut services = world.model.services.iter();
        services.any(|s| s.metadata.name.as_deref() == Some("ranker"))
    };
    let steps = [499, 500, 480, 450, 449, 499];
    assert_eq!(steps.map(&mut has), [true, false, false, false, true, true]);
}

#[test]
fn the_own_account_stays_until_no_pod_needs_it() {
    let mut world = world(&[("g5", 3)]);
    world.settle();
    world.model.spec.spec.runtime.service_account_name = Some("theirs".into());
    assert_eq!(world.settle().deletes, []);
    world.model.deployments[0]
        .status
        .as_mut()
        .unwrap()
        .updated_replicas = Some(1);
    assert_eq!(world.objects().deletes, []);
    world.model.deployments[0]
        .status
        .as_mut()
        .unwrap()
        .updated_replicas = Some(3);
    let kinds: Vec<_> = world
        .settle()
        .deletes
        .into_iter()
        .map(|d| (d.kind, d.name))
        .collect();
    assert_eq!(
        kinds,
        [("ServiceAccount".to_owned(), "pinnace-ranker".to_owned())]
    );
}

#[test]
fn what_others_made_is_not_deleted() {
    let mut world = world(&[("g5", 1)]);
    world.settle();
    let mut foreign = world.model.services[0].clone();
    foreign.metadata.name = Some("theirs".into());
    foreign.metadata.owner_references = None;
    world.model.services.push(foreign);
    assert_eq!(world.objects().deletes, []);
}

#[test]
fn names_fit_and_do_not_meet() {
    let pool = |name: &str| PoolName(name.to_owned());
    assert_eq!(cell_name("ranker", &pool("g5"), 0), "ranker-g5-0-8a1fab");
    assert_ne!(cell_name("a-b", &pool("c"), 0), cell_name("a", &pool("b-c"), 0));
    let long = "x".repeat(40);
    assert!(cell_name(&long, &pool(&long), 19).len() <= DEPLOYMENT_NAME_MAX);
    assert_ne!(
        cell_name(&long, &pool(&long), 1),
        cell_name(&long, &pool(&long), 2)
    );
    assert!(!cell_name(&"x".repeat(38), &pool("pool"), 1).contains("--"));
}

#[test]
fn durations() {
    let cases = [
        ("0s", 0),
        ("500ms", 1),
        ("1500ms", 2),
        ("60s", 60),
        ("10m", 600),
        ("2h", 7200),
    ];
    for (text, wanted) in cases {
        assert_eq!(seconds(text), wanted, "{text}");
    }
    assert_eq!(seconds("9999999h"), 30 * 86_400);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever came before: once applied, nothing is left to apply, and replicas and bounds are those asked for.
    #[test]
    fn applied_objects_are_at_rest(
        steps in prop::collection::vec((0u32..3000, 0u32..1500, any::<bool>()), 1..4),
        (surge, unavailable) in ("[0-9]{1,2}%", "[1-9][0-9]?%"),
    ) {
        let mut world = world(&[]);
        world.model.spec.spec.rollout.max_surge = surge;
        world.model.spec.spec.rollout.max_unavailable = unavailable;
        for (first, second, surge) in steps {
            let pools = [("g5", first), ("g5-more", second)];
            world.replicas = pools.map(|(pool, n)| (PoolName(pool.into()), n)).into();
            world.surge = surge;
            world.settle();
            world.settle();
            let rest = world.objects();
            prop_assert_eq!((rest.apply, rest.deletes), (vec![], vec![]));
            for (pool, wanted) in pools {
                let cells = world.rows().into_iter().filter(|r| r.0.starts_with(&format!("{pool}/")));
                let have: i32 = cells.map(|r| r.1).sum();
                prop_assert_eq!(have, i32::try_from(wanted).unwrap());
            }
            prop_assert!(world.rows().iter().all(|r| r.1 <= 1000 && (r.2 != "0" || r.3 != "0")));
        }
    }
}
