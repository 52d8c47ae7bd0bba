//! Workers: threads with an engine each, and the queue between them and the reactor.
//!
//! The queue needs no bound of its own: only requests with a permit get there.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::admission::Permit;
use crate::engine::{Batch, Engine, Outputs, RunError};
use crate::load::Load;
use crate::protocol::ApiError;

/// One request on its way to an engine.
pub struct Job {
    pub batch: Batch,
    pub deadline: Instant,
    pub queued: Instant,
    pub permit: Permit,
    pub answer: oneshot::Sender<Result<Done, ApiError>>,
}

/// What an engine made of a request.
pub struct Done {
    pub outputs: Outputs,
    pub waited: Duration,
    pub ran: Duration,
    /// Held until the answer is encoded.
    pub permit: Permit,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
pub struct Workers {
    queue: Mutex<Queue>,
    added: Condvar,
}

impl Workers {
    /// Starts a thread an engine.
    pub fn start(engines: Vec<Box<dyn Engine>>, load: &Arc<Load>) -> std::io::Result<Arc<Self>> {
        let workers = Arc::new(Self::default());
        for (index, engine) in engines.into_iter().enumerate() {
            let (shared, load) = (Arc::clone(&workers), Arc::clone(load));
            std::thread::Builder::new()
                .name(format!("engine-{index}"))
                .spawn(move || shared.work(engine, &load))?;
        }
        Ok(workers)
    }

    pub fn push(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.added.notify_one();
    }

    /// Lets the threads end when the queue is empty.
    pub fn close(&self) {
        self.lock().closed = true;
        self.added.notify_all();
    }

    pub fn waiting(&self) -> usize {
        self.lock().jobs.len()
    }

    // A thread that panicked holds no half-changed queue: push and pop are single steps.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn work(&self, mut engine: Box<dyn Engine>, load: &Load) {
        let clock = load.engine();
        while let Some(job) = self.next() {
            let started = Instant::now();
            load.queued(started - job.queued);
            if job.answer.is_closed() {
                continue;
            }
            if started >= job.deadline {
                let message =
                    "the deadline passed before an engine was free; try again later, or add replicas";
                let _ = job
                    .answer
                    .send(Err(ApiError::refused("refused_deadline", message)));
                continue;
            }
            let mut outputs = Outputs::default();
            clock.begin(started);
            let result = catch_unwind(AssertUnwindSafe(|| engine.run(&job.batch, &mut outputs)));
            let ended = Instant::now();
            clock.end(ended);
            let result = match result {
                Ok(Ok(())) => Ok(Done {
                    outputs,
                    waited: started - job.queued,
                    ran: ended - started,
                    permit: job.permit,
                }),
                Ok(Err(RunError::Refused(message))) => Err(ApiError::invalid(message)),
                Ok(Err(error)) => Err(ApiError::internal(error.to_string())),
                Err(_) => Err(ApiError::internal(
                    "the engine panicked; see the log of the runtime",
                )),
            };
            let _ = job.answer.send(result);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{Admission, Limits};

    struct Fake;

    impl Engine for Fake {
        fn run(&mut self, batch: &Batch, _: &mut Outputs) -> Result<(), RunError> {
            match batch.rows {
                0 => panic!("no rows"),
                1 => Ok(()),
                _ => Err(RunError::Refused("too many".into())),
            }
        }
    }

    fn ask(workers: &Workers, rows: usize, deadline: Instant) -> Result<Done, ApiError> {
        let admission = Admission::new(Limits {
            requests: 9,
            bytes: 9,
            workers: 1,
        });
        let (answer, receiver) = oneshot::channel();
        let permit = admission.admit(1, Duration::from_secs(1)).unwrap();
        let batch = Batch {
            inputs: Vec::new(),
            rows,
        };
        workers.push(Job {
            batch,
            deadline,
            queued: Instant::now(),
            permit,
            answer,
        });
        receiver.blocking_recv().unwrap()
    }

    #[test]
    fn answers_refuses_and_survives_a_panic() {
        let workers = Workers::start(vec![Box::new(Fake)], &Arc::new(Load::new("", Instant::now()))).unwrap();
        let later = Instant::now() + Duration::from_secs(60);
        assert!(ask(&workers, 1, later).is_ok());
        assert_eq!(ask(&workers, 0, later).err().unwrap().status.as_u16(), 500);
        assert_eq!(ask(&workers, 2, later).err().unwrap().status.as_u16(), 400);
        assert_eq!(
            ask(&workers, 1, Instant::now()).err().unwrap().outcome,
            "refused_deadline"
        );
        assert!(ask(&workers, 1, later).is_ok());
        workers.close();
    }
}
