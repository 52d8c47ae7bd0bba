//! Admission: a request is let in while there is room and time for it, else refused before its body is read.
//!
//! A permit counts the request and its body's bytes from before the body is read until its answer is made. A request's
//! class is known only once its body is read; so where classes are used, some (an eighth) beyond the limits are let in to
//! show theirs. Each of those then takes the place of one of a lower class. If none waits, only the highest class stays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::priority::Priority;
use crate::protocol::ApiError;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests: usize,
    pub bytes: usize,
    pub workers: usize,
}

/// Requests that may show their class beyond any limit: with fewer, those of the lowest class would often hold all of
/// these places while they are read.
const SHOWING: usize = 8;

impl Limits {
    /// Requests that may be let in where classes are used.
    fn requests_beyond(&self) -> usize {
        self.requests.saturating_add((self.requests / 8).max(SHOWING))
    }

    fn bytes_beyond(&self) -> usize {
        self.bytes.saturating_add(self.bytes / 8)
    }
}

#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    requests: AtomicUsize,
    bytes: AtomicUsize,
    /// Requests that wait for an engine, by class.
    queued: [AtomicUsize; Priority::ALL.len()],
    /// Whether any request was of another class than the default. Who uses no classes pays nothing for them.
    classes_used: AtomicBool,
    /// Moving average of the engine's time a request, in nanoseconds; 0 until one ran.
    run_ns: AtomicU64,
}

/// A place among the admitted; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: AtomicUsize,
    held: AtomicBool,
    /// Let in beyond a limit.
    beyond: AtomicBool,
    /// One more than the index of the class in which it waits, 0 when it does not wait.
    queued: AtomicU8,
}

