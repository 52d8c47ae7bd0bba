use std::sync::Arc;

use tokio::sync::oneshot;

use super::*;
use crate::admission::{Admission, Limits};
use crate::engine::{Batch, Data, Tensor};
use crate::ready::tests::{engines, ready};
use crate::worker::Done;

mod parts;
mod shadows;

const MINUTE: Duration = Duration::from_secs(60);

/// A queue, and a model whose requests are joined so.
fn queue(max_rows: usize, max_delay: Duration) -> (Queue, Asked) {
    let model = ready(Batching { max_rows, max_delay }, 1);
    (Queue::new(1), Asked::of(vec![model], 100))
}

struct Asked {
    admission: Arc<Admission>,
    models: Vec<Arc<Ready>>,
    receivers: Vec<oneshot::Receiver<Result<Done, ApiError>>>,
}

impl Asked {
    fn of(models: Vec<Arc<Ready>>, requests: usize) -> Self {
        let limits = Limits {
            requests,
            bytes: usize::MAX / 2,
            workers: 1,
        };
        Self {
            admission: Admission::new(limits),
            models,
            receivers: Vec::new(),
        }
    }

    /// A request for the first model whose only input has `rows` rows of `width`; its id is its number.
    fn push(&mut self, queue: &Queue, priority: Priority, shape: (usize, usize), left: Duration) {
        self.ask(queue, 0, priority, shape, left).unwrap();
    }

    fn ask(
        &mut self,
        queue: &Queue,
        model: usize,
        priority: Priority,
        (rows, width): (usize, usize),
        left: Duration,
    ) -> Result<(), ApiError> {
        let (answer, receiver) = oneshot::channel();
        let input = Tensor {
            shape: vec![rows, width],
            data: Data::U8(vec![0; rows * width]),
        };
        let permit = self.admission.admit(0, MINUTE)?;
        permit.grow(self.receivers.len())?;
        self.receivers.push(receiver);
        let queued = Instant::now();
        queue.push(Job {
            ready: Arc::clone(&self.models[model]),
            batch: Batch {
                inputs: vec![input],
                rows,
                lists: vec![],
            },
            priority,
            deadline: queued + left,
            queued,
            permit,
            answer,
            shadow: false,
        })
    }

    /// A shadow of one row for a model; its number counts no bytes.
    fn shadow(&mut self, queue: &Queue, model: usize) -> bool {
        let (answer, receiver) = oneshot::channel();
        self.receivers.push(receiver);
        let queued = Instant::now();
        queue.push_shadow(Job {
            ready: Arc::clone(&self.models[model]),
            batch: Batch::default(),
            priority: Priority::Low,
            deadline: queued + MINUTE,
            queued,
            permit: self.admission.uncounted(),
            answer,
            shadow: true,
        })
    }

    /// A request of the default class, of so many rows.
    fn rows(&mut self, queue: &Queue, model: usize, rows: usize) -> Result<(), ApiError> {
        self.ask(queue, model, Priority::Normal, (rows, 1), MINUTE)
    }

    fn outcome(&mut self, number: usize) -> &'static str {
        self.receivers[number].try_recv().unwrap().err().unwrap().outcome
    }
}

fn jobs(work: Option<Work>) -> Vec<Job> {
    match work {
        Some(Work::Jobs(jobs)) => jobs,
        Some(Work::Parts(_)) => panic!("parts of a run"),
        None => panic!("closed and empty"),
    }
}

/// The numbers of the requests of a batch: each counted its number as bytes.
fn numbers(work: Option<Work>) -> Vec<usize> {
    jobs(work).iter().map(|job| job.permit.bytes()).collect()
}

#[test]
fn higher_classes_first_and_up_to_the_limit() {
    use Priority::{High, Low, Normal};
    let (queue, mut asked) = queue(5, Duration::ZERO);
    for priority in [Low, Normal, Normal, High, Low] {
        asked.push(&queue, priority, (2, 3), MINUTE);
    }
    assert_eq!(queue.len(), 5);
    assert_eq!(numbers(queue.take(None)), [3, 1]);
    assert_eq!(numbers(queue.take(None)), [2, 0]);
    assert_eq!(numbers(queue.take(None)), [4]);
    queue.close();
    assert!(queue.take(None).is_none());
}

#[test]
fn only_what_fits_is_joined() {
    let (queue, mut asked) = queue(8, Duration::ZERO);
    for shape in [(2, 3), (2, 4), (9, 3), (1, 3), (2, 4)] {
        asked.push(&queue, Priority::Normal, shape, MINUTE);
    }
    assert_eq!(numbers(queue.take(None)), [0, 3]);
    assert_eq!(numbers(queue.take(None)), [1, 4]);
    assert_eq!(numbers(queue.take(None)), [2]);
}

#[test]
fn nothing_is_joined_with_a_limit_of_one() {
    let (queue, mut asked) = queue(1, Duration::ZERO);
    for rows in [1, 4, 1] {
        asked.push(&queue, Priority::Normal, (rows, 1), MINUTE);
    }
    for number in 0..3 {
        assert_eq!(numbers(queue.take(None)), [number]);
    }
}

