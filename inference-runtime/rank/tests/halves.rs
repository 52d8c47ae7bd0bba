//! Inputs in bf16 are the same numbers in f32: not a bit of an answer changes.

#![allow(clippy::unwrap_used)] // of helpers outside of the tests themselves

mod support;

use rank::Model;
use rank::pass::hoist::Once;
use rank::plan::{InstructionSet, Options, Plan, Precision};
use rank::tensor::{Data, Tensor};
use support::{answers, bits, hoisted_inputs, inputs, load, models, rows, users};

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
    let wide = rows(&tensor.clone().into_wide(), picked);
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
