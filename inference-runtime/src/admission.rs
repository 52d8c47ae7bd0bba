//! Admission: a request is let in while there is room and time for it, else refused before its body is read.
//!
//! A permit counts the request and its body's bytes from before the body is read until its answer is made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::protocol::ApiError;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests: usize,
    pub bytes: usize,
    pub workers: usize,
}

#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Moving average of the engine's time a request, in nanoseconds; 0 until one ran.
    run_ns: AtomicU64,
}

/// A place among the admitted; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: usize,
}

impl Admission {
    pub fn new(limits: Limits) -> Arc<Self> {
        let (requests, bytes) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self {
            limits,
            requests,
            bytes,
            run_ns: AtomicU64::new(0),
        })
    }

    /// Admits a request with `bytes` of body, if it can be answered within `timeout`.
    pub fn admit(self: &Arc<Self>, bytes: usize, timeout: Duration) -> Result<Permit, ApiError> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut permit = Permit {
            admission: Arc::clone(self),
            bytes: 0,
        };
        if before >= self.limits.requests {
            return Err(ApiError::refused(
                "refused_queue",
                "the queue is full; try again later, or add replicas",
            ));
        }
        if self.expected_wait(before) > timeout {
            return Err(ApiError::refused(
                "refused_deadline",
                "requests ahead take longer than the deadline; try again later, or add replicas",
            ));
        }
        permit.grow(bytes)?;
        Ok(permit)
    }

    /// How long `ahead` requests take the workers, by what requests took lately.
    fn expected_wait(&self, ahead: usize) -> Duration {
        let run = Duration::from_nanos(self.run_ns.load(Ordering::Relaxed));
        let turns = ahead / self.limits.workers.max(1);
        run.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
    }

    /// Learns the engine's time for a request. Weight 1/16: follows a change within some dozens of requests, and one
    /// slow request does not refuse others.
    pub fn observe_run(&self, run: Duration) {
        let new = u64::try_from(run.as_nanos()).unwrap_or(u64::MAX / 16);
        // Lost updates between workers only slow the average a little.
        let old = self.run_ns.load(Ordering::Relaxed);
        let average = if old == 0 { new } else { old - old / 16 + new / 16 };
        self.run_ns.store(average, Ordering::Relaxed);
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Permit {
    /// Counts more bytes: a body without a declared length grows while it is read.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let before = self.admission.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before.saturating_add(bytes) > self.admission.limits.bytes {
            return Err(ApiError::refused(
                "refused_bytes",
                "queued bodies take all the memory they may; try again later",
            ));
        }
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.requests.fetch_sub(1, Ordering::Relaxed);
        self.admission.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn admission() -> Arc<Admission> {
        Admission::new(Limits {
            requests: 2,
            bytes: 100,
            workers: 1,
        })
    }

    #[test]
    fn bounded_in_requests_and_given_back() {
        let admission = admission();
        let first = admission.admit(10, SECOND).unwrap();
        let _second = admission.admit(10, SECOND).unwrap();
        let refused = admission.admit(10, SECOND).unwrap_err();
        assert_eq!(
            (refused.outcome, refused.status.as_u16(), refused.retry_after),
            ("refused_queue", 429, Some(1))
        );
        drop(first);
        assert!(admission.admit(10, SECOND).is_ok());
        assert_eq!((admission.requests(), admission.bytes()), (1, 10));
    }

    #[test]
    fn bounded_in_bytes() {
        let admission = admission();
        let mut first = admission.admit(60, SECOND).unwrap();
        assert_eq!(admission.admit(60, SECOND).unwrap_err().outcome, "refused_bytes");
        assert!(first.grow(40).is_ok());
        assert!(first.grow(1).is_err());
        drop(first);
        assert_eq!((admission.requests(), admission.bytes()), (0, 0));
    }

    #[test]
    fn refused_when_the_wait_is_longer_than_the_deadline() {
        let admission = admission();
        admission.observe_run(Duration::from_secs(2));
        let first = admission.admit(1, SECOND).unwrap();
        assert_eq!(
            admission.admit(1, SECOND).unwrap_err().outcome,
            "refused_deadline"
        );
        assert!(admission.admit(1, 3 * SECOND).is_ok());
        drop(first);
        // An empty queue always lets one in, so that the average can learn again.
        assert!(admission.admit(1, Duration::ZERO).is_ok());
    }
}
