//! Random lives: users change their minds, the operator dies between any two effects, zones sell out, pods vanish, AWS is read
//! late. The invariants hold at every step, and the end is that of an undisturbed run.

use proptest::prelude::*;

use super::fixture::{Fixture, key, model};
use super::kube::mark_deleted;
use super::world::{POLL, World};

#[derive(Clone, Debug)]
enum Event {
    Scale(i32),
    Roll,
    SellOut(usize),
    Restock,
    /// The operator dies after this many effects of its next plan, and starts again without knowing AWS.
    Crash(u32),
    KillPod(usize),
    Rival(i32),
    Poll(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..7i32).prop_map(Event::Scale),
        1 => Just(Event::Roll),
        1 => (0..3usize).prop_map(Event::SellOut),
        1 => Just(Event::Restock),
        4 => (0..6u32).prop_map(Event::Crash),
        1 => (0..9usize).prop_map(Event::KillPod),
        1 => (0..4i32).prop_map(Event::Rival),
        1 => prop_oneof![Just(5i64), Just(POLL), Just(30), Just(50)].prop_map(Event::Poll),
    ]
}

fn happen(world: &mut World, event: &Event, number: usize) {
    let now = world.now();
    match event {
        Event::Scale(replicas) => world.edit(|spec| spec.replicas = Some(*replicas)),
        Event::Roll => world.edit(|spec| spec.model.uri = format!("s3://models/ranker/r{number}")),
        Event::SellOut(zone) => {
            let zone = super::fixture::SUBNETS[*zone].1.to_owned();
            world.aws.sold_out.insert(("g5.xlarge".into(), zone));
        }
        Event::Restock => world.aws.sold_out.clear(),
        Event::Crash(effects) => {
            world.effects_left = *effects;
            world.step();
            world.fixture.observed.cloud = None;
            let plan = world.fixture.plan();
            world.carry_out(&plan);
        }
        Event::KillPod(number) => world.pods.kill(*number, now),
        Event::Rival(replicas) => {
            let rival = world.fixture.observed.models.get_mut(&key("rival")).unwrap();
            rival.spec.spec.replicas = Some(*replicas);
            rival.spec.metadata.generation = rival.spec.metadata.generation.map(|g| g + 1);
        }
        Event::Poll(seconds) => world.poll = *seconds,
    }
}

fn live(events: &[(Event, u32)]) {
    let mut fixture = Fixture::with_model(2);
    fixture.pool().spec.limits.max_nodes = 7;
    fixture.observed.priority_classes.insert("high".into(), 10);
    let mut rival = model("rival", 1, &["g5"]);
    rival.spec.priority_class_name = Some("high".into());
    fixture.add_model(rival);
    let mut world = World::new(fixture);
    for (number, (event, steps)) in events.iter().enumerate() {
        happen(&mut world, event, number);
        for _ in 0..*steps {
            world.step();
        }
    }
    world.aws.sold_out.clear();
    world.poll = POLL;
    world.settle();
    let wish = |name: &str| {
        world.fixture.observed.models[&key(name)]
            .spec
            .spec
            .replicas
            .unwrap()
    };
    let total = usize::try_from((wish("ranker") + wish("rival")).min(7)).unwrap();
    assert_eq!(world.serving(), total);
    assert_eq!(world.aws.requested("g5") as usize, total);
    let now = world.now();
    mark_deleted(&mut world.fixture.pool().metadata, now);
    for model in world.fixture.observed.models.values_mut() {
        mark_deleted(&mut model.spec.metadata, now);
    }
    world.settle();
    assert!(world.fixture.observed.models.is_empty() && world.fixture.observed.pools.is_empty());
    assert!(world.aws.is_bare());
}

/// Few by default; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if asked { default.cases } else { 24 },
        max_shrink_iters: 200,
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_lives(events in prop::collection::vec((event(), 0..40u32), 1..14)) {
        live(&events);
    }
}
