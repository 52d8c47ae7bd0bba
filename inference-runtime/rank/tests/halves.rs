//! Inputs in bf16 are the same numbers in f32: not a bit of an answer changes.

#![allow(clippy::unwrap_used)] // of helpers outside of the tests themselves

mod support;

use rank::Model;
use rank::ir::{Binary, Extent, Fact, Graph, Op};
use rank::pass::hoist::Once;
use rank::pass::rows;
use rank::plan::{InstructionSet, Options, Plan, Precision};
use rank::tensor::{Data, Element, Tensor};
use support::{answers, bits, hoisted_inputs, inputs, load, models, users};

/// Rows of each answer file.
const SAMPLES: usize = 5;

/// The upper half of each number alone, in f32 and in bf16; other types as they are.
fn halved(tensor: &Tensor) -> (Tensor, Tensor) {
    let Data::F32(values) = &tensor.data else {
        return (tensor.clone(), tensor.clone());
    };
    let upper = |value: &f32| u16::try_from(value.to_bits() >> 16).unwrap();
    let halves: Vec<u16> = values.iter().map(upper).collect();
    let half = Tensor::bf16(tensor.shape.clone(), halves);
    (half.clone().into_wide(), half)
}

fn compare(model: &Model, once: &[(String, Once)], given: &[Tensor], name: &str) {
    let (wide, half): (Vec<Tensor>, Vec<Tensor>) = given.iter().map(halved).unzip();
    for precision in [Precision::F32, Precision::Bf16] {
        for instruction_set in InstructionSet::available() {
            let options = Options {
                once: once.to_vec(),
                instruction_set,
                precision,
            };
            // Not every model has a plan in bf16.
            let Ok(plan) = Plan::compile(model, &options) else {
                continue;
            };
            let run = |inputs: &[Tensor], segments: &[usize]| {
                let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
                // Twice: what the first run leaves is overwritten.
                for _ in 0..2 {
                    plan.run(inputs, segments, &mut scratch, &mut outputs).unwrap();
                }
                bits(&outputs)
            };
            // With a user of its own for each pair, if there are users; and else in more rows than a block has.
            let owner = |row: usize| if once.is_empty() { 0 } else { row };
            let each: Vec<usize> = (0..SAMPLES).map(owner).collect();
            let (one, many) = ([0], (0..301).map(|row| row % SAMPLES).collect::<Vec<_>>());
            let which = format!("{name} on {instruction_set} in {precision}");
            assert_eq!(run(&half, &each), run(&wide, &each), "{which}");
            if once.is_empty() && *plan.rows() == rank::pass::rows::Rows::Independent {
                for picked in [&one[..], &many] {
                    let of = |inputs: &[Tensor]| -> Vec<Tensor> {
                        inputs.iter().map(|input| pick(input, picked)).collect()
                    };
                    let (half, wide) = (of(&half), of(&wide));
                    let segments = vec![0; picked.len()];
                    assert_eq!(run(&half, &segments), run(&wide, &segments), "{which}");
                }
            }
        }
    }
}

fn pick(tensor: &Tensor, picked: &[usize]) -> Tensor {
    let wide = support::rows(&tensor.clone().into_wide(), picked);
    match tensor.data {
        Data::Bf16(_) => halved(&wide).1,
        _ => wide,
    }
}

#[test]
fn every_export_takes_its_inputs_in_bf16() {
    let mut once_too = 0;
    for name in models() {
        let model = load(&name);
        let given = inputs(&model, &answers(&name));
        compare(&model, &[], &given, &name);
        if let Some(once) = users(&name) {
            let split = hoisted_inputs(&model, &once, &given, &given);
            compare(&model, &once, &split, &name);
            once_too += 1;
        }
    }
    assert!(once_too >= 40, "{once_too} exports have a user's side");
}

/// A thread that scores a part has nothing in its memory of what the run began with.
#[test]
fn a_part_reads_the_users_input_that_came_in_bf16() {
    let mut graph = Graph::default();
    let mut input = |name| graph.add_input(name, Fact::new(Element::F32, vec![Extent::N, Extent::fixed(2)]));
    let (user, item) = (input("user"), input("item"));
    let product = graph
        .push_one("product", Op::Binary(Binary::Mul), &[user, item])
        .unwrap();
    graph.outputs.push(product);
    let rows = rows::prove(&graph);
    let options = Options {
        once: vec![("user".to_owned(), Once::Whole)],
        instruction_set: InstructionSet::Portable,
        precision: Precision::F32,
    };
    let plan = Plan::compile(&Model { graph, rows }, &options).unwrap();
    let half = |values: &[f32]| halved(&Tensor::f32(vec![values.len() / 2, 2], values.to_vec())).1;
    let inputs = vec![half(&[2.0, 3.0]), half(&[1.0, 2.0, 3.0, 4.0])];
    let begun = plan.begin(inputs, vec![0, 0], &mut plan.scratch()).unwrap();
    let mut outputs = Vec::new();
    plan.part(&begun, 1..2, &mut plan.scratch(), &mut outputs)
        .unwrap();
    assert_eq!(outputs[0].as_f32().unwrap(), [6.0, 12.0]);
}
