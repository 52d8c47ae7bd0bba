use std::sync::mpsc;

use tokio::sync::oneshot;

use super::*;
use crate::admission::{Admission, Limits};
use crate::engine::{Data, RunError, Tensor};
use crate::priority::Priority;
use crate::queue::{Batching, Job};
use crate::ready::Ready;
use crate::ready::tests::with_engines;

const HOUR: Duration = Duration::from_secs(3600);
const QUICK: Pace = Pace {
    request: Duration::from_micros(10),
    row: Duration::from_micros(1),
};

/// Negates its input; panics at a 0.
struct Negator(Arc<AtomicUsize>);

impl Engine for Negator {
    fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let Data::I64(values) = &batch.inputs[0].data else {
            return Err(RunError::Failed("not INT64".into()));
        };
        assert!(!values.contains(&0), "zero");
        outputs.tensors = vec![Tensor {
            shape: vec![values.len()],
            data: Data::I64(values.iter().map(|value| -value).collect()),
        }];
        Ok(())
    }
}

/// Runs until it is let go.
struct Stuck(mpsc::Receiver<()>);

impl Engine for Stuck {
    fn run(&mut self, _: Batch, _: &mut Outputs) -> Result<(), RunError> {
        let _ = self.0.recv();
        Ok(())
    }
}

struct Bench {
    inline: Inline,
    queue: Arc<Queue>,
    ready: Arc<Ready>,
    admission: Arc<Admission>,
    statistics: Arc<Statistics>,
    runs: Arc<AtomicUsize>,
    let_go: mpsc::Sender<()>,
}

fn batch(values: &[i64]) -> Batch {
    Batch {
        inputs: vec![Tensor {
            shape: vec![values.len()],
            data: Data::I64(values.to_vec()),
        }],
        rows: values.len(),
        lists: vec![],
    }
}

impl Bench {
    fn new(pace: Pace) -> Self {
        let (let_go, waits) = mpsc::channel();
        let statistics = Arc::new(Statistics::default());
        let load = Arc::new(Load::new("", Instant::now()));
        let ready = with_engines(vec![Box::new(Stuck(waits))], Batching::NONE, 1);
        let queue = Arc::new(Queue::new(1));
        worker::start(1, &queue, &load).unwrap();
        let clocks: Clocks = [load.borrowed_engine()].into();
        let runs = Arc::new(AtomicUsize::new(0));
        let engine: Box<dyn Engine> = Box::new(Negator(Arc::clone(&runs)));
        let limits = Limits {
            requests: 9,
            bytes: 9,
            workers: 1,
        };
        let bench = Self {
            inline: Inline::new(vec![engine], pace, Arc::clone(&statistics), load, clocks),
            queue,
            ready: Arc::new(ready),
            admission: Admission::new(limits),
            statistics,
            runs,
            let_go,
        };
        bench.rest();
        bench
    }

    fn rest(&self) {
        while !self.queue.is_at_rest() {
            std::thread::yield_now();
        }
    }

    fn permit(&self) -> Arc<Permit> {
        let permit = self.admission.admit(1, HOUR).unwrap();
        permit.grow(1).unwrap();
        permit
    }

    fn run(&self, values: &[i64], left: Duration) -> Result<Result<Done, ApiError>, Batch> {
        let now = Instant::now();
        let times = (now, now + left);
        self.inline
            .try_run(&self.queue, batch(values), times, &self.permit())
    }

    /// A request for the engine's thread, which never ends before it is let go.
    fn push(&self) -> oneshot::Receiver<Result<Done, ApiError>> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            ready: Arc::clone(&self.ready),
            batch: batch(&[1]),
            priority: Priority::Normal,
            deadline: Instant::now() + HOUR,
            queued: Instant::now(),
            permit: self.permit(),
            answer,
            shadow: false,
        };
        self.queue.push(job).unwrap();
        answered
    }
}

fn values(done: Done) -> Vec<i64> {
    match &done.outputs.tensors[0].data {
        Data::I64(values) => values.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_request_runs_at_once_and_is_counted() {
    let bench = Bench::new(QUICK);
    let done = bench.run(&[1, 2, 3], HOUR).unwrap().unwrap();
    assert_eq!((done.shared_by, done.permit.bytes()), (1, 1));
    assert_eq!(values(done), [-1, -2, -3]);
    let counts = bench.statistics.snapshot();
    let counted = (
        counts.runs,
        counts.rows,
        counts.queue.count,
        counts.phases.infer.count,
    );
    assert_eq!(counted, (1, 3, 1, 1));
    // Nothing is left behind in the queue or among the admitted.
    assert!(bench.queue.is_at_rest());
    assert_eq!(bench.admission.requests(), 0);
}

#[test]
fn nobody_is_overtaken() {
    let bench = Bench::new(QUICK);
    let first = bench.push();
    assert_eq!(bench.run(&[5], HOUR).unwrap_err(), batch(&[5]));
    let second = bench.push();
    assert_eq!(bench.run(&[6], HOUR).unwrap_err(), batch(&[6]));
    (0..2).for_each(|_| bench.let_go.send(()).unwrap());
    for answered in [first, second] {
        answered.blocking_recv().unwrap().unwrap();
    }
    bench.rest();
    assert_eq!(values(bench.run(&[7], HOUR).unwrap().unwrap()), [-7]);
    assert_eq!(bench.runs.load(Ordering::Relaxed), 1);
}

#[test]
fn a_long_request_goes_to_the_queue() {
    let bench = Bench::new(QUICK);
    // 10 us, and 1 us a row.
    assert!(bench.run(&[1; 90], HOUR).is_ok());
    assert_eq!(bench.run(&[1; 91], HOUR).unwrap_err().rows, 91);
    let mut lists = batch(&[1; 10]);
    lists.lists = vec![1; 10];
    assert_eq!(QUICK.of(&lists), Duration::from_micros(110));
}

#[test]
fn an_engine_in_use_is_not_waited_for() {
    let bench = Bench::new(QUICK);
    let used = bench.inline.engines.try_checkout(0);
    assert!(used.is_some());
    assert_eq!(bench.run(&[1], HOUR).unwrap_err(), batch(&[1]));
    drop(used);
    assert!(bench.run(&[1], HOUR).is_ok());
}

#[test]
fn late_requests_and_panics_are_answered_as_by_an_engine_thread() {
    let bench = Bench::new(QUICK);
    let late = bench.run(&[1], Duration::ZERO).unwrap().map(values).unwrap_err();
    assert_eq!((late.status.as_u16(), late.outcome), (429, "refused_deadline"));
    assert_eq!(bench.runs.load(Ordering::Relaxed), 0);
    let failed = bench.run(&[0], HOUR).unwrap().map(values).unwrap_err();
    assert_eq!(failed.status.as_u16(), 500);
    assert_eq!(values(bench.run(&[4], HOUR).unwrap().unwrap()), [-4]);
    assert_eq!(bench.admission.requests(), 0);
}

/// Answers anything, or nothing.
struct Sometimes(bool);

impl Engine for Sometimes {
    fn run(&mut self, batch: Batch, _: &mut Outputs) -> Result<(), RunError> {
        let rows = batch.inputs[0].shape[0];
        assert_eq!(rows, batch.rows);
        if self.0 {
            return Ok(());
        }
        Err(RunError::Refused("zeros".into()))
    }
}

#[test]
fn what_does_not_run_on_zeros_has_no_pace() {
    let model = crate::protocol::request::tests::model();
    assert!(Pace::measure(&mut Sometimes(true), &model).is_some());
    assert_eq!(Pace::measure(&mut Sometimes(false), &model), None);
}
