//! Specs that cannot be used: the reason, no effect, and healing.

use crds::ConditionType::{Accepted, Ready, Stalled};
use planner::observed::AccountObserved;
use planner::plan::Finalizer;

use super::fixture::{Fixture, key, model, pool_name, said};

type Change = fn(&mut Fixture);

#[test]
fn refused_pools_have_no_effect() {
    let table: [(Change, &str); 6] = [
        (
            |f| f.pool().spec.instance_types = vec!["x9.large".into()],
            "UnknownInstanceType",
        ),
        (
            |f| f.pool().spec.instance_types.push("g5.12xlarge".into()),
            "MixedGpuCounts",
        ),
        (
            |f| f.pool().spec.instance_types = vec!["m5.large".into()],
            "SpecInvalid",
        ),
        (
            |f| f.pool().spec.subnet_ids.push("subnet-0d4".into()),
            "SubnetNotFound",
        ),
        (
            |f| {
                f.cloud().offered.remove("g5.xlarge");
            },
            "InstanceTypeNotOffered",
        ),
        (|_| {}, "Accepted"),
    ];
    for (change, reason) in table {
        let mut fixture = Fixture::with_model(2);
        change(&mut fixture);
        let plan = fixture.pool_plan();
        let fine = reason == "Accepted";
        assert_eq!(plan.cloud.is_empty(), !fine, "{reason}");
        let status = if fine { "True" } else { "False" };
        assert_eq!(said(&plan.conditions, Accepted), format!("{status} {reason}"));
        if !fine {
            assert_eq!(said(&plan.conditions, Ready), format!("False {reason}"));
            assert_eq!(said(&plan.conditions, Stalled), format!("True {reason}"));
        }
    }
}

#[test]
fn refused_models_have_no_effect() {
    let table: [(Change, &str); 7] = [
        (
            |f| f.model().spec.placement[0].pool = "nowhere".into(),
            "PoolNotFound",
        ),
        (|f| f.delete_pool(), "PoolDeleting"),
        (
            |f| f.pool().spec.purpose = crds::gpu_pool::Purpose::Training,
            "SpecInvalid",
        ),
        (
            |f| {
                let selector = &mut f.pool().spec.namespace_selector;
                selector.match_labels = Some([("team".into(), "search".into())].into());
            },
            "NamespaceNotAllowed",
        ),
        (
            |f| f.model().spec.runtime.resources.memory = "15Gi".into(),
            "ResourcesDoNotFit",
        ),
        (
            |f| {
                f.observed.settings.allowed_runtime_images = vec!["registry.example/".into()];
                f.model().spec.runtime.builtin.image = Some("evil.example/x".into());
            },
            "ImageNotAllowed",
        ),
        (
            |f| f.model().spec.runtime.service_account_name = Some("reader".into()),
            "ServiceAccountNotAllowed",
        ),
    ];
    for (change, reason) in table {
        let mut fixture = Fixture::with_model(2);
        change(&mut fixture);
        let plan = fixture.model_plan();
        assert!(plan.objects.is_empty() && plan.deletes.is_empty(), "{reason}");
        assert_eq!(said(&plan.conditions, Accepted), format!("False {reason}"));
        assert_eq!(said(&plan.conditions, Ready), format!("False {reason}"));
        assert_eq!(said(&plan.conditions, Stalled), format!("True {reason}"));
        assert!(fixture.pool_plan().cloud.is_empty(), "{reason}");
    }
}

#[test]
fn an_account_is_usable_when_its_owner_says_so() {
    let mut fixture = Fixture::with_model(1);
    fixture.model().spec.runtime.service_account_name = Some("reader".into());
    for (allows_runtime, status) in [(false, "False ServiceAccountNotAllowed"), (true, "True Accepted")] {
        let model = fixture.observed.models.get_mut(&key("ranker")).unwrap();
        model.named_account = Some(AccountObserved { allows_runtime });
        assert_eq!(said(&fixture.model_plan().conditions, Accepted), status);
    }
}

#[test]
fn a_frozen_model_serves_on() {
    let mut fixture = Fixture::running(3);
    fixture.observed.settings.allowed_runtime_images = vec!["registry.example/".into()];
    fixture.model().spec.runtime.builtin.image = Some("evil.example/x".into());
    fixture.model().spec.replicas = Some(1);
    let plan = fixture.model_plan();
    assert!(plan.objects.is_empty() && plan.pod_costs.is_empty() && plan.deletes.is_empty());
    assert_eq!(plan.assigned[&pool_name("g5")], 3);
    assert_eq!(said(&plan.conditions, Stalled), "True ImageNotAllowed");
    assert!(fixture.pool_plan().node_marks.is_empty());
}

#[test]
fn an_unknown_pool_heals() {
    let mut fixture = Fixture::with_model(2);
    let pool = fixture.observed.pools.remove(&pool_name("g5")).unwrap();
    let plan = fixture.model_plan();
    assert_eq!(said(&plan.conditions, Accepted), "False PoolNotFound");
    fixture.observed.pools.insert(pool_name("g5"), pool);
    let plan = fixture.model_plan();
    assert_eq!(said(&plan.conditions, Accepted), "True Accepted");
    assert!(!plan.objects.is_empty() && !fixture.pool_plan().cloud.is_empty());
}

#[test]
fn one_bad_pool_of_two_is_said_and_the_other_used() {
    let mut fixture = Fixture::new();
    fixture.add_model(model("ranker", 2, &["nowhere", "g5"]));
    let plan = fixture.model_plan();
    assert_eq!(said(&plan.conditions, Accepted), "False PoolNotFound");
    assert_eq!(plan.assigned[&pool_name("g5")], 2);
}

#[test]
fn a_model_without_its_finalizer_makes_nothing() {
    let mut fixture = Fixture::with_model(0);
    fixture.model().metadata.finalizers = None;
    let plan = fixture.model_plan();
    assert_eq!(plan.finalizer, Finalizer::Add);
    assert!(plan.objects.is_empty());
    assert_eq!(
        said(&plan.conditions, crds::ConditionType::Reconciling),
        "True NewGeneration"
    );
}