#[test]
fn an_engine_leaves_their_share_to_those_that_rest() {
    for (max_delay, taken) in [(Duration::ZERO, 2), (MINUTE, 4)] {
        let (queue, mut asked) = queue(100, max_delay);
        for _ in 0..4 {
            asked.push(&queue, Priority::Normal, (1, 1), MINUTE);
        }
        let mut waiting = queue.lock();
        waiting.resting = 1;
        let later = Instant::now() + MINUTE;
        assert_eq!(waiting.draw(later).unwrap().len(), taken);
    }
}

#[test]
fn a_delay_ends_with_a_full_batch_or_with_time() {
    let (queue, mut asked) = queue(3, MINUTE);
    let queue = Arc::new(queue);
    let gatherer = Arc::clone(&queue);
    let full = std::thread::spawn(move || numbers(gatherer.take(None)));
    for _ in 0..3 {
        asked.push(&queue, Priority::Normal, (1, 1), 10 * MINUTE);
    }
    assert_eq!(full.join().unwrap(), [0, 1, 2]);
    // Half of the time that a request has, if that is less than the delay.
    let left = Duration::from_millis(20);
    asked.push(&queue, Priority::Normal, (1, 1), left);
    let last = jobs(queue.take(None));
    assert_eq!(last[0].leave_by(MINUTE), last[0].queued + left / 2);
    assert_eq!((last.len(), last[0].permit.bytes()), (1, 3));
}

#[test]
fn the_newest_of_the_lowest_class_is_shed_for_one_beyond_the_limit() {
    use Priority::{High, Low, Normal};
    let (queue, mut asked) = (Queue::new(1), Asked::of(vec![ready(Batching::NONE, 1)], 4));
    for priority in [Low, Low, Normal, High] {
        asked.push(&queue, priority, (1, 1), MINUTE);
    }
    let ask = |asked: &mut Asked, priority| {
        let asked = asked.ask(&queue, 0, priority, (1, 1), MINUTE);
        asked.map_err(|error| error.outcome)
    };
    assert_eq!(ask(&mut asked, Low), Err("refused_queue"));
    assert_eq!(ask(&mut asked, Normal), Ok(()));
    assert_eq!(asked.outcome(1), "refused_priority");
    assert_eq!(ask(&mut asked, High), Ok(()));
    assert_eq!(asked.outcome(0), "refused_priority");
    assert_eq!((asked.admission.requests(), queue.len()), (4, 4));
    for shed in [5, 2] {
        assert_eq!(ask(&mut asked, High), Ok(()));
        assert_eq!(asked.outcome(shed), "refused_priority");
    }
    assert_eq!(ask(&mut asked, Normal), Err("refused_queue"));
    // The highest class stays even if none waits that could be shed for it.
    assert_eq!(ask(&mut asked, High), Ok(()));
    assert_eq!(queue.len(), 5);
}

#[test]
fn only_those_of_its_own_class_and_above_are_ahead() {
    let (queue, mut asked) = queue(1, Duration::ZERO);
    asked.models[0].request.observe(Duration::from_secs(1));
    for _ in 0..3 {
        asked.push(&queue, Priority::Low, (1, 1), 9 * Duration::from_secs(1));
    }
    let mut ask = |priority| asked.ask(&queue, 0, priority, (1, 1), Duration::from_secs(1));
    assert_eq!(ask(Priority::Low).unwrap_err().outcome, "refused_deadline");
    assert!(ask(Priority::High).is_ok());
}

#[test]
fn those_of_other_models_are_ahead_by_their_share() {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 3)];
    models
        .iter()
        .for_each(|model| model.request.observe(Duration::from_secs(1)));
    let (queue, mut asked) = (Queue::new(1), Asked::of(models, 100));
    for _ in 0..50 {
        asked.rows(&queue, 1, 1).unwrap();
    }
    let mut ask = |seconds| asked.ask(&queue, 0, Priority::Normal, (1, 1), Duration::from_secs(seconds));
    assert!(ask(1).is_ok() && ask(9).is_ok());
    // Two of its own ahead, on a quarter of the engine.
    assert_eq!(ask(7).unwrap_err().outcome, "refused_deadline");
    assert!(ask(8).is_ok());
}

/// How many rows of each model run, while so many are waited for of the first and none may run dry.
fn served(queue: &Queue, asked: &Asked, models: usize, runs: usize) -> Vec<usize> {
    let mut rows = vec![0; models];
    let mut after = None;
    for _ in 0..runs {
        let jobs = jobs(queue.take(after));
        let model = asked.models.iter().position(|model| model.id == jobs[0].ready.id);
        let model = model.unwrap();
        after = Run::of(&jobs);
        assert!(jobs.iter().all(|job| job.ready.id == jobs[0].ready.id));
        rows[model] += jobs.iter().map(|job| job.batch.rows).sum::<usize>();
    }
    rows
}

