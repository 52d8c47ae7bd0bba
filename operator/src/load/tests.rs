//! Whom a round asks and what is kept of it, against replicas that answer, fail and hang.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// By address: `hang...` never answers, `fail...` refuses, others answer with a rate of 1.
#[derive(Default)]
struct Fake {
    asked: AtomicUsize,
}

impl GpuLoad for Fake {
    async fn read(&self, address: &str) -> Result<ReplicaLoad, LoadError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if address.starts_with("hang") {
            std::future::pending::<()>().await;
        }
        if address.starts_with("fail") {
            let (address, status) = (address.to_owned(), 500);
            return Err(LoadError::Status { address, status });
        }
        Ok(ReplicaLoad {
            ready: true,
            offered: [1.0; 2],
            ..ReplicaLoad::default()
        })
    }
}

fn model(name: &str) -> ModelKey {
    ModelKey {
        namespace: "recsys".to_owned(),
        name: name.to_owned(),
    }
}

fn pods(kind: &str, count: usize) -> Vec<Target> {
    let target = |index| Target {
        pod: format!("{kind}-{index}"),
        address: format!("{kind}{index}:8002"),
    };
    (0..count).map(target).collect()
}

fn loads(targets: impl IntoIterator<Item = (ModelKey, Vec<Target>)>) -> Arc<Loads<Fake>> {
    let loads = Loads::new(Fake::default(), Arc::default(), Duration::from_millis(20));
    loads.ask(targets.into_iter().collect());
    loads
}

fn answered(loads: &Loads<Fake>, model: &ModelKey) -> usize {
    let known = loads.snapshot();
    known[model].samples.iter().filter(|s| s.load.is_some()).count()
}

#[tokio::test]
async fn all_of_a_few_and_a_sample_of_many() {
    let loads = loads([(model("few"), pods("a", 7)), (model("many"), pods("b", 3000))]);
    assert!(loads.round().await);
    assert_eq!(
        (answered(&loads, &model("few")), answered(&loads, &model("many"))),
        (7, SAMPLE)
    );
    assert_eq!(loads.reader.asked.load(Ordering::Relaxed), 7 + SAMPLE);
    let first: BTreeSet<_> = loads.snapshot()[&model("many")]
        .samples
        .iter()
        .map(|s| s.pod.clone())
        .collect();
    loads.round().await;
    let second: BTreeSet<_> = loads.snapshot()[&model("many")]
        .samples
        .iter()
        .map(|s| s.pod.clone())
        .collect();
    assert_ne!(first, second, "another sample each time");
}

#[tokio::test]
async fn nobody_to_ask_is_no_round() {
    let loads = loads([(model("m"), pods("a", 1))]);
    loads.round().await;
    loads.ask(Targets::new());
    assert!(!loads.round().await);
    assert!(loads.snapshot().is_empty());
}

#[tokio::test]
async fn nothing_is_told_of_half_a_round() {
    let loads = loads([(model("m"), pods("a", 2))]);
    loads.round().await;
    let told = loads.snapshot();
    loads.ask([(model("m"), pods("a", 3))].into());
    let (all, _) = loads.begin();
    loads.lane(all, 1).await;
    assert_eq!(loads.snapshot(), told);
    loads.tell();
    assert_eq!(answered(&loads, &model("m")), 3);
}

#[tokio::test]
async fn a_dead_zone_delays_nobody_but_once() {
    let loads = loads([(model("m"), [pods("a", 50), pods("hang", 100)].concat())]);
    assert_eq!(loads.begin().1.len(), 0);
    loads.round().await;
    assert_eq!(answered(&loads, &model("m")), 50);
    // From now on a round waits for those that answer only.
    let (healthy, failing) = loads.begin();
    assert_eq!((healthy.len(), failing.len()), (50, 100));
    assert!(healthy.iter().all(|(_, target)| target.pod.starts_with('a')));
}

#[tokio::test]
async fn the_failing_lane_is_not_entered_twice() {
    let loads = loads([(model("m"), pods("hang", 64))]);
    loads.round().await;
    let _busy = Arc::clone(&loads.failing_lane).acquire_owned().await.unwrap();
    let before = loads.reader.asked.load(Ordering::Relaxed);
    for _ in 0..10 {
        loads.round().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(loads.reader.asked.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn who_recovers_comes_back_and_who_fails_keeps_its_last_answer() {
    let flaky = |address: &str| {
        vec![Target {
            pod: "p".to_owned(),
            address: address.to_owned(),
        }]
    };
    let loads = loads([(model("m"), flaky("good:8002"))]);
    loads.round().await;
    let first = loads.snapshot()[&model("m")].samples[0].clone();
    assert!(first.load.is_some());
    loads.ask([(model("m"), flaky("fail:8002"))].into());
    loads.round().await;
    assert_eq!(loads.snapshot()[&model("m")].samples, [first]);
    loads.ask([(model("m"), flaky("good:8002"))].into());
    // The failing lane is a task of its own.
    while !loads.lock().failing.is_empty() {
        loads.round().await;
        tokio::task::yield_now().await;
    }
    loads.round().await;
    assert_eq!(answered(&loads, &model("m")), 1);
}

#[tokio::test]
async fn who_is_gone_is_forgotten() {
    let loads = loads([(model("m"), [pods("a", 2), pods("fail", 1)].concat())]);
    loads.round().await;
    assert_eq!(loads.lock().failing.len(), 1);
    loads.ask([(model("m"), pods("a", 1))].into());
    loads.round().await;
    assert_eq!(loads.snapshot()[&model("m")].samples.len(), 1);
    assert!(loads.lock().failing.is_empty());
}

#[test]
fn answers_are_read() {
    let whole = serde_json::json!({
        "version": 1, "bootId": "0", "revision": "r", "uptimeSeconds": 1.0, "ready": true, "draining": false,
        "requestsPerSecond": {"offered": [3.0, 2.0], "refused": [1.0, 0.5], "answered": [2.0, 1.5]},
        "inFlight": 1, "queueDelayCounts": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], "busyPercent": 40.5,
        "gpu": {"count": 1, "ageSeconds": 0.5, "stale": false, "utilizationPercent": 61},
    });
    let read = |value: &serde_json::Value| runtime::parse(value.to_string().as_bytes());
    let load = read(&whole).unwrap();
    assert_eq!(
        (load.offered, load.refused, load.answered),
        ([3.0, 2.0], [1.0, 0.5], [2.0, 1.5])
    );
    assert_eq!(
        (load.queue_delay_counts[12], load.busy_percent, load.gpu_percent),
        (2, Some(40.5), Some(61.0))
    );
    let with = |pointer: &str, value: serde_json::Value| {
        let mut changed = whole.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        read(&changed)
    };
    // What is stale or not supported is unknown.
    assert_eq!(with("/gpu/stale", true.into()).unwrap().gpu_percent, None);
    assert_eq!(
        with("/gpu/utilizationPercent", ().into()).unwrap().gpu_percent,
        None
    );
    assert_eq!(with("/gpu", ().into()).unwrap().gpu_percent, None);
    assert!(!with("/draining", true.into()).unwrap().ready);
    for (pointer, value) in [
        ("/version", 2.into()),
        ("/queueDelayCounts", serde_json::json!([1, 2])),
        ("/requestsPerSecond/offered", serde_json::json!(["many", 1])),
    ] {
        assert!(with(pointer, value).is_err(), "{pointer}");
    }
}
