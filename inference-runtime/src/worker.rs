//! Workers: threads with an engine each, which take batches of requests from the queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::engine::{Batch, Engine, Outputs, RunError, merge};
use crate::load::{EngineClock, Load};
use crate::protocol::ApiError;
use crate::queue::{Batching, Job, Queue};
use crate::statistics::{Phases, Statistics};

/// What an engine made of a request.
#[derive(Debug)]
pub struct Done {
    pub outputs: Outputs,
    pub waited: Duration,
    /// The engine's time for the run.
    pub ran: Duration,
    /// Requests that shared the run.
    pub shared_by: u32,
    /// Held until the answer is encoded.
    pub permit: Arc<Permit>,
}

pub struct Workers {
    pub queue: Queue,
    statistics: Arc<Statistics>,
    load: Arc<Load>,
}

impl Workers {
    /// Starts a thread an engine.
    pub fn start(
        engines: Vec<Box<dyn Engine>>,
        batching: Batching,
        statistics: Arc<Statistics>,
        load: Arc<Load>,
    ) -> std::io::Result<Arc<Self>> {
        let workers = Arc::new(Self {
            queue: Queue::new(batching),
            statistics,
            load,
        });
        for (index, engine) in engines.into_iter().enumerate() {
            let shared = Arc::clone(&workers);
            let clock = workers.load.engine();
            let engine = Timed::new(engine, clock);
            std::thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(move || shared.work(engine))?;
        }
        Ok(workers)
    }

    fn work(&self, mut engine: Timed) {
        let engine = &mut engine;
        while let Some(jobs) = self.queue.take() {
            let now = Instant::now();
            for job in &jobs {
                self.load.queued(now.saturating_duration_since(job.queued));
            }
            let jobs: Vec<Job> = jobs.into_iter().filter_map(|job| job.in_time(now)).collect();
            if jobs.len() < 2 {
                self.run_each(engine, jobs);
            } else if let Err(jobs) = self.run_joined(engine, jobs) {
                // One request may have spoilt the run of all: each gets its own answer.
                self.run_each(engine, jobs);
            }
        }
    }

    fn run_each(&self, engine: &mut Timed, jobs: Vec<Job>) {
        for job in jobs {
            let Some(mut job) = job.in_time(Instant::now()) else {
                continue;
            };
            let mut outputs = Outputs::default();
            let started = Instant::now();
            match engine.run(job.batch.take(), &mut outputs) {
                Ok(infer) => {
                    let phases = Phases {
                        infer,
                        ..Phases::default()
                    };
                    self.answer(vec![(job, outputs)], started, phases);
                }
                Err(error) => {
                    let _ = job.answer.send(Err(error));
                }
            }
        }
    }

    /// Runs all at once, or gives them back.
    fn run_joined(&self, engine: &mut Timed, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
        let started = Instant::now();
        let batches: Vec<&Batch> = jobs.iter().map(|job| &job.batch).collect();
        let rows: Vec<usize> = batches.iter().map(|batch| batch.rows).collect();
        let Some(batch) = merge::join(&batches) else {
            return Err(jobs);
        };
        let input = started.elapsed();
        let mut outputs = Outputs::default();
        let infer = match engine.run(batch, &mut outputs) {
            Ok(infer) => infer,
            Err(error) => {
                tracing::debug!(%error, requests = jobs.len(), "joined requests failed and are run one by one");
                return Err(jobs);
            }
        };
        let cutting = Instant::now();
        let Some(parts) = merge::split(&outputs, &rows) else {
            return Err(jobs);
        };
        let output = cutting.elapsed();
        let phases = Phases { input, infer, output };
        self.answer(jobs.into_iter().zip(parts).collect(), started, phases);
        Ok(())
    }

    fn answer(&self, answers: Vec<(Job, Outputs)>, started: Instant, phases: Phases) {
        let rows = answers.iter().map(|(job, _)| job.batch.rows).sum();
        let waits = answers.iter().map(|(job, _)| started - job.queued);
        self.statistics.ran(rows, waits, phases);
        let shared_by = u32::try_from(answers.len()).unwrap_or(u32::MAX);
        for (job, outputs) in answers {
            let _ = job.answer.send(Ok(Done {
                outputs,
                waited: started - job.queued,
                ran: phases.infer,
                shared_by,
                permit: job.permit,
            }));
        }
    }
}

/// An engine with its clock.
pub struct Timed {
    engine: Box<dyn Engine>,
    clock: Arc<EngineClock>,
}

impl Timed {
    pub fn new(engine: Box<dyn Engine>, clock: Arc<EngineClock>) -> Self {
        Self { engine, clock }
    }

    /// One run, and its time. A panic is an error of this run only.
    pub fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<Duration, ApiError> {
        let started = Instant::now();
        self.clock.begin(started);
        let result = catch_unwind(AssertUnwindSafe(|| self.engine.run(batch, outputs)));
        let ended = Instant::now();
        self.clock.end(ended);
        match result {
            Ok(Ok(())) => Ok(ended - started),
            Ok(Err(RunError::Refused(message))) => Err(ApiError::invalid(message)),
            Ok(Err(error)) => Err(ApiError::internal(error.to_string())),
            Err(_) => Err(ApiError::internal(
                "the engine panicked; see the log of the runtime",
            )),
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
