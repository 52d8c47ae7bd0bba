//! What waits for one model in one version: ordered by class, handed out in batches.

use std::collections::VecDeque;
use std::time::Instant;

use super::Batching;
use super::job::Job;
use crate::engine::merge;
use crate::priority::Priority;
use crate::ready::Ready;

/// Requests of another shape that are looked past for more of the same: bounds the time under the lock.
const LOOKED_PAST: usize = 64;

/// It names its model by a number, so that a version that is replaced can leave memory.
pub struct Lane {
    pub id: u64,
    /// Weight among the lanes, at least 1.
    pub share: u64,
    batching: Batching,
    /// Runs that it may have at a time.
    engines: usize,
    classes: [VecDeque<Job>; Priority::ALL.len()],
    rows: usize,
    /// When the next batch is to leave; `None` when nothing waits.
    leave_at: Option<Instant>,
    /// Runs under way.
    running: usize,
    /// Start tag of its next batch, in nanoseconds of virtual time.
    pub start: u64,
}

impl Lane {
    pub fn new(ready: &Ready) -> Self {
        Self {
            id: ready.id,
            share: ready.share(),
            batching: ready.model.batching,
            engines: ready.engines.count(),
            classes: Default::default(),
            rows: 0,
            leave_at: None,
            running: 0,
            start: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.leave_at.is_none()
    }

    /// Nothing waits, and nothing runs.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.running == 0
    }

    /// Requests that are served before a new one of this class.
    pub fn ahead(&self, priority: Priority) -> usize {
        self.classes[..=priority.index()].iter().map(VecDeque::len).sum()
    }

    pub fn push(&mut self, job: Job) {
        let leave_by = job.leave_by(self.batching.max_delay);
        self.rows += job.batch.rows;
        self.leave_at = Some(self.leave_at.map_or(leave_by, |at| at.min(leave_by)));
        self.classes[job.priority.index()].push_back(job);
    }

    /// Takes the newest request of the lowest class out, if that class is below `priority`; of any class if there is none.
    pub fn shed(&mut self, below: Option<Priority>) -> Option<Job> {
        let lower = |class: &&Priority| below.is_none_or(|own| **class > own);
        let mut classes = Priority::ALL.iter().rev().take_while(lower);
        let job = classes.find_map(|class| self.classes[class.index()].pop_back())?;
        self.rows -= job.batch.rows;
        self.set_leave_at();
        Some(job)
    }

    /// When a free engine may take the next batch, if anything waits that an engine could take.
    pub fn leaves_at(&self) -> Option<Instant> {
        self.leave_at.filter(|_| self.running < self.engines)
    }

    /// Whether a free engine is to take the next batch now.
    pub fn is_ripe(&self, now: Instant, closed: bool) -> bool {
        let ripe = |at| closed || self.rows >= self.batching.max_rows || at <= now;
        self.leaves_at().is_some_and(ripe)
    }

    /// The next batch, up to the share of it that engines which rest leave.
    pub fn draw(&mut self, resting: usize) -> Vec<Job> {
        let mut limit = self.batching.max_rows;
        if self.batching.max_delay.is_zero() {
            // An engine that rests is about to take its share; who waits for more wants it all in one run.
            limit = limit.min(self.rows.div_ceil(resting + 1));
        }
        let jobs = self.draw_rows(limit);
        self.set_leave_at();
        self.running += 1;
        jobs
    }

    /// Whether an engine is free.
    pub fn has_engine(&self) -> bool {
        self.spare_engines() > 0
    }

    /// Engines that are free.
    pub fn spare_engines(&self) -> usize {
        self.engines.saturating_sub(self.running)
    }

    /// A run has begun that did not wait in the lane.
    pub fn began(&mut self) {
        self.running += 1;
    }

    /// A run has ended.
    pub fn ended(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    fn set_leave_at(&mut self) {
        let max_delay = self.batching.max_delay;
        let firsts = self.classes.iter().filter_map(VecDeque::front);
        self.leave_at = firsts.map(|job| job.leave_by(max_delay)).min();
    }

    /// The first request, and those that can be joined with it up to `limit` rows.
    fn draw_rows(&mut self, limit: usize) -> Vec<Job> {
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
