//! A run whose pairs are scored in parts, at the same time and from one set of inputs, gives the bits of the whole run.

#![allow(clippy::unwrap_used)] // of helpers outside of the tests themselves

mod support;

use std::ops::Range;

use rank::Model;
use rank::pass::hoist::Once;
use rank::pass::rows::Rows;
use rank::plan::{Begun, InstructionSet, Options, Plan, Precision};
use rank::tensor::{Data, Tensor};
use support::{answers, hoisted_inputs, inputs, load, models, rows, users};

/// Rows of each answer file.
const SAMPLES: usize = 5;
const PAIRS: usize = 301;
/// Users of a batch of several lists.
const LISTS: usize = 3;

fn compile(model: &Model, once: &[(String, Once)], precision: Precision) -> Option<Plan> {
    let options = Options {
        once: once.to_vec(),
        precision,
        ..Options::default()
    };
    match Plan::compile(model, &options) {
        Err(reason) if reason.contains("nothing in it can be in bf16") => None,
        plan => Some(plan.unwrap()),
    }
}

fn picked(inputs: &[Tensor], rows_picked: impl Fn(usize) -> usize, count: usize) -> Vec<Tensor> {
    let picks: Vec<usize> = (0..count).map(rows_picked).collect();
    inputs.iter().map(|input| rows(input, &picks)).collect()
}

/// All pairs, cut at the given places.
fn parts(cuts: &[usize]) -> Vec<Range<usize>> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain(std::iter::once(PAIRS));
    starts.zip(ends).map(|(start, end)| start..end).collect()
}

/// Each part by a thread of its own, one after the other put together again.
fn in_parts(plan: &Plan, begun: &Begun, parts: &[Range<usize>]) -> Vec<Tensor> {
    let part = |pairs: &Range<usize>| {
        let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
        plan.part(begun, pairs.clone(), &mut scratch, &mut outputs)
            .unwrap();
        outputs
    };
    let scored: Vec<Vec<Tensor>> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts
            .iter()
            .map(|pairs| scope.spawn(move || part(pairs)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut whole = scored[0].clone();
    for part in &scored[1..] {
        for (whole, part) in whole.iter_mut().zip(part) {
            whole.shape[0] += part.shape[0];
            match (&mut whole.data, &part.data) {
                (Data::F32(all), Data::F32(more)) => all.extend(more),
                (Data::Int(all), Data::Int(more)) => all.extend(more),
                (Data::Bool(all), Data::Bool(more)) => all.extend(more),
                other => panic!("{other:?}"),
            }
        }
    }
    whole
}

/// Shapes, and numbers by their bits.
fn comparable(tensors: &[Tensor]) -> Vec<(Vec<usize>, Data)> {
    let bits = |data: &Data| match data {
        Data::F32(values) => Data::Int(values.iter().map(|x| i64::from(x.to_bits())).collect()),
        other => other.clone(),
    };
    let of = |tensor: &Tensor| (tensor.shape.clone(), bits(&tensor.data));
    tensors.iter().map(of).collect()
}

fn check(plan: &Plan, inputs: &[Tensor], segments: &[usize], which: &str) {
    let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
    plan.run(inputs, segments, &mut scratch, &mut outputs).unwrap();
    for cuts in [
        &[][..],
        &[150],
        &[1, 300],
        &[12, 24, 100, 100, 228],
        &[60, 120, 180, 240],
    ] {
        let begun = plan
            .begin(inputs.to_vec(), segments.to_vec(), &mut scratch)
            .unwrap();
        // The memory that the parts read is not that of the next run.
        plan.run(inputs, segments, &mut scratch, &mut Vec::new()).unwrap();
        let got = in_parts(plan, &begun, &parts(cuts));
        assert_eq!(comparable(&got), comparable(&outputs), "{which} cut at {cuts:?}");
    }
}

#[test]
fn every_export_gives_the_same_bits_in_parts() {
    let mut checked = 0;
    for name in models() {
        let model = load(&name);
        if model.rows != Rows::Independent {
            let plan = compile(&model, &[], Precision::F32).unwrap();
            assert_eq!(plan.least_part(), None, "{name}");
            continue;
        }
        let samples = inputs(&model, &answers(&name));
        let pairs = picked(&samples, |pair| (pair * 7 + pair / 5) % SAMPLES, PAIRS);
        for precision in [Precision::F32, Precision::Bf16] {
            let which = format!("{name} in {precision}");
            let Some(plan) = compile(&model, &[], precision) else {
                continue;
            };
            check(&plan, &pairs, &[0; PAIRS], &which);
            checked += 1;
            let Some(once) = users(&name) else { continue };
            let plan = compile(&model, &once, precision).unwrap();
            let lists = picked(&samples, |list| list % SAMPLES, LISTS);
            let sent = hoisted_inputs(&model, &once, &lists, &pairs);
            let segments: Vec<usize> = (0..PAIRS).map(|pair| pair * LISTS / PAIRS).collect();
            check(&plan, &sent, &segments, &format!("{which}, users once"));
        }
    }
    assert!(checked >= 80, "{checked} plans have parts");
}

#[test]
fn a_part_is_no_smaller_than_what_runs_at_a_time() {
    let model = load("dlrm.dynamo-20");
    for instruction_set in InstructionSet::available() {
        let options = Options {
            instruction_set,
            ..Options::default()
        };
        let plan = Plan::compile(&model, &options).unwrap();
        let least = plan.least_part().unwrap();
        assert!(plan.describe().contains(&format!("{least} pairs at a time")));
    }
}
