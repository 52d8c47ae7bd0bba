//! How long a plan of a big fleet takes. `cargo test -p planner --release --test plan -- --ignored --nocapture fleet`

use std::time::Instant;

use planner::observed::PodObserved;

use super::fixture::{Fixture, key, model, pool, pool_name};

const POOLS: u32 = 10;

/// `models` models over ten pools, a tenth of them big; a node and a pod for each replica, `waiting` replicas without any.
fn fleet(models: u32, nodes: u32, waiting: u32) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.observed.settings.group_slots = 300;
    for index in 0..POOLS {
        let name = format!("p{index}");
        let pool = pool(&name, &format!("uid-{name}"), 13_000);
        fixture.observed.pools.insert(pool_name(&name), pool);
    }
    let groups: Vec<_> = super::fixture::SUBNETS
        .iter()
        .map(|(subnet, _)| fixture.add_group("g5.xlarge", subnet))
        .collect();
    let mut replicas = vec![0; models as usize];
    for index in 0..nodes + waiting {
        let model = index % models;
        replicas[model as usize] += 1;
        let (model, pool) = (format!("m{model}"), format!("p{}", model % POOLS));
        if replicas[(index % models) as usize] == 1 {
            fixture.add_model(super::fixture::model(&model, 0, &[&pool]));
        }
        let node = (index < nodes).then(|| fixture.add_node(&groups[(index % 3) as usize], index));
        fixture.add_pod(&model, index, node.as_deref());
        let pod: &mut PodObserved = fixture.observed.pods.last_mut().unwrap();
        pod.owner.as_mut().unwrap().pool = pool_name(&pool);
    }
    let of_pod: std::collections::BTreeMap<_, _> = fixture
        .observed
        .pods
        .iter()
        .filter_map(|p| Some((p.node.clone()?, p.owner.as_ref()?.pool.clone())))
        .collect();
    for node in fixture.observed.nodes.values_mut() {
        node.pool = of_pod[&node.name].clone();
    }
    for (index, count) in replicas.into_iter().enumerate() {
        let model = fixture
            .observed
            .models
            .get_mut(&key(&format!("m{index}")))
            .unwrap();
        model.spec.spec.replicas = Some(count);
    }
    fixture.apply_objects();
    fixture
}

#[test]
#[ignore = "prints milliseconds, judges nothing"]
#[allow(clippy::disallowed_methods, reason = "measures the planner, does not plan")]
fn fleet_plan() {
    for (models, nodes, waiting) in [(500, 2_650, 350), (1_000, 5_300, 700), (2_000, 10_600, 1_400)] {
        let mut fixture = fleet(models, nodes, waiting);
        let mut row = vec![];
        fixture.stamp_versions();
        for change in ["first", "at rest", "all halved", "all frozen", "pools gone"] {
            match change {
                "all halved" => {
                    for model in fixture.observed.models.values_mut() {
                        model.spec.spec.replicas = model.spec.spec.replicas.map(|n| n / 2);
                    }
                }
                // Without the objects of the models.
                "all frozen" => {
                    fixture.observed.settings.allowed_runtime_images = vec!["registry.example/".into()];
                    for model in fixture.observed.models.values_mut() {
                        model.spec.spec.runtime.builtin.image = Some("other.example/x".into());
                    }
                }
                "pools gone" => fixture.observed.pools.clear(),
                _ => {}
            }
            let start = Instant::now();
            let plan = fixture.plan();
            fixture.remember(&plan);
            row.push(format!("{change} {} ms", start.elapsed().as_millis()));
            assert_eq!(plan.models.len(), models as usize);
        }
        println!(
            "{models} models, {nodes} nodes, {} pods: {}",
            nodes + waiting,
            row.join(", ")
        );
    }
}

#[test]
fn a_small_fleet_is_at_rest() {
    let fixture = fleet(20, 60, 0);
    let plan = fixture.plan();
    assert!(plan.models.values().all(|m| m.objects.is_empty()));
    assert!(plan.pools.values().all(|p| p.node_marks.is_empty()));
    let model = model("m0", 1, &["p0"]);
    assert_eq!(
        plan.models[&key("m0")].assigned[&pool_name("p0")],
        3,
        "{:?}",
        model.metadata.name
    );
}
