//! Replicas that have answered, and what is decided of them.

use super::*;

pub const T0: Timestamp = Timestamp::UNIX_EPOCH;

pub fn at(seconds: i64) -> Timestamp {
    T0 + SignedDuration::from_secs(seconds)
}

pub fn spec(metrics: Value) -> Autoscaling {
    serde_json::from_value(json!({"minReplicas": 1, "maxReplicas": 100, "metrics": metrics,
        "stabilization": {"scaleUp": "0s", "scaleDown": "5m"}}))
    .unwrap()
}

pub fn rate() -> Value {
    json!({"name": "rate", "type": "RequestRate", "requestRate": {"targetPerReplica": 100}})
}

pub fn queue() -> Value {
    json!({"name": "queue", "type": "QueueDelay", "queueDelay": {"target": "5ms"}})
}

pub fn gpu() -> Value {
    json!({"name": "gpu", "type": "GpuUtilization", "gpuUtilization": {"targetPercent": 50}})
}

/// A replica that gets so many requests a second and has done so for a minute.
pub fn replica(rate: f64) -> ReplicaLoad {
    ReplicaLoad {
        ready: true,
        offered: [rate; 2],
        answered: [rate; 2],
        busy_percent: Some(20.0),
        gpu_percent: Some((rate / 2.0).min(100.0)),
        ..ReplicaLoad::default()
    }
}

/// `count` requests waited for as long as the bucket says.
pub fn delayed(load: ReplicaLoad, bucket: usize, count: u64) -> ReplicaLoad {
    let mut load = load;
    load.queue_delay_counts[bucket] = count;
    load
}

/// Everything that a decision is made from, with answers of now.
pub struct Case {
    pub spec: Autoscaling,
    pub load: ModelLoad,
    pub ready: usize,
    /// The last of them, which have served for a second.
    pub young: usize,
    pub current: u32,
}

impl Case {
    pub fn new(metrics: Value, replicas: impl IntoIterator<Item = Option<ReplicaLoad>>) -> Self {
        let samples = replicas.into_iter().enumerate().map(|(index, load)| Sample {
            pod: format!("pod-{index}"),
            read_at: T0,
            load,
        });
        let samples: Vec<_> = samples.collect();
        let ready = samples.len();
        let load = ModelLoad {
            population: u32::try_from(ready).unwrap(),
            samples,
        };
        Self {
            spec: spec(metrics),
            load,
            ready,
            young: 0,
            current: u32::try_from(ready).unwrap(),
        }
    }

    pub fn decide(&self, now: Timestamp, memory: Option<&Memory>) -> Decision {
        let names: Vec<String> = (0..self.ready).map(|index| format!("pod-{index}")).collect();
        let since = |index: usize| {
            at(if index + self.young >= self.ready {
                -1
            } else {
                -3600
            })
        };
        let ready: Vec<_> = names
            .iter()
            .enumerate()
            .map(|(i, name)| (name.as_str(), since(i)))
            .collect();
        let situation = Situation {
            spec: &self.spec,
            load: Some(&self.load),
            ready: &ready,
            current: self.current,
            max_age: SignedDuration::from_secs(15),
            now,
        };
        decide(&situation, memory)
    }

    /// What would be asked for if nothing had to be waited for.
    pub fn asked(&self) -> Option<u32> {
        self.decide(T0, None).recommendations[0].1
    }
}

pub fn all(count: usize, load: &ReplicaLoad) -> Vec<Option<ReplicaLoad>> {
    vec![Some(load.clone()); count]
}
