//! Parts of a run: for threads that have nothing else to do.

use std::ops::Range;

use super::*;
use crate::engine::{Begun, Outputs, RunError};
use crate::load::EngineClock;

/// Gives each pair's number.
struct Numbers;

impl Begun for Numbers {
    fn part(&self, pairs: Range<usize>, outputs: &mut Outputs) -> Result<(), RunError> {
        outputs.tensors = vec![Tensor {
            shape: vec![pairs.len()],
            data: Data::U64(pairs.map(|pair| pair as u64).collect()),
        }];
        Ok(())
    }
}

/// Two models, and a request of the first that a thread has begun in four parts.
fn begun(workers: usize) -> (Queue, Asked, Arc<Split>) {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 1)];
    let (queue, mut asked) = (Queue::new(workers), Asked::of(models, 100));
    asked.rows(&queue, 0, 8).unwrap();
    let run = Run::of(&jobs(queue.take(None))).unwrap();
    let split = Arc::new(Split::new(Box::new(Numbers), run, 8, 4));
    queue.share(&split);
    (queue, asked, split)
}

fn is_parts(work: Option<Work>) -> bool {
    matches!(work, Some(Work::Parts(_)))
}

#[test]
fn requests_come_before_parts_and_these_before_shadows() {
    let (queue, mut asked, split) = begun(3);
    assert!(asked.shadow(&queue, 1));
    asked.rows(&queue, 1, 1).unwrap();
    assert!(!jobs(queue.take(None))[0].shadow);
    assert!(is_parts(queue.take(None)));
    queue.unshare(&split);
    assert!(jobs(queue.take(None))[0].shadow);
}

#[test]
fn a_thread_leaves_after_a_part_when_a_request_waits() {
    // Of the same model, whose last engine it has; and of another.
    for model in [0, 1] {
        let (queue, mut asked, split) = begun(2);
        let run = split.run();
        for _ in 2..engines() {
            queue.lock().began(run.model);
        }
        assert!(is_parts(queue.take(None)));
        assert!(!queue.waits_for(run));
        asked.rows(&queue, model, 1).unwrap();
        let clock = EngineClock::default();
        split.work(&clock, || queue.waits_for(run));
        assert!(split.has_parts());
        assert_eq!(jobs(queue.take(Some(run)))[0].ready.id, asked.models[model].id);
        // Who began it goes on to its end.
        split.work(&clock, || false);
        let (outputs, _) = split.finish().unwrap();
        assert_eq!(outputs.tensors[0].data, Data::U64((0..8).collect()));
    }
}

#[test]
fn no_more_threads_than_rest_and_than_the_model_has_engines() {
    let (queue, asked, split) = begun(2);
    let model = &asked.models[0];
    assert_eq!(queue.sharers(model), 1);
    queue.lock().resting = 3;
    assert_eq!(queue.sharers(model), 4);
    for _ in 2..engines() {
        queue.lock().began(model.id);
    }
    assert_eq!(queue.sharers(model), 2);
    assert!(is_parts(queue.take(None)));
    assert_eq!(queue.sharers(model), 1);
    assert!(split.has_parts() && queue.lock().draw_parts().is_none());
}

#[test]
fn a_run_without_parts_left_is_no_work() {
    let (queue, _asked, split) = begun(2);
    split.work(&EngineClock::default(), || false);
    assert!(queue.lock().draw_parts().is_none());
    queue.close();
    assert!(queue.take(None).is_none());
}
