//! Workers: threads that take batches of requests from the queue, and an engine of their model to each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::engine::{Batch, Engine, Outputs, RunError, merge};
use crate::load::{EngineClock, Load};
use crate::protocol::ApiError;
use crate::queue::{Job, Queue, Run};
use crate::ready::{Checkout, Ready};
use crate::statistics::Phases;

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

/// One of the process's engine threads: any of them runs any model.
struct Worker {
    index: usize,
    queue: Arc<Queue>,
    load: Arc<Load>,
    clock: Arc<EngineClock>,
}

/// Starts the threads; they end when the queue is closed and empty.
pub fn start(count: usize, queue: &Arc<Queue>, load: &Arc<Load>) -> std::io::Result<()> {
    for index in 0..count {
        let worker = Worker {
            index,
            queue: Arc::clone(queue),
            load: Arc::clone(load),
            clock: load.engine(),
        };
        std::thread::Builder::new()
            .name(format!("engine-{index}"))
            .spawn(move || worker.work())?;
    }
    Ok(())
}

impl Worker {
    fn work(&self) {
        let mut after = None;
        while let Some(jobs) = self.queue.take(after) {
            after = Run::of(&jobs);
            let now = Instant::now();
            for job in jobs.iter().filter(|job| !job.shadow) {
                self.load.queued(now.saturating_duration_since(job.queued));
            }
            let jobs: Vec<Job> = jobs.into_iter().filter_map(|job| job.in_time(now)).collect();
            self.run(jobs);
        }
    }

    /// Runs jobs of one model.
    fn run(&self, jobs: Vec<Job>) {
        let Some(ready) = jobs.first().map(|job| Arc::clone(&job.ready)) else {
            return;
        };
        let Some(engine) = ready.engines.checkout(self.index) else {
            return;
        };
        let run = &mut Engaged {
            ready: &ready,
            engine,
            clock: &self.clock,
        };
        if jobs.len() < 2 {
            run.each(jobs);
        } else if let Err(jobs) = run.joined(jobs) {
            // One request may have spoilt the run of all: each gets its own answer.
            run.each(jobs);
        }
    }
}

/// A model's engine, with the clock of the thread that has it.
struct Engaged<'a> {
    ready: &'a Ready,
    engine: Checkout<'a>,
    clock: &'a EngineClock,
}

impl Engaged<'_> {
    fn each(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let Some(mut job) = job.in_time(Instant::now()) else {
                continue;
            };
            let mut outputs = Outputs::default();
            let started = Instant::now();
            match self.timed(job.batch.take(), &mut outputs) {
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
    fn joined(&mut self, jobs: Vec<Job>) -> Result<(), Vec<Job>> {
        let started = Instant::now();
        let batches: Vec<&Batch> = jobs.iter().map(|job| &job.batch).collect();
        let rows: Vec<usize> = batches.iter().map(|batch| batch.rows).collect();
        let Some(batch) = merge::join(&batches) else {
            return Err(jobs);
        };
        let input = started.elapsed();
        let mut outputs = Outputs::default();
        let infer = match self.timed(batch, &mut outputs) {
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
        let rows: usize = answers.iter().map(|(job, _)| job.batch.rows).sum();
        let waits = answers.iter().map(|(job, _)| started - job.queued);
        self.ready.statistics.ran(rows, waits, phases);
        let shared_by = u32::try_from(answers.len()).unwrap_or(u32::MAX);
        self.ready.request.observe(phases.infer / shared_by.max(1));
        let divisor = u32::try_from(rows).unwrap_or(u32::MAX).max(1);
        self.ready.row.observe(phases.infer / divisor);
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

    /// One run, and its time.
    fn timed(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<Duration, ApiError> {
        timed(self.engine.as_mut(), self.clock, batch, outputs)
    }
}

/// One run of an engine, and its time by the clock of the thread. A panic is an error of this run only.
pub fn timed(
    engine: &mut dyn Engine,
    clock: &EngineClock,
    batch: Batch,
    outputs: &mut Outputs,
) -> Result<Duration, ApiError> {
    let started = Instant::now();
    clock.begin(started);
    let result = catch_unwind(AssertUnwindSafe(|| engine.run(batch, outputs)));
    let ended = Instant::now();
    clock.end(ended);
    match result {
        Ok(Ok(())) => Ok(ended - started),
        Ok(Err(RunError::Refused(message))) => Err(ApiError::invalid(message)),
        Ok(Err(error)) => Err(ApiError::internal(error.to_string())),
        Err(_) => Err(ApiError::internal(
            "the engine panicked; see the log of the runtime",
        )),
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
