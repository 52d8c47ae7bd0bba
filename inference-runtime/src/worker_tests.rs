use std::sync::mpsc;

use tokio::sync::oneshot;

use super::*;
use crate::admission::{Admission, Limits};
use crate::engine::{Data, Engine, Tensor};
use crate::priority::Priority;
use crate::queue::Batching;
use crate::ready::tests::with_engines;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Doubles its input; refuses runs with a 13 in it, and panics at a 0. Says how many rows each run had, and waits
/// before each run until it is let.
struct Doubler {
    let_go: mpsc::Receiver<()>,
    runs: mpsc::Sender<usize>,
}

impl Engine for Doubler {
    fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
        let _ = self.let_go.recv();
        let _ = self.runs.send(batch.rows);
        let Data::I64(values) = &batch.inputs[0].data else {
            return Err(RunError::Failed("not INT64".into()));
        };
        assert!(!values.contains(&0), "zero");
        if values.contains(&13) {
            return Err(RunError::Refused("13".into()));
        }
        outputs.tensors = vec![Tensor {
            shape: vec![values.len()],
            data: Data::I64(values.iter().map(|value| 2 * value).collect()),
        }];
        Ok(())
    }
}

struct Bench {
    queue: Arc<Queue>,
    ready: Arc<Ready>,
    let_go: mpsc::Sender<()>,
    runs: mpsc::Receiver<usize>,
}

type Receiver = oneshot::Receiver<Result<Done, ApiError>>;

impl Bench {
    fn new(max_rows: usize) -> Self {
        let (let_go, waits) = mpsc::channel();
        let (runs, ran) = mpsc::channel();
        let engine = Doubler { let_go: waits, runs };
        let batching = Batching {
            max_rows,
            max_delay: Duration::ZERO,
        };
        let ready = Arc::new(with_engines(vec![Box::new(engine)], batching, 1));
        let queue = Arc::new(Queue::new(1));
        start(1, &queue, &Arc::new(Load::new("", Instant::now()))).unwrap();
        Self {
            queue,
            ready,
            let_go,
            runs: ran,
        }
    }

    fn ask(&self, values: &[i64], timeout: Duration) -> Receiver {
        let admission = Admission::new(Limits {
            requests: 9,
            bytes: 9,
            workers: 1,
        });
        let (answer, receiver) = oneshot::channel();
        let input = Tensor {
            shape: vec![values.len()],
            data: Data::I64(values.to_vec()),
        };
        let job = Job {
            ready: Arc::clone(&self.ready),
            batch: Batch {
                inputs: vec![input],
                rows: values.len(),
                lists: vec![],
            },
            priority: Priority::Normal,
            deadline: Instant::now() + timeout,
            queued: Instant::now(),
            permit: admission.admit(1, TIMEOUT).unwrap(),
            answer,
            shadow: false,
        };
        self.queue.push(job).unwrap();
        receiver
    }

    /// Starts a run that keeps the only engine busy until it is let go.
    fn block(&self) -> Receiver {
        let first = self.ask(&[1], TIMEOUT);
        while !self.queue.is_empty() {
            std::thread::yield_now();
        }
        first
    }

    fn let_go(&self, runs: usize) {
        (0..runs).for_each(|_| self.let_go.send(()).unwrap());
    }
}

fn values(receiver: Receiver) -> Result<Vec<i64>, (u16, &'static str)> {
    let done = receiver
        .blocking_recv()
        .unwrap()
        .map_err(|error| (error.status.as_u16(), error.outcome))?;
    let Data::I64(values) = &done.outputs.tensors[0].data else {
        panic!("not INT64")
    };
    Ok(values.clone())
}

#[test]
fn what_waits_together_runs_together() {
    let bench = Bench::new(8);
    let first = bench.block();
    let waiting: Vec<Receiver> = (1..=4).map(|i| bench.ask(&[i, 10 * i], TIMEOUT)).collect();
    bench.let_go(2);
    assert_eq!(values(first), Ok(vec![2]));
    for (i, receiver) in (1..=4).zip(waiting) {
        assert_eq!(values(receiver), Ok(vec![2 * i, 20 * i]));
    }
    assert_eq!(bench.runs.iter().take(2).collect::<Vec<_>>(), [1, 8]);
    let counts = bench.ready.statistics.snapshot();
    assert_eq!(
        (
            counts.runs,
            counts.rows,
            counts.queue.count,
            counts.phases.infer.count
        ),
        (2, 9, 5, 5)
    );
    bench.queue.close();
}

#[test]
fn one_by_one_when_requests_must_not_be_joined() {
    let bench = Bench::new(1);
    let asked: Vec<Receiver> = (1..=3).map(|i| bench.ask(&[i, i], TIMEOUT)).collect();
    bench.let_go(3);
    for (i, receiver) in (1..=3).zip(asked) {
        assert_eq!(values(receiver), Ok(vec![2 * i, 2 * i]));
    }
    assert_eq!(bench.runs.iter().take(3).collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn one_bad_request_does_not_fail_the_others() {
    for (bad, status) in [(13, 400), (0, 500)] {
        let bench = Bench::new(8);
        let first = bench.block();
        let good = bench.ask(&[5], TIMEOUT);
        let spoilt = bench.ask(&[bad], TIMEOUT);
        let late = bench.ask(&[6], TIMEOUT);
        // The first, all together, and three alone.
        bench.let_go(5);
        assert_eq!(values(first), Ok(vec![2]));
        assert_eq!(values(good), Ok(vec![10]));
        assert_eq!(values(spoilt).unwrap_err().0, status);
        assert_eq!(values(late), Ok(vec![12]));
        assert_eq!(bench.runs.iter().take(5).collect::<Vec<_>>(), [1, 3, 1, 1, 1]);
    }
}

#[test]
fn late_and_abandoned_requests_do_not_reach_the_engine() {
    let bench = Bench::new(8);
    let first = bench.block();
    let late = bench.ask(&[5, 5], Duration::ZERO);
    drop(bench.ask(&[6, 6], TIMEOUT));
    let good = bench.ask(&[7], TIMEOUT);
    bench.let_go(2);
    assert_eq!(values(first), Ok(vec![2]));
    assert_eq!(values(late), Err((429, "refused_deadline")));
    assert_eq!(values(good), Ok(vec![14]));
    assert_eq!(bench.runs.iter().take(2).collect::<Vec<_>>(), [1, 1]);
}