#[test]
fn engines_are_shared_by_cost_and_not_by_requests() {
    // A row takes as long on both; one asks for long lists, the other for short ones, and has twice the share.
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 2)];
    let (queue, mut asked) = (Queue::new(1), Asked::of(models, 10_000));
    for _ in 0..100 {
        asked.rows(&queue, 0, 10).unwrap();
    }
    for _ in 0..2000 {
        asked.rows(&queue, 1, 1).unwrap();
    }
    let rows = served(&queue, &asked, 2, 630);
    assert_eq!(rows.iter().sum::<usize>(), 630 + 9 * (rows[0] / 10));
    assert!(rows[0].abs_diff(rows[1] / 2) <= 10, "{rows:?}");
}

#[test]
fn dear_rows_count_more() {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 1)];
    models[0].row.observe(Duration::from_micros(1 + 16 * 9));
    assert_eq!(models[0].cost(1), 10 * models[1].cost(1));
    let (queue, mut asked) = (Queue::new(1), Asked::of(models, 10_000));
    for model in [0, 1] {
        for _ in 0..1000 {
            asked.rows(&queue, model, 1).unwrap();
        }
    }
    let rows = served(&queue, &asked, 2, 550);
    assert!((49..=52).contains(&rows[0]), "{rows:?}");
}

#[test]
fn a_flood_is_overtaken_by_who_asks_now_and_then() {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 1)];
    let (queue, mut asked) = (Queue::new(1), Asked::of(models, 10_000));
    for _ in 0..1000 {
        asked.rows(&queue, 0, 1).unwrap();
    }
    let mut after = None;
    for _ in 0..100 {
        asked.rows(&queue, 1, 1).unwrap();
        let mut overtaken = 0;
        loop {
            let jobs = jobs(queue.take(after));
            after = Run::of(&jobs);
            if jobs[0].ready.id == asked.models[1].id {
                break;
            }
            overtaken += 1;
        }
        // At most the one whose turn it was.
        assert!(overtaken <= 1);
    }
}

#[test]
fn who_sent_nothing_has_saved_up_nothing() {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 1)];
    let (queue, mut asked) = (Queue::new(1), Asked::of(models, 10_000));
    for _ in 0..300 {
        asked.rows(&queue, 0, 1).unwrap();
    }
    assert_eq!(served(&queue, &asked, 2, 200), [200, 0]);
    for _ in 0..300 {
        asked.rows(&queue, 1, 1).unwrap();
    }
    let rows = served(&queue, &asked, 2, 100);
    assert!(rows[0].abs_diff(rows[1]) <= 1, "{rows:?}");
}

#[test]
fn the_one_above_its_share_makes_room() {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 1)];
    let (queue, mut asked) = (Queue::new(1), Asked::of(models, 10));
    asked.admission.displace();
    for _ in 0..10 {
        asked.rows(&queue, 0, 1).unwrap();
    }
    // Its own do not help it.
    assert_eq!(asked.rows(&queue, 0, 1).unwrap_err().outcome, "refused_queue");
    // The other takes up to half, from the newest on.
    for taken in 0..5 {
        asked.rows(&queue, 1, 1).unwrap();
        assert_eq!(asked.outcome(9 - taken), "refused_share");
    }
    assert_eq!(asked.rows(&queue, 1, 1).unwrap_err().outcome, "refused_queue");
    assert_eq!((queue.len(), asked.admission.requests()), (10, 10));
}

#[test]
fn no_more_runs_than_engines() {
    let model = ready(Batching::NONE, 1);
    let other = ready(Batching::NONE, 1);
    let (queue, mut asked) = (Queue::new(4), Asked::of(vec![model, other], 100));
    for _ in 0..engines() + 2 {
        asked.rows(&queue, 0, 1).unwrap();
    }
    let (first, second) = (asked.models[0].id, asked.models[1].id);
    let run = |model| Some(Run { model, shadow: false });
    for _ in 0..engines() {
        assert_eq!(jobs(queue.take(None))[0].ready.id, first);
    }
    asked.rows(&queue, 1, 1).unwrap();
    assert_eq!(jobs(queue.take(None))[0].ready.id, second);
    assert_eq!(jobs(queue.take(run(first)))[0].ready.id, first);
    queue.close();
    // The last waits for an engine of its own; who has one takes it.
    assert!(queue.take(run(second)).is_none());
    assert_eq!(jobs(queue.take(run(first)))[0].ready.id, first);
    assert!(queue.take(run(first)).is_none());
}

#[test]
fn a_model_that_gathers_does_not_hold_up_another() {
    let gathers = Batching {
        max_rows: 100,
        max_delay: MINUTE,
    };
    let models = vec![ready(gathers, 1), ready(Batching::NONE, 1)];
    let (queue, mut asked) = (Arc::new(Queue::new(1)), Asked::of(models, 100));
    asked
        .ask(&queue, 0, Priority::Normal, (1, 1), 10 * MINUTE)
        .unwrap();
    let engine = Arc::clone(&queue);
    let taken = std::thread::spawn(move || jobs(engine.take(None))[0].ready.id);
    while !queue.lock().gathering {
        std::thread::yield_now();
    }
    asked.rows(&queue, 1, 1).unwrap();
    assert_eq!(taken.join().unwrap(), asked.models[1].id);
    assert_eq!(queue.len(), 1);
}
