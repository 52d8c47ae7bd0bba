use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::*;
use crate::admission::{Admission, Limits};
use crate::engine::{Batch, Data, Divisible, RunError, Tensor};
use crate::load::Load;
use crate::priority::Priority;
use crate::queue::{Batching, Job, Queue};
use crate::ready::Ready;
use crate::ready::tests::with_engines;
use crate::worker::Done;

const HOUR: Duration = Duration::from_secs(3600);
const RUN: Run = Run {
    model: 0,
    shadow: false,
};

#[test]
fn parts_are_never_tiny_and_as_many_for_each_thread() {
    for (rows, least, threads, expected) in [
        (199, 100, 2, 1),
        (200, 100, 2, 2),
        (399, 100, 2, 2),
        (500, 100, 2, 4),
        (300, 100, 4, 3),
        (1024, 100, 4, 8),
        (10, 100, 2, 0),
        (10, 0, 0, 0),
    ] {
        assert_eq!(parts(rows, least, threads), expected, "{rows} {least} {threads}");
    }
}

fn ints(values: &[i64]) -> Tensor {
    Tensor {
        shape: vec![values.len()],
        data: Data::I64(values.to_vec()),
    }
}

/// What parts wait for, and what they tell.
struct Control {
    let_go: Mutex<mpsc::Receiver<()>>,
    began: mpsc::Sender<Range<usize>>,
    runs: AtomicUsize,
}

/// Doubles its pairs; refuses a 13, panics at a 0. Each part waits until it is let go.
struct Doubling {
    values: Vec<i64>,
    control: Arc<Control>,
}

impl Begun for Doubling {
    fn part(&self, pairs: Range<usize>, outputs: &mut Outputs) -> Result<(), RunError> {
        let _ = self.control.began.send(pairs.clone());
        let _ = self.control.let_go.lock().unwrap().recv();
        let values = &self.values[pairs];
        assert!(!values.contains(&0), "zero");
        if values.contains(&13) {
            return Err(RunError::Refused(format!("13 in {values:?}")));
        }
        let doubled: Vec<i64> = values.iter().map(|value| 2 * value).collect();
        outputs.tensors = vec![ints(&doubled)];
        Ok(())
    }
}

/// Begins such runs; gives the input back in a run that is not split.
struct Doubler(Arc<Control>);

impl Engine for Doubler {
    fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
        outputs.tensors = batch.inputs;
        Ok(())
    }

    fn divisible(&mut self) -> Option<&mut dyn Divisible> {
        Some(self)
    }
}

impl Divisible for Doubler {
    fn least(&self) -> usize {
        96
    }

    fn begin(&mut self, batch: Batch) -> Result<Box<dyn Begun>, RunError> {
        self.0.runs.fetch_add(1, Ordering::Relaxed);
        let Data::I64(values) = &batch.inputs[0].data else {
            return Err(RunError::Failed("not INT64".into()));
        };
        Ok(Box::new(Doubling {
            values: values.clone(),
            control: Arc::clone(&self.0),
        }))
    }
}

/// Two threads, and a model with an engine for each.
struct Bench {
    queue: Arc<Queue>,
    ready: Arc<Ready>,
    admission: Arc<Admission>,
    control: Arc<Control>,
    let_go: mpsc::Sender<()>,
    began: mpsc::Receiver<Range<usize>>,
}

type Receiver = oneshot::Receiver<Result<Done, ApiError>>;

impl Bench {
    fn new() -> Self {
        let (let_go, waits) = mpsc::channel();
        let (begins, began) = mpsc::channel();
        let control = Arc::new(Control {
            let_go: Mutex::new(waits),
            began: begins,
            runs: AtomicUsize::new(0),
        });
        let engine = || Box::new(Doubler(Arc::clone(&control))) as Box<dyn Engine>;
        let mut ready = with_engines(vec![engine(), engine()], Batching::NONE, 1);
        ready.part = Some(2);
        let limits = Limits {
            requests: 9,
            bytes: 9,
            workers: 2,
        };
        Self {
            queue: Arc::new(Queue::new(2)),
            ready: Arc::new(ready),
            admission: Admission::new(limits),
            control,
            let_go,
            began,
        }
    }

    /// Starts the threads, and waits until both rest and know the model.
    fn start(&self) {
        worker::start(2, &self.queue, &Arc::new(Load::new("", Instant::now()))).unwrap();
        values(self.ask(&[7], false)).unwrap();
        while self.queue.sharers(&self.ready) < 3 {
            std::thread::yield_now();
        }
    }

    fn ask(&self, values: &[i64], shadow: bool) -> Receiver {
        let (answer, receiver) = oneshot::channel();
        let job = Job {
            ready: Arc::clone(&self.ready),
            batch: Batch {
                inputs: vec![ints(values)],
                rows: values.len(),
                lists: vec![],
            },
            priority: Priority::Normal,
            deadline: Instant::now() + HOUR,
            queued: Instant::now(),
            permit: self.admission.admit(1, HOUR).unwrap(),
            answer,
            shadow,
        };
        match shadow {
            true => assert!(self.queue.push_shadow(job)),
            false => self.queue.push(job).unwrap(),
        }
        receiver
    }

    fn let_go(&self, parts: usize) {
        (0..parts).for_each(|_| self.let_go.send(()).unwrap());
    }

