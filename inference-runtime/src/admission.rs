//! Admission: a request is let in while there is room and time for it, else refused before its body is read.
//!
//! A permit counts the request from before its body is read until its answer is made, and the body's bytes as they
//! arrive: what a client only declares takes no room from others, and who waits for a body is ahead of nobody. A request's
//! class and model are known only once it is read; so where classes are used, or several models are served, some (an
//! eighth) beyond the limits are let in to show theirs. The queue then sheds another for each of those, or refuses it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::average::Average;
use crate::protocol::ApiError;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub requests: usize,
    pub bytes: usize,
    pub workers: usize,
}

/// Requests that may show their class and model beyond any limit: with fewer, those that are refused then would often
/// hold all of these places while they are read.
const SHOWING: usize = 8;

impl Limits {
    /// Requests that may be let in where one may take the place of another.
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
    /// Those of them whose bodies are not here yet.
    reading: AtomicUsize,
    bytes: AtomicUsize,
    /// Whether a request may take the place of another: other classes than the default were used, or several models are
    /// served. Who has neither pays nothing for them.
    displacing: AtomicBool,
    /// The engine's time a request.
    run: Average,
}

/// A place among the admitted; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    bytes: AtomicUsize,
    held: AtomicBool,
    /// Its body is not here yet.
    reading: AtomicBool,
    /// Let in beyond a limit.
    beyond: AtomicBool,
}

