//! The queue between the reactor and the engines: ordered by class, handed out in batches.
//!
//! Work-conserving: a free engine takes what is there. Only with a `max_delay` may one engine wait for more, and
//! meanwhile the others rest. The queue needs no bound of its own: only requests with a permit get there.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::engine::{Batch, merge};
use crate::priority::Priority;
use crate::protocol::ApiError;
use crate::worker::Done;

/// Requests of another shape that are looked past for more of the same: bounds the time under the lock.
const LOOKED_PAST: usize = 64;

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

/// One request on its way to an engine.
pub struct Job {
    pub batch: Batch,
    pub priority: Priority,
    pub deadline: Instant,
    pub queued: Instant,
    pub permit: Arc<Permit>,
    pub answer: oneshot::Sender<Result<Done, ApiError>>,
}

impl Job {
    /// Until when it may wait for company: never for more than half of its time.
    fn leave_by(&self, max_delay: Duration) -> Instant {
        let left = self.deadline.saturating_duration_since(self.queued);
        self.queued + max_delay.min(left / 2)
    }

    fn refuse(self, error: ApiError) {
        let _ = self.answer.send(Err(error));
    }

    /// The job, if somebody still waits for it and in time.
    pub fn in_time(self, now: Instant) -> Option<Self> {
        if self.answer.is_closed() {
            return None;
        }
        if now >= self.deadline {
            self.refuse(too_late());
            return None;
        }
        Some(self)
    }
}

pub fn too_late() -> ApiError {
    ApiError::refused(
        "refused_deadline",
        "the deadline passed before an engine was free; try again later, or add replicas",
    )
}

pub struct Queue {
    batching: Batching,
    waiting: Mutex<Waiting>,
    /// Something is there for an engine that rests.
    added: Condvar,
    /// Something is there for the engine that waits for more.
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    classes: [VecDeque<Job>; Priority::ALL.len()],
    rows: usize,
    /// When the next batch is to leave; `None` when nothing waits.
    leave_at: Option<Instant>,
    /// Engines that rest.
    resting: usize,
    /// Whether an engine waits for more.
    gathering: bool,
    closed: bool,
}

impl Queue {
    pub fn new(batching: Batching) -> Self {
        Self {
            batching,
            waiting: Mutex::default(),
            added: Condvar::new(),
            more: Condvar::new(),
        }
    }

    pub fn push(&self, job: Job) {
        let leave_by = job.leave_by(self.batching.max_delay);
        let mut waiting = self.lock();
        waiting.rows += job.batch.rows;
        waiting.leave_at = Some(waiting.leave_at.map_or(leave_by, |at| at.min(leave_by)));
        waiting.classes[job.priority.index()].push_back(job);
        let condition = if waiting.gathering {
            &self.more
        } else {
            &self.added
        };
        condition.notify_one();
    }

    /// Sheds the newest request of the lowest class, if that class is below `priority`.
    pub fn shed_below(&self, priority: Priority) -> bool {
        let below = |class: &&Priority| **class > priority;
        let mut waiting = self.lock();
        let job = Priority::ALL
            .iter()
            .rev()
            .take_while(below)
            .find_map(|class| waiting.classes[class.index()].pop_back());
        let Some(job) = job else { return false };
        waiting.rows -= job.batch.rows;
        waiting.set_leave_at(self.batching.max_delay);
        drop(waiting);
        job.permit.give_back();
        job.refuse(ApiError::refused(
            "refused_priority",
            "shed for a request of a higher priority; try again later, or add replicas",
        ));
        true
    }

    /// Lets the engines end when the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.added.notify_all();
        self.more.notify_all();
    }

    pub fn len(&self) -> usize {
        self.lock().classes.iter().map(VecDeque::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing waits, and an engine rests.
    pub fn is_at_rest(&self) -> bool {
        let waiting = self.lock();
        waiting.leave_at.is_none() && waiting.resting > 0
    }

    // A thread that panicked holds no half-changed queue: nothing between a change and its count can panic.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch, as soon as there is one: at least one request, and more only if they can be joined.
    /// `None` when the queue is closed and empty.
    pub fn take(&self) -> Option<Vec<Job>> {
        let mut waiting = self.lock();
        loop {
            match waiting.leave_at {
                None if waiting.closed => return None,
                Some(leave_at) if !waiting.gathering => {
                    let left = leave_at.saturating_duration_since(Instant::now());
                    if left.is_zero() || waiting.closed || waiting.rows >= self.batching.max_rows {
                        return Some(self.draw(&mut waiting));
                    }
                    waiting.gathering = true;
                    let woken = self.more.wait_timeout(waiting, left);
                    waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
                    waiting.gathering = false;
                }
                _ => {
                    waiting.resting += 1;
                    waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    waiting.resting -= 1;
                }
            }
        }
    }

    fn draw(&self, waiting: &mut Waiting) -> Vec<Job> {
        let mut limit = self.batching.max_rows;
        if self.batching.max_delay.is_zero() {
            // An engine that rests is about to take its share; who waits for more wants it all in one run.
            limit = limit.min(waiting.rows.div_ceil(waiting.resting + 1));
        }
        let jobs = waiting.draw(limit);
        waiting.set_leave_at(self.batching.max_delay);
        if waiting.leave_at.is_some() {
            self.added.notify_one();
        }
        for job in &jobs {
            job.permit.leave_queue();
        }
        jobs
    }
}

impl Waiting {
    fn set_leave_at(&mut self, max_delay: Duration) {
        let firsts = self.classes.iter().filter_map(VecDeque::front);
        self.leave_at = firsts.map(|job| job.leave_by(max_delay)).min();
    }

    /// The first request, and those that can be joined with it up to `limit` rows.
    fn draw(&mut self, limit: usize) -> Vec<Job> {
        let Some(first) = self.classes.iter_mut().find_map(VecDeque::pop_front) else {
            return Vec::new();
        };
        let mut rows = first.batch.rows;
        let joinable = merge::uniform(&first.batch);
        let mut jobs = vec![first];
        for class in &mut self.classes {
            let mut passed = Vec::new();
            while joinable && rows < limit && passed.len() < LOOKED_PAST {
                let Some(job) = class.pop_front() else { break };
                let fits = rows + job.batch.rows <= limit
                    && merge::uniform(&job.batch)
                    && merge::alike(&jobs[0].batch, &job.batch);
                if fits {
                    rows += job.batch.rows;
                    jobs.push(job);
                } else {
                    passed.push(job);
                }
            }
            for job in passed.into_iter().rev() {
                class.push_front(job);
            }
        }
        self.rows -= rows;
        jobs
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