    /// A run of these values in so many parts.
    fn split(&self, values: &[i64], count: usize) -> Split {
        let begun = Doubling {
            values: values.to_vec(),
            control: Arc::clone(&self.control),
        };
        Split::new(Box::new(begun), RUN, values.len(), count)
    }
}

fn values(receiver: Receiver) -> Result<Vec<i64>, (u16, String)> {
    let done = receiver.blocking_recv().unwrap();
    let done = done.map_err(|error| (error.status.as_u16(), error.to_string()))?;
    assert_eq!(done.shared_by, 1);
    match &done.outputs.tensors[0].data {
        Data::I64(values) => Ok(values.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_part_takes_more_than_the_way_to_another_thread() {
    let pace = |row| {
        let request = Duration::ZERO;
        Some(Pace { request, row })
    };
    let mut engine = Doubler(Bench::new().control);
    let mut of = |row| least(&mut engine, pace(row));
    assert_eq!(of(Duration::from_nanos(300)), Some(334));
    assert_eq!(of(Duration::from_micros(20)), Some(96));
    assert_eq!(of(Duration::ZERO), Some(100_000));
    assert_eq!(least(&mut engine, None), None);
}

#[test]
fn parts_come_together_in_order_whoever_scored_them() {
    let bench = Bench::new();
    let split = bench.split(&[1, 2, 3, 4, 5, 6, 7, 8], 3);
    bench.let_go(3);
    let clock = EngineClock::default();
    split.work(&clock, || true);
    assert!(split.has_parts());
    std::thread::scope(|scope| {
        scope.spawn(|| split.work(&EngineClock::default(), || false));
        split.work(&clock, || false);
    });
    assert!(!split.has_parts());
    let (outputs, engaged) = split.finish().unwrap();
    assert_eq!(outputs.tensors, [ints(&[2, 4, 6, 8, 10, 12, 14, 16])]);
    assert!(engaged > Duration::ZERO);
    let mut began: Vec<_> = bench.began.try_iter().collect();
    began.sort_by_key(|pairs| pairs.start);
    assert_eq!(began, [0..2, 2..5, 5..8]);
}

#[test]
fn the_first_part_that_fails_is_the_error_and_the_rest_is_left() {
    let bench = Bench::new();
    for (values, message) in [
        ([1, 2, 13, 4, 13, 6, 0, 8], "13 in [13, 4]"),
        ([1, 2, 3, 0, 13, 6, 7, 8], "panicked"),
    ] {
        let split = bench.split(&values, 4);
        bench.let_go(2);
        split.work(&EngineClock::default(), || false);
        let error = split.finish().unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
        assert_eq!(bench.began.try_iter().collect::<Vec<_>>(), [0..2, 2..4]);
    }
    // One that ends later, but is of earlier pairs.
    let split = bench.split(&[1, 2, 3, 4], 4);
    assert_eq!((split.take(), split.take()), (Some(0), Some(1)));
    split.end(1, Err(ApiError::internal("second")));
    assert!(!split.has_parts());
    split.end(0, Err(ApiError::internal("first")));
    assert_eq!(
        split.finish().unwrap_err().to_string(),
        ApiError::internal("first").to_string()
    );
}

#[test]
fn threads_that_rest_score_parts_of_a_run() {
    let bench = Bench::new();
    bench.start();
    let asked = bench.ask(&[1, 2, 3, 4, 5, 6, 7, 8], false);
    // Both are at it before either has ended.
    let both: Vec<_> = bench.began.iter().take(2).collect();
    assert_eq!(both.iter().map(Range::len).collect::<Vec<_>>(), [2, 2]);
    bench.let_go(4);
    assert_eq!(values(asked), Ok(vec![2, 4, 6, 8, 10, 12, 14, 16]));
    assert_eq!(bench.control.runs.load(Ordering::Relaxed), 1);
    let counts = bench.ready.statistics.snapshot();
    let counted = (
        counts.runs,
        counts.rows,
        counts.queue.count,
        counts.phases.infer.count,
    );
    assert_eq!(counted, (2, 9, 2, 2));
    bench.queue.close();
}

#[test]
fn a_part_that_fails_fails_its_request_once_and_no_other() {
    let bench = Bench::new();
    bench.start();
    bench.let_go(8);
    let (status, message) = values(bench.ask(&[1, 2, 13, 4, 5, 6, 7, 8], false)).unwrap_err();
    assert_eq!(status, 400);
    assert!(message.contains("13 in [13, 4]"), "{message}");
    bench.let_go(8);
    assert_eq!(values(bench.ask(&[1, 2, 3], false)), Ok(vec![1, 2, 3]));
    let counts = bench.ready.statistics.snapshot();
    assert_eq!((counts.runs, counts.rows), (2, 4));
    bench.queue.close();
}

#[test]
fn short_requests_and_shadows_are_not_split() {
    let bench = Bench::new();
    bench.start();
    assert_eq!(values(bench.ask(&[1, 2, 3], false)), Ok(vec![1, 2, 3]));
    let whole = vec![1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(values(bench.ask(&whole, true)), Ok(whole));
    assert_eq!(bench.control.runs.load(Ordering::Relaxed), 0);
    bench.queue.close();
}