impl Admission {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            requests: AtomicUsize::new(0),
            reading: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            displacing: AtomicBool::new(false),
            run: Average::default(),
        })
    }

    /// Admits a request that declares `bytes` of body, if there is room for them now and it can be answered within
    /// `timeout`. They are counted by [`Permit::grow`], and the body is here with [`Permit::arrived`].
    pub fn admit(self: &Arc<Self>, bytes: usize, timeout: Duration) -> Result<Arc<Permit>, ApiError> {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        let reading = self.reading.fetch_add(1, Ordering::Relaxed);
        let displacing = self.displacing.load(Ordering::Relaxed);
        let permit = Arc::new(Permit {
            admission: Arc::clone(self),
            bytes: AtomicUsize::new(0),
            held: AtomicBool::new(true),
            reading: AtomicBool::new(true),
            beyond: AtomicBool::new(before >= self.limits.requests),
        });
        let limit = match displacing {
            true => self.limits.requests_beyond(),
            false => self.limits.requests,
        };
        if before >= limit {
            return Err(queue_full());
        }
        if !displacing && self.expected_wait(before.saturating_sub(reading)) > timeout {
            return Err(too_late());
        }
        if self.bytes().saturating_add(bytes) > self.byte_limit() {
            return Err(no_memory());
        }
        Ok(permit)
    }

    /// A permit that counts nothing: of what runs only when there is room.
    pub fn uncounted(self: &Arc<Self>) -> Arc<Permit> {
        Arc::new(Permit {
            admission: Arc::clone(self),
            bytes: AtomicUsize::new(0),
            held: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            beyond: AtomicBool::new(false),
        })
    }

    /// How long `ahead` requests take the workers, by what requests took lately.
    fn expected_wait(&self, ahead: usize) -> Duration {
        waits(ahead, self.run.get(), self.limits.workers)
    }

    /// Learns the engine's time for a request.
    pub fn observe_run(&self, run: Duration) {
        self.run.observe(run);
    }

    /// From now on a request may take the place of another, of a lower class or of a model above its share.
    pub fn displace(&self) {
        self.displacing.store(true, Ordering::Relaxed);
    }

    /// Bytes that no permit gets beyond.
    fn byte_limit(&self) -> usize {
        match self.displacing.load(Ordering::Relaxed) {
            true => self.limits.bytes_beyond(),
            false => self.limits.bytes,
        }
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// How long `ahead` requests of `run` each take `workers`.
pub fn waits(ahead: usize, run: Duration, workers: usize) -> Duration {
    let turns = ahead / workers.max(1);
    run.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
}

pub fn queue_full() -> ApiError {
    ApiError::refused(
        "refused_queue",
        "the queue is full; try again later, or add replicas",
    )
}

pub fn too_late() -> ApiError {
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
    /// Counts bytes of the body that have arrived.
    pub fn grow(&self, bytes: usize) -> Result<(), ApiError> {
        let sum = self
            .admission
            .bytes
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if sum > self.admission.byte_limit() {
            return Err(no_memory());
        }
        if sum > self.admission.limits.bytes {
            self.beyond.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The body is here: from now on the request is ahead of others.
    pub fn arrived(&self) {
        if self.reading.swap(false, Ordering::Relaxed) {
            self.admission.reading.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether it was let in beyond a limit, and has yet to take the place of another.
    pub fn is_beyond(&self) -> bool {
        self.beyond.load(Ordering::Relaxed)
    }

    /// It has taken the place of another; that may not be enough when bodies take too much memory.
    pub fn displaced_one(&self) {
        let still_beyond = self.admission.bytes() > self.admission.limits.bytes;
        self.beyond.store(still_beyond, Ordering::Relaxed);
    }

    /// It is of another class than the default.
    pub fn uses_classes(&self) {
        self.admission.displace();
    }

    /// Gives its place to others before it is dropped.
    pub fn give_back(&self) {
        if self.held.swap(false, Ordering::Relaxed) {
            let bytes = self.bytes.swap(0, Ordering::Relaxed);
            self.admission.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.admission.requests.fetch_sub(1, Ordering::Relaxed);
            self.arrived();
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

    /// Admitted, and its body of so many bytes is here.
    fn read(admission: &Arc<Admission>, bytes: usize) -> Result<Arc<Permit>, ApiError> {
        let permit = admission.admit(bytes, SECOND)?;
        permit.grow(bytes)?;
        permit.arrived();
        Ok(permit)
    }

    #[test]
    fn bounded_in_requests_and_given_back() {
        let admission = admission();
        let first = read(&admission, 10).unwrap();
        let _second = read(&admission, 10).unwrap();
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
        let first = read(&admission, 60).unwrap();
        assert_eq!(read(&admission, 60).unwrap_err().outcome, "refused_bytes");
        assert!(first.grow(40).is_ok());
        assert!(first.grow(1).is_err());
        drop(first);
        assert_eq!((admission.requests(), admission.bytes()), (0, 0));
    }

    #[test]
    fn what_is_only_declared_takes_no_room_and_no_time_of_others() {
        let admission = admission();
        admission.observe_run(Duration::from_secs(2));
        let stalled = admission.admit(90, SECOND).unwrap();
        assert_eq!(admission.bytes(), 0);
        let other = read(&admission, 90).unwrap();
        // Both were let in; the memory is there for one.
        assert_eq!(stalled.grow(90).unwrap_err().outcome, "refused_bytes");
        drop((stalled, other));
        assert_eq!((admission.requests(), admission.bytes()), (0, 0));
        assert_eq!(admission.reading.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn refused_when_the_wait_is_longer_than_the_deadline() {
        let admission = admission();
        admission.observe_run(Duration::from_secs(2));
        let first = read(&admission, 1).unwrap();
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
    fn some_may_show_their_class_beyond_the_limits() {
        let admission = admission();
        let within: Vec<_> = (0..2).map(|_| admission.admit(40, SECOND).unwrap()).collect();
        assert!(within.iter().all(|permit| !permit.is_beyond()));
        assert_eq!(admission.admit(1, SECOND).unwrap_err().outcome, "refused_queue");
        admission.displace();
        let beyond: Vec<_> = (0..SHOWING)
            .map(|_| admission.admit(1, SECOND).unwrap())
            .collect();
        assert!(beyond.iter().all(|permit| permit.is_beyond()));
        assert_eq!(admission.admit(1, SECOND).unwrap_err().outcome, "refused_queue");
        beyond[0].displaced_one();
        assert!(!beyond[0].is_beyond());
    }

    #[test]
    fn what_is_uncounted_takes_no_place() {
        let admission = admission();
        drop(admission.uncounted());
        let permits: Vec<_> = (0..9).map(|_| admission.uncounted()).collect();
        assert_eq!((admission.requests(), permits.len()), (0, 9));
        assert!(admission.admit(1, SECOND).is_ok());
    }

    #[test]
    fn bytes_beyond_the_limit_are_won_back() {
        let admission = admission();
        admission.displace();
        let large = read(&admission, 95).unwrap();
        assert_eq!(read(&admission, 20).unwrap_err().outcome, "refused_bytes");
        let next = read(&admission, 10).unwrap();
        next.displaced_one();
        assert!(next.is_beyond());
        large.give_back();
        next.displaced_one();
        assert!(!next.is_beyond());
        assert_eq!((admission.requests(), admission.bytes()), (1, 10));
    }
}
