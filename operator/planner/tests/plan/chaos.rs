//! Random lives: users change their minds, the operator dies between any two effects, calls are lost, zones sell out, pods
//! vanish, AWS is read late or not at all. The invariants hold at every step, and the end is that of an undisturbed run.

use proptest::prelude::*;

use super::executor::{POINTS, Point, Weather};
use super::fixture::{Fixture, SUBNETS, key, model};
use super::kube::mark_deleted;
use super::world::{POLL, World};

#[derive(Clone, Debug)]
pub enum Event {
    Scale(i32),
    Roll,
    /// Another image for the nodes.
    Image(u8),
    SellOut(usize),
    /// A zone in which orders are not filled, and nothing is said.
    Silence(usize),
    Restock,
    /// What happens at the effect after so many.
    Crash(u32, Point),
    KillPod(usize),
    Rival(i32),
    Poll(i64),
    /// What AWS tells is so many seconds old.
    Lag(i64),
    Weather(u64),
    Outage(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let point = (0..POINTS.len()).prop_map(|i| POINTS[i]);
    prop_oneof![
        4 => (0..7i32).prop_map(Event::Scale),
        1 => Just(Event::Roll),
        2 => (0..3u8).prop_map(Event::Image),
        1 => (0..3usize).prop_map(Event::SellOut),
        1 => (0..3usize).prop_map(Event::Silence),
        1 => Just(Event::Restock),
        4 => (0..6u32, point).prop_map(|(n, point)| Event::Crash(n, point)),
        1 => (0..9usize).prop_map(Event::KillPod),
        1 => (0..4i32).prop_map(Event::Rival),
        1 => prop_oneof![Just(5i64), Just(POLL), Just(30), Just(50)].prop_map(Event::Poll),
        1 => prop_oneof![Just(0i64), 1..=120i64].prop_map(Event::Lag),
        1 => (0..20u64).prop_map(Event::Weather),
        1 => any::<bool>().prop_map(Event::Outage),
    ]
}

pub fn happen(world: &mut World, event: &Event, number: usize) {
    let now = world.now();
    world.note(&format!("{event:?}"));
    let zone = |zone: &usize| SUBNETS[*zone].1.to_owned();
    match event {
        Event::Scale(replicas) => world.edit(|spec| spec.replicas = Some(*replicas)),
        Event::Roll => world.edit(|spec| spec.model.uri = format!("s3://models/ranker/r{number}")),
        Event::Image(image) => {
            world.edit_pool(|spec| spec.image.release_version = format!("1.34.2-2026110{image}"));
        }
        Event::SellOut(sold) => {
            world.aws.sold_out.insert(("g5.xlarge".into(), zone(sold)));
        }
        Event::Silence(silent) => {
            world.aws.silent.insert(zone(silent));
        }
        Event::Restock => {
            world.aws.sold_out.clear();
            world.aws.silent.clear();
        }
        Event::Crash(effects, point) => world.crash = Some((world.effects + effects, *point)),
        Event::KillPod(number) => world.pods.kill(*number, now),
        Event::Rival(replicas) => {
            let rival = world.fixture.observed.models.get_mut(&key("rival")).unwrap();
            rival.spec.spec.replicas = Some(*replicas);
            rival.spec.metadata.generation = rival.spec.metadata.generation.map(|g| g + 1);
        }
        Event::Poll(seconds) => world.poll = *seconds,
        Event::Lag(seconds) => world.lag = *seconds,
        Event::Weather(percent) => {
            world.weather = Weather {
                refused: *percent,
                unanswered: *percent,
                late: *percent,
            };
        }
        Event::Outage(out) => world.unreadable = *out,
    }
}

/// Two models in a pool of seven nodes, beside a group of somebody else.
pub fn crowded() -> World {
    let mut fixture = Fixture::with_model(2);
    fixture.pool().spec.limits.max_nodes = 7;
    fixture.observed.priority_classes.insert("high".into(), 10);
    let mut rival = model("rival", 1, &["g5"]);
    rival.spec.priority_class_name = Some("high".into());
    fixture.add_model(rival);
    let mut world = World::new(fixture);
    world.aws.arrives_late = true;
    world.add_foreign();
    world
}

/// Lives through the events, then in fair weather to rest, then to the end of everything.
pub fn live(world: &mut World, events: &[(Event, u32)]) {
    for (number, (event, steps)) in events.iter().enumerate() {
        happen(world, event, number);
        for _ in 0..*steps {
            world.step();
        }
    }
    happen(world, &Event::Restock, 0);
    (world.poll, world.lag, world.unreadable) = (POLL, 0, false);
    world.weather = Weather::default();
    world.rest();
    let wish = |world: &World, name: &str| {
        world.fixture.observed.models[&key(name)]
            .spec
            .spec
            .replicas
            .unwrap()
    };
    let wishes = usize::try_from(wish(world, "ranker") + wish(world, "rival")).unwrap();
    assert_eq!(world.serving(), wishes.min(7), "{}", world.last_words());
    // Where the pool was full, a roll had no room.
    world.edit_pool(|spec| spec.limits.max_nodes = 12);
    world.settle();
    assert_eq!(world.serving(), wishes, "{}", world.last_words());
    let nodes: u32 = world.ours().map(|(_, g)| g.requested()).sum();
    assert_eq!(nodes as usize, wishes, "{}", world.last_words());
    let image = world.fixture.pool().spec.image.release_version.clone();
    assert!(
        world.ours().all(|(_, g)| g.spec.release_version == image),
        "an old group is left: {}",
        world.last_words()
    );
    let now = world.now();
    mark_deleted(&mut world.fixture.pool().metadata, now);
    for model in world.fixture.observed.models.values_mut() {
        mark_deleted(&mut model.spec.metadata, now);
    }
    world.settle();
    assert!(world.fixture.observed.models.is_empty() && world.fixture.observed.pools.is_empty());
    assert_eq!(
        (world.aws.groups.len(), world.aws.templates.len()),
        (world.foreign.len(), 0)
    );
}

/// Few by default; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if asked { default.cases } else { 16 },
        max_shrink_iters: 200,
        failure_persistence: None,
        ..default
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_lives(events in prop::collection::vec((event(), 0..40u32), 1..14)) {
        live(&mut crowded(), &events);
    }
}
