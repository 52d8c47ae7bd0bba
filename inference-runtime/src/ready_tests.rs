use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::engine::{Batch, Outputs, RunError};
use crate::protocol::request;
use crate::queue::Batching;

struct Idle;

impl Engine for Idle {
    fn run(&mut self, _: Batch, _: &mut Outputs) -> Result<(), RunError> {
        Ok(())
    }
}

/// A model of these engines, whose rows take a microsecond each.
pub fn with_engines(engines: Vec<Box<dyn Engine>>, batching: Batching, share: u32) -> Ready {
    let mut model = request::tests::model();
    let mut config = model.config.as_ref().clone();
    config.share = NonZeroU32::new(share).unwrap();
    model.config = Arc::new(config);
    model.batching = batching;
    let row = Duration::from_micros(1);
    Ready::new(
        Loaded {
            model,
            engines,
            row,
            part: None,
            inline: None,
        },
        Digest::of(b""),
        Gauge::default(),
    )
}

/// One that never runs.
pub fn ready(batching: Batching, share: u32) -> Arc<Ready> {
    let engines: Vec<Box<dyn Engine>> = (0..engines()).map(|_| Box::new(Idle) as _).collect();
    Arc::new(with_engines(engines, batching, share))
}

/// Engines of such a model.
pub fn engines() -> usize {
    8
}

pub fn named(name: &str, version: &str, batching: Batching) -> Arc<Ready> {
    let mut ready = with_engines(vec![Box::new(Idle)], batching, 1);
    name.clone_into(&mut ready.model.name);
    version.clone_into(&mut ready.model.version);
    Arc::new(ready)
}

#[test]
fn each_run_has_an_engine_for_itself() {
    let ready = with_engines(vec![Box::new(Idle), Box::new(Idle)], Batching::NONE, 1);
    let first = ready.engines.checkout(1).unwrap();
    let second = ready.engines.checkout(1).unwrap();
    assert!(ready.engines.try_checkout(0).is_none());
    drop(first);
    assert!(ready.engines.try_checkout(0).is_some());
    drop(second);
    assert!(Engines::default().checkout(3).is_none());
}

#[test]
fn counted_while_anyone_holds_it() {
    let in_memory = Gauge::default();
    let model = request::tests::model();
    let loaded = Loaded {
        model,
        engines: vec![],
        row: Duration::ZERO,
        part: None,
        inline: None,
    };
    let ready = Arc::new(Ready::new(loaded, Digest::of(b""), in_memory.clone()));
    let held = Arc::clone(&ready);
    drop(ready);
    assert_eq!(in_memory.get(), 1);
    drop(held);
    assert_eq!(in_memory.get(), 0);
}
