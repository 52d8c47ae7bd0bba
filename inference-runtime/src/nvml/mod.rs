//! What NVML says of the GPUs that this process sees.
//!
//! `sampler` (one thread, the only place that calls the driver) -> `read` (a driver call each, into our words) ->
//! `sample` (sums over GPUs) -> `board` (the newest sample) -> `/load` and `metrics`.
//!
//! Invariant: nobody waits for the sampler. A driver call that hangs holds its own thread only, and what was known
//! before grows old on the board. What the driver does not say is absent, never 0.

mod board;
mod metrics;
mod read;
mod sample;
mod sampler;

pub use board::{Board, Taken};
pub use metrics::GpuMetrics;
pub use sample::{Gpu, Memory, Reading, Sample, Summary, Throttle};
pub use sampler::start;
