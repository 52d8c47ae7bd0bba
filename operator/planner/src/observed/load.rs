//! What replicas say of their load (`GET /load` of the runtime's admin port, version 1).

use jiff::Timestamp;

/// Upper bounds of the queue-delay counts, in ms; a thirteenth count is for what is above.
pub const QUEUE_DELAY_BOUNDS_MS: [f64; 12] = [
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0,
];

/// The replicas of a model that were asked in the last rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelLoad {
    pub samples: Vec<Sample>,
    /// Replicas that the samples stand for: those that served when the round began. Who came later is not one of them.
    pub population: u32,
}

/// The last that is known of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub pod: String,
    /// When the answer came; when the pod was asked first, if none ever came.
    pub read_at: Timestamp,
    /// `None`: it has never given an answer that can be read.
    pub load: Option<ReplicaLoad>,
}

/// One answer, as it came: what is impossible is dropped by the autoscaler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReplicaLoad {
    /// The model is loaded and the replica takes requests.
    pub ready: bool,
    /// Requests a second over 6 s and 60 s: all that came, refused ones included.
    pub offered: [f64; 2],
    pub refused: [f64; 2],
    pub answered: [f64; 2],
    /// Requests of the last 6 s by their time in the queue, see [`QUEUE_DELAY_BOUNDS_MS`]; not cumulative.
    pub queue_delay_counts: [u64; 13],
    /// Share of the engine threads' time in the engine, 0 to 100.
    pub busy_percent: Option<f64>,
    /// GPU utilization by NVML, 0 to 100; absent when there is no GPU, it is not supported, or the sample is stale.
    pub gpu_percent: Option<f64>,
}
