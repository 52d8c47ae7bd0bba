//! Workers: threads that take batches of requests from the queue, and an engine of their model to each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::Permit;
use crate::engine::{Batch, Outputs, RunError, merge};
use crate::load::{EngineClock, Load};
use crate::protocol::ApiError;
use crate::queue::{Job, Queue, Run, Work};
use crate::ready::{Checkout, Ready};
use crate::split::{self, Split};
use crate::statistics::Phases;

/// What an engine made of a request.
#[derive(Debug)]
pub struct Done {
    pub outputs: Outputs,
    pub waited: Duration,
    /// Times of the run.
    pub phases: Phases,
    /// The time of all engines for it: more, where several had parts of it.
    pub engaged: Duration,
    /// Parts that the run was scored in: 1 unless threads shared it.
    pub parts: usize,
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
        while let Some(work) = self.queue.take(after) {
            after = work.run();
            match work {
                Work::Jobs(jobs) => self.begin(jobs),
                Work::Parts(split) => split.work(&self.clock, || self.queue.waits_for(split.run())),
            }
        }
    }

    /// Runs those jobs of one model that somebody still waits for.
    fn begin(&self, jobs: Vec<Job>) {
        let now = Instant::now();
        for job in jobs.iter().filter(|job| !job.shadow) {
            self.load.queued(now.saturating_duration_since(job.queued));
        }
        let jobs: Vec<Job> = jobs.into_iter().filter_map(|job| job.in_time(now)).collect();
        let Some(own) = Run::of(&jobs) else { return };
        let Some(ready) = jobs.first().map(|job| Arc::clone(&job.ready)) else {
            return;
        };
        let Some(engine) = ready.engines.checkout(self.index) else {
            return;
        };
        let run = &mut Engaged {
            ready: &ready,
            engine,
            own,
            worker: self,
        };
        if jobs.len() < 2 {
            run.each(jobs);
        } else if let Err(jobs) = run.joined(jobs) {
            // One request may have spoilt the run of all: each gets its own answer.
            run.each(jobs);
        }
    }
}

/// A model's engine, with the thread that has it.
struct Engaged<'a> {
    ready: &'a Ready,
    engine: Checkout<'a>,
    own: Run,
    worker: &'a Worker,
}

/// A run that is over.
#[derive(Clone, Copy)]
struct Ran {
    took: Duration,
    /// The time of all engines.
    engaged: Duration,
    parts: usize,
}

impl Engaged<'_> {
    fn each(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            let Some(mut job) = job.in_time(Instant::now()) else {
                continue;
            };
            let mut outputs = Outputs::default();
            let started = Instant::now();
            match self.score(started, job.batch.take(), &mut outputs) {
                Ok(ran) => {
                    let phases = Phases {
                        infer: ran.took,
                        ..Phases::default()
                    };
                    self.answer(vec![(job, outputs)], started, (phases, ran));
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
        let joined = Instant::now();
        let input = joined - started;
        let mut outputs = Outputs::default();
        let ran = match self.score(joined, batch, &mut outputs) {
            Ok(ran) => ran,
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
        let phases = Phases {
            input,
            infer: ran.took,
            output,
        };
        self.answer(jobs.into_iter().zip(parts).collect(), started, (phases, ran));
        Ok(())
    }

    fn answer(&self, answers: Vec<(Job, Outputs)>, started: Instant, (phases, ran): (Phases, Ran)) {
        let rows: usize = answers.iter().map(|(job, _)| job.batch.rows).sum();
        let waits = answers.iter().map(|(job, _)| started - job.queued);
        self.ready.statistics.ran(rows, waits, phases);
        let shared_by = u32::try_from(answers.len()).unwrap_or(u32::MAX);
        self.ready.request.observe(ran.engaged / shared_by.max(1));
        let divisor = u32::try_from(rows).unwrap_or(u32::MAX).max(1);
        self.ready.row.observe(ran.engaged / divisor);
        for (job, outputs) in answers {
            let _ = job.answer.send(Ok(Done {
                outputs,
                waited: started - job.queued,
                phases,
                engaged: ran.engaged,
                parts: ran.parts,
                shared_by,
                permit: job.permit,
            }));
        }
    }

    /// One run that starts now, with the threads that rest if there is enough for each.
    fn score(&mut self, now: Instant, batch: Batch, outputs: &mut Outputs) -> Result<Ran, ApiError> {
        match self.parts(batch.rows) {
            Some(parts) => self.split(now, (batch, parts), outputs),
            None => {
                let took = timed((&self.worker.clock, now), || self.engine.run(batch, outputs))?;
                Ok(Ran {
                    took,
                    engaged: took,
                    parts: 1,
                })
            }
        }
    }

    /// The number of parts that a run of so many pairs is split into, if it is.
    fn parts(&self, rows: usize) -> Option<usize> {
        let least = self.ready.part.filter(|least| rows >= 2 * least)?;
        if self.own.shadow {
            // One thread is left to requests.
            return None;
        }
        let threads = self.worker.queue.sharers(self.ready);
        (threads > 1).then(|| split::parts(rows, least, threads))
    }

    fn split(
        &mut self,
        now: Instant,
        (batch, parts): (Batch, usize),
        outputs: &mut Outputs,
    ) -> Result<Ran, ApiError> {
        let Worker { queue, clock, .. } = self.worker;
        let rows = batch.rows;
        let mut begun = None;
        let beginning = timed((clock, now), || {
            let engine = self.engine.divisible();
            let engine = engine.expect("only a divisible engine has a least part");
            begun = Some(engine.begin(batch)?);
            Ok(())
        })?;
        let begun = begun.expect("what did not fail has begun");
        let split = Arc::new(Split::new(begun, self.own, rows, parts));
        queue.share(&split);
        split.work(clock, || false);
        queue.unshare(&split);
        let (whole, scoring) = split.finish()?;
        *outputs = whole;
        Ok(Ran {
            took: now.elapsed(),
            engaged: beginning + scoring,
            parts,
        })
    }
}

/// One run of an engine that starts now, or a part of one, and its time by the clock of the thread. A panic is an error of
/// this run only.
pub fn timed(
    (clock, started): (&EngineClock, Instant),
    run: impl FnOnce() -> Result<(), RunError>,
) -> Result<Duration, ApiError> {
    clock.begin(started);
    let result = catch_unwind(AssertUnwindSafe(run));
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
