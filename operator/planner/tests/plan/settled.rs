//! What is remembered of a model at rest saves time and changes no plan.

use std::collections::BTreeMap;

use super::fixture::{Fixture, key, model, pool, pool_name};

fn at_rest() -> Fixture {
    let mut fixture = Fixture::new();
    fixture
        .observed
        .pools
        .insert(pool_name("g5"), pool("g5", "uid-g5", 10));
    fixture.add_model(model("ranker", 2, &["g5"]));
    let group = fixture.add_group("g5.xlarge", super::fixture::SUBNETS[0].0);
    for index in 0..2 {
        let node = fixture.add_node(&group, index);
        fixture.add_pod("ranker", index, Some(&node));
    }
    fixture.apply_objects();
    fixture.stamp_versions();
    let plan = fixture.plan();
    fixture.remember(&plan);
    fixture
}

#[test]
fn a_model_at_rest_is_remembered_and_the_plan_is_the_same() {
    let mut fixture = at_rest();
    assert!(fixture.observed.settled.contains_key(&key("ranker")));
    let remembering = fixture.plan();
    fixture.observed.settled = BTreeMap::new();
    assert_eq!(remembering.models, fixture.plan().models);
}

/// A name, and a change to a fleet at rest.
type Change = (&'static str, fn(&mut Fixture));

#[test]
fn whatever_changes_is_planned_as_if_nothing_were_remembered() {
    let changes: [Change; 8] = [
        ("replicas", |f| f.model().spec.replicas = Some(3)),
        ("model", |f| f.model().spec.model.version = "9".into()),
        ("image of the operator", |f| {
            f.observed.settings.runtime_image = "r.example/other:2".into()
        }),
        ("environment", |f| {
            f.observed.settings.runtime_env.insert("A".into(), "1".into());
        }),
        ("namespace", |f| {
            f.observed.settings.operator_namespace = "other".into()
        }),
        ("taints", |f| {
            let pool = f.observed.pools.get_mut(&pool_name("g5")).unwrap();
            let taint =
                serde_json::from_value(serde_json::json!({"key": "k", "value": "v", "effect": "NoSchedule"}));
            pool.spec.taints = vec![taint.unwrap()];
            pool.metadata.generation = Some(2);
        }),
        ("a Service is gone", |f| {
            f.observed.models.get_mut(&key("ranker")).unwrap().services.pop();
        }),
        ("a Deployment was changed by hand", |f| {
            let model = f.observed.models.get_mut(&key("ranker")).unwrap();
            model.deployments[0].spec.as_mut().unwrap().replicas = Some(9);
        }),
    ];
    for (name, change) in changes {
        let mut fixture = at_rest();
        change(&mut fixture);
        fixture.stamp_versions();
        let remembering = fixture.plan();
        fixture.observed.settled = BTreeMap::new();
        let fresh = fixture.plan();
        assert_eq!(remembering.models, fresh.models, "{name}");
    }
}
