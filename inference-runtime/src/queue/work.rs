//! What an engine thread takes from the queue.

use std::sync::Arc;

use super::Job;
use crate::split::Split;

/// A run that an engine thread took from the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The model's number.
    pub model: u64,
    pub shadow: bool,
}

impl Run {
    /// Of jobs that were taken together.
    pub fn of(jobs: &[Job]) -> Option<Self> {
        let job = jobs.first()?;
        Some(Self {
            model: job.ready.id,
            shadow: job.shadow,
        })
    }
}

/// What an engine thread is to do.
pub enum Work {
    /// At least one request, all of one model, and more only if they can be joined.
    Jobs(Vec<Job>),
    /// Parts of a run that another thread has begun.
    Parts(Arc<Split>),
}

impl Work {
    /// What [`Queue::take`] is to be told when it is done.
    pub fn run(&self) -> Option<Run> {
        match self {
            Work::Jobs(jobs) => Run::of(jobs),
            Work::Parts(split) => Some(split.run()),
        }
    }
}
