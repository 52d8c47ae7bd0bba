//! One request on its way to an engine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::engine::Batch;
use crate::priority::Priority;
use crate::protocol::ApiError;
use crate::ready::Ready;
use crate::worker::Done;

pub struct Job {
    /// The model, in the version that was served when the request came.
    pub ready: Arc<Ready>,
    pub batch: Batch,
    pub priority: Priority,
    pub deadline: Instant,
    pub queued: Instant,
    pub permit: Arc<Permit>,
    pub answer: oneshot::Sender<Result<Done, ApiError>>,
    /// Nobody waits for it: it runs when nothing else does.
    pub shadow: bool,
}

impl Job {
    /// Until when it may wait for company: never for more than half of its time.
    pub fn leave_by(&self, max_delay: Duration) -> Instant {
        let left = self.deadline.saturating_duration_since(self.queued);
        self.queued + max_delay.min(left / 2)
    }

    pub fn refuse(self, error: ApiError) {
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
