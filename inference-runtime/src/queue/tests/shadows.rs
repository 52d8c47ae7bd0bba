//! Shadows: when nothing else waits.

use super::*;

#[test]
fn shadows_run_when_nothing_else_waits_and_leave_one_thread() {
    let models = vec![ready(Batching::NONE, 1), ready(Batching::NONE, 1)];
    let (queue, mut asked) = (Queue::new(3), Asked::of(models, 100));
    for _ in 0..3 {
        assert!(asked.shadow(&queue, 1));
        asked.rows(&queue, 0, 1).unwrap();
    }
    let is_shadow = |work: Option<Work>| jobs(work)[0].shadow;
    for expected in [false, false, false, true, true] {
        assert_eq!(is_shadow(queue.take(None)), expected);
    }
    // Two of three threads have shadows; the third waits for requests.
    assert!(queue.lock().draw_shadow(2).is_none());
    asked.rows(&queue, 0, 1).unwrap();
    assert!(!is_shadow(queue.take(None)));
    let ended = Run {
        model: asked.models[1].id,
        shadow: true,
    };
    assert!(is_shadow(queue.take(Some(ended))));
}

#[test]
fn more_shadows_than_are_worth_their_memory_are_turned_away() {
    let (queue, mut asked) = queue(1, Duration::ZERO);
    for _ in 0..SHADOWS {
        assert!(asked.shadow(&queue, 0));
    }
    assert!(!asked.shadow(&queue, 0));
    asked.push(&queue, Priority::Low, (1, 1), MINUTE);
    assert!(!jobs(queue.take(None))[0].shadow);
    queue.close();
    // Who ends does not wait for them.
    assert!(queue.take(None).is_none());
}
