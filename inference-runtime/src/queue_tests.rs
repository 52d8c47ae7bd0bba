use super::*;
use crate::admission::{Admission, Limits};
use crate::engine::{Data, Tensor};

const MINUTE: Duration = Duration::from_secs(60);

fn queue(max_rows: usize, max_delay: Duration) -> Queue {
    Queue::new(Batching { max_rows, max_delay })
}

struct Asked {
    admission: Arc<Admission>,
    receivers: Vec<oneshot::Receiver<Result<Done, ApiError>>>,
}

impl Asked {
    fn new() -> Self {
        let limits = Limits {
            requests: 100,
            bytes: 100,
            workers: 1,
        };
        Self {
            admission: Admission::new(limits),
            receivers: Vec::new(),
        }
    }

    /// A request whose only input has `rows` rows of `width`; its id is its number.
    fn push(&mut self, queue: &Queue, priority: Priority, (rows, width): (usize, usize), left: Duration) {
        let (answer, receiver) = oneshot::channel();
        let input = Tensor {
            shape: vec![rows, width],
            data: Data::U8(vec![0; rows * width]),
        };
        let permit = self
            .admission
            .admit(self.receivers.len(), Duration::from_secs(1))
            .unwrap();
        permit
            .enter_queue(priority, Duration::from_secs(1), || false)
            .unwrap();
        self.receivers.push(receiver);
        let queued = Instant::now();
        queue.push(Job {
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
        });
    }
}

/// The numbers of the requests of a batch: each counted its number as bytes.
fn numbers(jobs: Option<Vec<Job>>) -> Vec<usize> {
    jobs.unwrap().iter().map(|job| job.permit.bytes()).collect()
}

#[test]
fn higher_classes_first_and_up_to_the_limit() {
    use Priority::{High, Low, Normal};
    let (queue, mut asked) = (queue(5, Duration::ZERO), Asked::new());
    for priority in [Low, Normal, Normal, High, Low] {
        asked.push(&queue, priority, (2, 3), MINUTE);
    }
    assert_eq!(queue.len(), 5);
    assert_eq!(numbers(queue.take()), [3, 1]);
    assert_eq!(numbers(queue.take()), [2, 0]);
    assert_eq!(numbers(queue.take()), [4]);
    queue.close();
    assert!(queue.take().is_none());
}

#[test]
fn only_what_fits_is_joined() {
    let (queue, mut asked) = (queue(8, Duration::ZERO), Asked::new());
    for shape in [(2, 3), (2, 4), (9, 3), (1, 3), (2, 4)] {
        asked.push(&queue, Priority::Normal, shape, MINUTE);
    }
    assert_eq!(numbers(queue.take()), [0, 3]);
    assert_eq!(numbers(queue.take()), [1, 4]);
    assert_eq!(numbers(queue.take()), [2]);
}

#[test]
fn nothing_is_joined_with_a_limit_of_one() {
    let (queue, mut asked) = (queue(1, Duration::ZERO), Asked::new());
    for rows in [1, 4, 1] {
        asked.push(&queue, Priority::Normal, (rows, 1), MINUTE);
    }
    for number in 0..3 {
        assert_eq!(numbers(queue.take()), [number]);
    }
}

#[test]
fn an_engine_leaves_their_share_to_those_that_rest() {
    for (max_delay, taken) in [(Duration::ZERO, 2), (MINUTE, 4)] {
        let (queue, mut asked) = (queue(100, max_delay), Asked::new());
        for _ in 0..4 {
            asked.push(&queue, Priority::Normal, (1, 1), MINUTE);
        }
        let mut waiting = queue.lock();
        waiting.resting = 1;
        assert_eq!(queue.draw(&mut waiting).len(), taken);
    }
}

#[test]
fn a_delay_ends_with_a_full_batch_or_with_time() {
    let (queue, mut asked) = (Arc::new(queue(3, MINUTE)), Asked::new());
    let gatherer = Arc::clone(&queue);
    let full = std::thread::spawn(move || numbers(gatherer.take()));
    for _ in 0..3 {
        asked.push(&queue, Priority::Normal, (1, 1), 10 * MINUTE);
    }
    assert_eq!(full.join().unwrap(), [0, 1, 2]);
    // Half of the time that a request has, if that is less than the delay.
    let left = Duration::from_millis(20);
    asked.push(&queue, Priority::Normal, (1, 1), left);
    let jobs = queue.take();
    let job = &jobs.as_ref().unwrap()[0];
    assert_eq!(job.leave_by(MINUTE), job.queued + left / 2);
    assert_eq!(numbers(jobs), [3]);
}

#[test]
fn the_newest_of_the_lowest_class_is_shed() {
    use Priority::{High, Low, Normal};
    let (queue, mut asked) = (queue(8, Duration::ZERO), Asked::new());
    for priority in [Low, Low, Normal, High] {
        asked.push(&queue, priority, (1, 1), MINUTE);
    }
    assert!(!queue.shed_below(Low));
    assert!(queue.shed_below(Normal));
    let refused = asked.receivers[1].try_recv().unwrap().err().unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.outcome),
        (429, "refused_priority")
    );
    assert!(queue.shed_below(High) && queue.shed_below(High) && !queue.shed_below(High));
    assert!(asked.receivers[0].try_recv().unwrap().is_err());
    assert!(asked.receivers[2].try_recv().unwrap().is_err());
    assert_eq!((asked.admission.requests(), queue.len()), (1, 1));
    assert_eq!(numbers(queue.take()), [3]);
}
