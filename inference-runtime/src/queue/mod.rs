//! The queue between the reactor and the engines: a lane for each model in each version, which share the engines fairly.
//!
//! Work-conserving: a free engine takes what is there. Only with a `max_delay` may one engine wait for more, and
//! meanwhile the others rest. The queue needs no bound of its own: only requests with a permit get there.
//!
//! Which lane is next: start-time fair queueing (Goyal, Vin, Cheng: "Start-time Fair Queueing", SIGCOMM 1996), with several
//! engines as in Jin, Chase, Kaur (SIGMETRICS 2004). A batch costs its rows times the engine's time a row lately. Its start
//! tag is the virtual time at which its lane woke, or the finish tag of the batch before it: start plus cost over the lane's
//! share. The lowest start tag is next, and is the virtual time then. So each lane that waits gets its share of the
//! engines' time, whatever the others send, and time that one leaves is the others'.

mod job;
mod lane;
mod work;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::admission;
use crate::priority::Priority;
use crate::protocol::ApiError;
use crate::ready::Ready;
use crate::split::Split;

pub use job::{Job, too_late};
pub use work::{Run, Work};

use lane::Lane;

/// Shadows that wait: more are not worth their memory.
const SHADOWS: usize = 64;

/// How requests are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Rows of a run of several requests; with 1, requests are never joined.
    pub max_rows: usize,
    /// How long the first of them may wait for more.
    pub max_delay: Duration,
}

impl Batching {
    /// Requests run one by one.
    pub const NONE: Batching = Batching {
        max_rows: 1,
        max_delay: Duration::ZERO,
    };
}

pub struct Queue {
    /// Engine threads.
    workers: usize,
    waiting: Mutex<Waiting>,
    /// Something is there for an engine that rests.
    added: Condvar,
    /// Something is there for the engine that waits for more.
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    lanes: Vec<Lane>,
    shadows: VecDeque<Job>,
    shadows_running: usize,
    /// Runs whose parts threads may take that have nothing else to do.
    splits: Vec<Arc<Split>>,
    /// Virtual time: the highest start tag of a batch that was taken.
    time: u64,
    /// Engines that rest.
    resting: usize,
    /// Whether an engine waits for more.
    gathering: bool,
    closed: bool,
}