impl Admission {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            requests: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            queued: Default::default(),
            classes_used: AtomicBool::new(false),
            run_ns: AtomicU64::new(0),
        })
    }

    /// Admits a request with `bytes` of body, if it can be answered within `timeout`.
    pub fn admit(self: &Arc<Self>, bytes: usize, timeout: Duration) -> Result<Arc<Permit>, ApiError> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let classes_used = self.classes_used.load(Ordering::Relaxed);
        let permit = Arc::new(Permit {
            admission: Arc::clone(self),
            bytes: AtomicUsize::new(0),
            held: AtomicBool::new(true),
            beyond: AtomicBool::new(before >= self.limits.requests),
            queued: AtomicU8::new(0),
        });
        let limit = match classes_used {
            true => self.limits.requests_beyond(),
            false => self.limits.requests,
        };
        if before >= limit {
            return Err(queue_full());
        }
        if !classes_used && self.expected_wait(before) > timeout {
            return Err(too_late());
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

fn queue_full() -> ApiError {
    ApiError::refused(
        "refused_queue",
        "the queue is full; try again later, or add replicas",
    )
}

fn too_late() -> ApiError {
    ApiError::refused(
        "refused_deadline",
        "requests ahead take longer than the deadline; try again later, or add replicas",
    )
}

fn no_memory() -> ApiError {
    ApiError::refused(
        "refused_bytes",
        "queued bodies take all the memory they may; try again later",
    )
}

impl Permit {
    /// Counts more bytes: a body without a declared length grows while it is read.
    pub fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        let limits = &self.admission.limits;
        let sum = self
            .admission
            .bytes
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if sum <= limits.bytes {
            return Ok(());
        }
        if sum > limits.bytes_beyond() || !self.admission.classes_used.load(Ordering::Relaxed) {
            return Err(no_memory());
        }
        self.beyond.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Lets a request, whose class is known now, into the queue. One that was let in beyond a limit takes the place
    /// of another: `shed` sheds one of a lower class, and says whether one waited.
    pub fn enter_queue(
        &self,
        priority: Priority,
        timeout: Duration,
        mut shed: impl FnMut() -> bool,
    ) -> Result<(), ApiError> {
        let admission = &self.admission;
        let ahead = admission.queued[..=priority.index()]
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum();
        if admission.expected_wait(ahead) > timeout {
            return Err(too_late());
        }
        if priority != Priority::default() {
            admission.classes_used.store(true, Ordering::Relaxed);
        }
        while self.beyond.load(Ordering::Relaxed) {
            if !shed() {
                if priority == Priority::High {
                    break;
                }
                return Err(queue_full());
            }
            let still_beyond = admission.bytes() > admission.limits.bytes;
            self.beyond.store(still_beyond, Ordering::Relaxed);
        }
        let class = priority.index();
        admission.queued[class].fetch_add(1, Ordering::Relaxed);
        self.queued.store(class as u8 + 1, Ordering::Relaxed);
        Ok(())
    }

    /// It waits no longer: an engine took it, or it was shed.
    pub fn leave_queue(&self) {
        let queued = self.queued.swap(0, Ordering::Relaxed);
        if let Some(class) = queued.checked_sub(1) {
            self.admission.queued[usize::from(class)].fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives its place to others before it is dropped.
    pub fn give_back(&self) {
        self.leave_queue();
        if self.held.swap(false, Ordering::Relaxed) {
            let bytes = self.bytes.swap(0, Ordering::Relaxed);
            self.admission.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.admission.requests.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.give_back();
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
        let first = admission.admit(60, SECOND).unwrap();
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

    #[test]
    fn one_beyond_the_limit_takes_a_place_of_a_lower_class() {
        let admission = admission();
        let enter = |permit: &Arc<Permit>, priority, there: bool| {
            let mut sheds = 0;
            let entered = permit.enter_queue(priority, SECOND, || {
                sheds += 1;
                there
            });
            (entered.map_err(|error| error.outcome), sheds)
        };
        let first = admission.admit(10, SECOND).unwrap();
        let second = admission.admit(10, SECOND).unwrap();
        assert_eq!(enter(&first, Priority::Normal, false), (Ok(()), 0));
        // Nobody has used another class than the default.
        assert_eq!(admission.admit(1, SECOND).unwrap_err().outcome, "refused_queue");
        assert_eq!(enter(&second, Priority::Low, false), (Ok(()), 0));
        // Now some may show their class.
        let third = admission.admit(10, SECOND).unwrap();
        let _others: Vec<_> = (1..SHOWING)
            .map(|_| admission.admit(0, SECOND).unwrap())
            .collect();
        assert_eq!(admission.admit(1, SECOND).unwrap_err().outcome, "refused_queue");
        assert_eq!(enter(&third, Priority::Normal, false), (Err("refused_queue"), 1));
        assert_eq!(enter(&third, Priority::High, false), (Ok(()), 1));
        third.leave_queue();
        assert_eq!(enter(&third, Priority::Normal, true), (Ok(()), 1));
    }

    #[test]
    fn bytes_beyond_the_limit_are_won_back() {
        let admission = admission();
        let low = admission.admit(95, SECOND).unwrap();
        low.enter_queue(Priority::Low, SECOND, || false).unwrap();
        assert_eq!(admission.admit(20, SECOND).unwrap_err().outcome, "refused_bytes");
        let next = admission.admit(10, SECOND).unwrap();
        let mut low = Some(low);
        next.enter_queue(Priority::Normal, SECOND, || low.take().is_some())
            .unwrap();
        assert_eq!((admission.requests(), admission.bytes()), (1, 10));
    }

    #[test]
    fn only_those_of_its_own_class_and_above_are_ahead() {
        let admission = Admission::new(Limits {
            requests: 9,
            bytes: 9,
            workers: 1,
        });
        admission.observe_run(SECOND);
        let permits: Vec<_> = (0..3).map(|_| admission.admit(0, 9 * SECOND).unwrap()).collect();
        for permit in &permits {
            permit.enter_queue(Priority::Low, 9 * SECOND, || false).unwrap();
        }
        let next = admission.admit(0, SECOND).unwrap();
        let refused = next.enter_queue(Priority::Low, SECOND, || false).unwrap_err();
        assert_eq!(refused.outcome, "refused_deadline");
        next.enter_queue(Priority::High, SECOND, || false).unwrap();
    }
}