impl Queue {
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            waiting: Mutex::default(),
            added: Condvar::new(),
            more: Condvar::new(),
        }
    }

    /// Lets a request in. Refused if it could not be answered in time, or was admitted beyond a limit and there is none
    /// whose place it may take.
    pub fn push(&self, job: Job) -> Result<(), ApiError> {
        if job.priority != Priority::default() {
            job.permit.uses_classes();
        }
        let mut shed = Vec::new();
        let mut waiting = self.lock();
        let lane = waiting.lane(&job.ready);
        let entered = waiting.enter(lane, &job, self.workers, &mut shed);
        if entered.is_ok() {
            waiting.wake(lane);
            waiting.lanes[lane].push(job);
        }
        let condition = if waiting.gathering {
            &self.more
        } else {
            &self.added
        };
        condition.notify_one();
        drop(waiting);
        for (job, error) in shed {
            job.refuse(error);
        }
        entered
    }

    /// Lets a shadow in, which runs when no request waits. Says whether there was room.
    pub fn push_shadow(&self, job: Job) -> bool {
        let mut waiting = self.lock();
        if waiting.shadows.len() >= SHADOWS || waiting.closed {
            return false;
        }
        waiting.shadows.push_back(job);
        self.added.notify_one();
        true
    }

    /// Lets the engines end when the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.added.notify_all();
        self.more.notify_all();
    }

    pub fn len(&self) -> usize {
        self.lock().lanes.iter().map(Lane::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing waits, and an engine thread rests.
    pub fn is_at_rest(&self) -> bool {
        let waiting = self.lock();
        waiting.resting > 0 && waiting.lanes.iter().all(Lane::is_empty)
    }

    /// Threads that could score pairs of a run of this model together: the caller, which has begun it, and those that rest.
    pub fn sharers(&self, ready: &Ready) -> usize {
        let waiting = self.lock();
        1 + waiting.resting.min(waiting.spare_engines(ready.id))
    }

    /// Lets threads that rest take parts of a run.
    pub fn share(&self, split: &Arc<Split>) {
        let mut waiting = self.lock();
        waiting.splits.push(Arc::clone(split));
        for _ in 0..waiting.resting.min(waiting.spare_engines(split.run().model)) {
            self.added.notify_one();
        }
    }

    /// No thread takes parts of it from now on.
    pub fn unshare(&self, split: &Arc<Split>) {
        self.lock().splits.retain(|other| !Arc::ptr_eq(other, split));
    }

    /// Whether a request waits that the caller could run, if it ended what it runs.
    pub fn waits_for(&self, run: Run) -> bool {
        let mut waiting = self.lock();
        let (now, closed) = (Instant::now(), waiting.closed);
        waiting.ended(run);
        let waits = waiting.lanes.iter().any(|lane| lane.is_ripe(now, closed));
        waiting.began(run.model);
        waits
    }

    // A thread that panicked holds no half-changed queue: nothing between a change and its count can panic.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, as soon as there is one; else parts of a run. `after` is what the caller has ended. `None` when
    /// the queue is closed and empty.
    pub fn take(&self, after: Option<Run>) -> Option<Work> {
        let mut waiting = self.lock();
        if let Some(run) = after {
            waiting.ended(run);
        }
        // One thread is left to requests, where there are several.
        let shadows = self.workers.saturating_sub(1).max(1);
        loop {
            let now = Instant::now();
            if let Some(jobs) = waiting.draw(now) {
                if waiting.leaves_at().is_some() || !waiting.shadows.is_empty() {
                    self.added.notify_one();
                }
                return Some(Work::Jobs(jobs));
            }
            if let Some(split) = waiting.draw_parts() {
                if waiting.leaves_at().is_some() {
                    self.added.notify_one();
                }
                return Some(Work::Parts(split));
            }
            if let Some(shadow) = waiting.draw_shadow(shadows) {
                return Some(Work::Jobs(vec![shadow]));
            }
            match waiting.leaves_at() {
                Some(at) if !waiting.gathering => {
                    waiting.gathering = true;
                    let left = at.saturating_duration_since(now);
                    let woken = self.more.wait_timeout(waiting, left);
                    waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
                    waiting.gathering = false;
                }
                // What is left waits for engines that are busy, and these take it.
                None if waiting.closed => return None,
                _ => {
                    waiting.resting += 1;
                    waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    waiting.resting -= 1;
                }
            }
        }
    }
}

impl Waiting {
    /// The place of a model's lane.
    fn lane(&mut self, ready: &Ready) -> usize {
        if let Some(place) = self.lanes.iter().position(|lane| lane.id == ready.id) {
            return place;
        }
        // One that is idle and owes nothing is as good as a new one; its model may be gone.
        let time = self.time;
        self.lanes.retain(|lane| !lane.is_idle() || lane.start > time);
        self.lanes.push(Lane::new(ready));
        self.lanes.len() - 1
    }

    /// A lane that was empty starts now: it saves up nothing while it sends nothing.
    fn wake(&mut self, lane: usize) {
        if self.lanes.iter().all(Lane::is_idle) {
            // Nobody competed for the last of it.
            self.time = self
                .lanes
                .iter()
                .map(|lane| lane.start)
                .max()
                .unwrap_or(0)
                .max(self.time);
        }
        if self.lanes[lane].is_empty() {
            self.lanes[lane].start = self.lanes[lane].start.max(self.time);
        }
    }

    /// Whether a request may enter its lane, after it has shed those whose places it takes.
    fn enter(
        &mut self,
        lane: usize,
        job: &Job,
        workers: usize,
        shed: &mut Vec<(Job, ApiError)>,
    ) -> Result<(), ApiError> {
        let left = job.deadline.saturating_duration_since(job.queued);
        if self.expected_wait(lane, job, workers) > left {
            return Err(admission::too_late());
        }
        while job.permit.is_beyond() {
            let Some((displaced, error)) = self.shed(lane, job.priority) else {
                if job.priority == Priority::High {
                    break;
                }
                return Err(admission::queue_full());
            };
            displaced.permit.give_back();
            shed.push((displaced, error));
            job.permit.displaced_one();
        }
        Ok(())
    }

    /// By what requests of its model took lately: those ahead in its lane, on its share of the engines.
    fn expected_wait(&self, lane: usize, job: &Job, workers: usize) -> Duration {
        let own = &self.lanes[lane];
        let busy = |other: &&Lane| other.id != own.id && !other.is_empty();
        let others: u64 = self.lanes.iter().filter(busy).map(|lane| lane.share).sum();
        let alone = admission::waits(own.ahead(job.priority), job.ready.request.get(), workers);
        alone.mul_f64((others + own.share) as f64 / own.share as f64)
    }

    /// Takes one out for a request of `lane`: the newest of the model that holds most for its share, if that is more
    /// than this one would hold then; else one of a lower class of its own.
    fn shed(&mut self, lane: usize, priority: Priority) -> Option<(Job, ApiError)> {
        let (share, holds) = (self.lanes[lane].share, self.lanes[lane].len() as u64 + 1);
        let above = |other: &&mut Lane| other.len() as u64 * share > holds * other.share;
        let ratio = |other: &&mut Lane| other.len() as f64 / other.share as f64;
        let most = self.lanes.iter_mut().filter(above);
        if let Some(most) = most.max_by(|a, b| ratio(a).total_cmp(&ratio(b)))
            && let Some(job) = most.shed(None)
        {
            let message = "shed for a request of a model below its share of the queue; try again later, or add replicas";
            return Some((job, ApiError::refused("refused_share", message)));
        }
        let job = self.lanes[lane].shed(Some(priority))?;
        let message = "shed for a request of a higher priority; try again later, or add replicas";
        Some((job, ApiError::refused("refused_priority", message)))
    }

    /// How many more runs a model may have at a time.
    fn spare_engines(&self, model: u64) -> usize {
        let lane = self.lanes.iter().find(|lane| lane.id == model);
        lane.map_or(0, Lane::spare_engines)
    }

    /// A run with parts that nobody has taken, of a model that may have another run.
    fn draw_parts(&mut self) -> Option<Arc<Split>> {
        let split = self
            .splits
            .iter()
            .find(|split| split.has_parts() && self.spare_engines(split.run().model) > 0)
            .cloned()?;
        self.began(split.run().model);
        Some(split)
    }

    /// A run has begun that did not wait in its lane.
    fn began(&mut self, model: u64) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == model) {
            lane.began();
        }
    }

    /// The next shadow, if no request waits and fewer run than may.
    fn draw_shadow(&mut self, at_once: usize) -> Option<Job> {
        if self.lanes.iter().any(|lane| !lane.is_empty()) || self.shadows_running >= at_once || self.closed {
            return None;
        }
        let job = self.shadows.pop_front()?;
        let lane = self.lane(&job.ready);
        if !self.lanes[lane].has_engine() {
            self.shadows.push_front(job);
            return None;
        }
        self.lanes[lane].began();
        self.shadows_running += 1;
        Some(job)
    }

    fn ended(&mut self, run: Run) {
        self.shadows_running = self.shadows_running.saturating_sub(usize::from(run.shadow));
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == run.model) {
            lane.ended();
        }
    }

    /// When the first of what a free engine could take leaves.
    fn leaves_at(&self) -> Option<Instant> {
        self.lanes.iter().filter_map(Lane::leaves_at).min()
    }

    /// The next batch that is to leave now.
    fn draw(&mut self, now: Instant) -> Option<Vec<Job>> {
        let (closed, resting) = (self.closed, self.resting);
        let ripe = self.lanes.iter_mut().filter(|lane| lane.is_ripe(now, closed));
        let lane = ripe.min_by_key(|lane| lane.start)?;
        self.time = self.time.max(lane.start);
        let jobs = lane.draw(resting);
        let rows: usize = jobs.iter().map(|job| job.batch.rows).sum();
        let cost = jobs.first().map_or(0, |job| job.ready.cost(rows));
        lane.start = lane.start.saturating_add((cost / lane.share).max(1));
        Some(jobs)
    }
}

#[cfg(test)]
mod tests;
