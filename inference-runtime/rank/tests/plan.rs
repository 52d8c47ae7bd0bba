//! Compiled plans give the interpreter's bits, on every instruction set, however pairs and users come together.

#![allow(clippy::unwrap_used)] // of helpers outside of the tests themselves

#[path = "plan/inspect.rs"]
mod inspect;
#[path = "plan/refusals.rs"]
mod refusals;
mod support;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use proptest::prelude::*;
use rank::Model;
use rank::interpret::{run, run_segmented};
use rank::pass::domain::domains;
use rank::pass::hoist::{Once, hoist};
use rank::pass::rows::Rows;
use rank::plan::{InstructionSet, Options, Plan, Precision};
use rank::tensor::{Data, Tensor};
use support::{answers, bf16, hoisted_inputs, inputs, load, models, rows, users};

/// Rows of each answer file.
const SAMPLES: usize = 5;

/// Bits, whichever NaN a NaN is.
fn bits(tensors: &[Tensor]) -> Vec<Data> {
    let canonical = |x: &f32| i64::from(if x.is_nan() { f32::NAN } else { *x }.to_bits());
    let of = |tensor: &Tensor| match &tensor.data {
        Data::F32(values) => Data::Int(values.iter().map(canonical).collect()),
        other => other.clone(),
    };
    tensors.iter().map(of).collect()
}

fn compile(
    model: &Model,
    once: &[(String, Once)],
    instruction_set: InstructionSet,
    precision: Precision,
) -> Plan {
    let options = Options {
        once: once.to_vec(),
        instruction_set,
        precision,
    };
    Plan::compile(model, &options).unwrap()
}

fn run_plan(plan: &Plan, inputs: &[Tensor], segments: &[usize]) -> Vec<Tensor> {
    let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
    plan.run(inputs, segments, &mut scratch, &mut outputs).unwrap();
    outputs
}

fn picked(inputs: &[Tensor], rows_picked: &[usize]) -> Vec<Tensor> {
    inputs.iter().map(|input| rows(input, rows_picked)).collect()
}

/// More rows than a block takes: the samples over and over.
fn many(rows: usize) -> Vec<usize> {
    (0..rows).map(|row| (row * 7 + row / 5) % SAMPLES).collect()
}

struct Loaded {
    model: Model,
    inputs: Vec<Tensor>,
    once: Option<Vec<(String, Once)>>,
    /// f32 first; bf16 where something is in it.
    compiled: Vec<Compiled>,
}

/// A plan for each instruction set.
struct Compiled {
    precision: Precision,
    plans: Vec<Plan>,
    once_plans: Vec<Plan>,
}

impl Compiled {
    /// What the plans must give.
    fn expected(&self, model: &Model, inputs: &[Tensor]) -> Vec<Tensor> {
        match self.precision {
            Precision::F32 => run(&model.graph, inputs).unwrap(),
            Precision::Bf16 => {
                let row = |row: usize| bf16::run_row(&model.graph, &picked(inputs, &[row])).unwrap();
                bf16::stacked(&(0..SAMPLES).map(row).collect::<Vec<_>>())
            }
        }
    }

    fn name(&self, plan: &Plan) -> String {
        format!("{} in {}", plan.instruction_set(), self.precision)
    }
}

static MODELS: LazyLock<Mutex<HashMap<String, Arc<Loaded>>>> = LazyLock::new(Mutex::default);

fn loaded(name: &str) -> Arc<Loaded> {
    let mut models = MODELS.lock().unwrap();
    let load = || {
        let model = load(name);
        let inputs = inputs(&model, &answers(name));
        let once = users(name);
        let mut precisions = vec![Precision::F32];
        let independent = model.rows == Rows::Independent;
        if independent && bf16::run_row(&model.graph, &picked(&inputs, &[0])).is_some() {
            precisions.push(Precision::Bf16);
        }
        let compiled = |precision: Precision| {
            let all = |once: &[(String, Once)]| -> Vec<Plan> {
                let sets = InstructionSet::available().into_iter();
                sets.map(|set| compile(&model, once, set, precision)).collect()
            };
            Compiled {
                precision,
                plans: all(&[]),
                once_plans: once.as_deref().map(all).unwrap_or_default(),
            }
        };
        let compiled = precisions.into_iter().map(compiled).collect();
        Arc::new(Loaded {
            model,
            inputs,
            once,
            compiled,
        })
    };
    models.entry(name.to_owned()).or_insert_with(load).clone()
}

fn independent() -> Vec<String> {
    let names = models().into_iter();
    names
        .filter(|name| loaded(name).model.rows == Rows::Independent)
        .collect()
}

#[test]
fn every_export_gives_the_bits_of_the_interpreter() {
    let mut in_bf16 = 0;
    for name in models() {
        let loaded = loaded(&name);
        in_bf16 += loaded.compiled.len() - 1;
        let listwise = loaded.model.rows != Rows::Independent;
        for compiled in &loaded.compiled {
            let expected = compiled.expected(&loaded.model, &loaded.inputs);
            for plan in &compiled.plans {
                let which = format!("{name} on {}", compiled.name(plan));
                let got = run_plan(plan, &loaded.inputs, &[0; SAMPLES]);
                let shapes = |tensors: &[Tensor]| tensors.iter().map(|t| t.shape.clone()).collect::<Vec<_>>();
                assert_eq!(shapes(&got), shapes(&expected), "{which}");
                assert_eq!(bits(&got), bits(&expected), "{which}");
                if listwise {
                    continue;
                }
                for count in [0, 1, 6, 13, 301] {
                    let rows = many(count);
                    let got = run_plan(plan, &picked(&loaded.inputs, &rows), &vec![0; count]);
                    let each = picked(&expected, &rows);
                    assert_eq!(bits(&got), bits(&each), "{count} rows of {which}");
                }
            }
        }
    }
    assert!(
        in_bf16 >= 40,
        "{in_bf16} exports have a product with a constant matrix"
    );
}

#[test]
fn memory_of_a_run_does_not_leak_into_the_next() {
    for name in independent() {
        let loaded = loaded(&name);
        for compiled in &loaded.compiled {
            let expected = compiled.expected(&loaded.model, &loaded.inputs);
            let plan = compiled.plans.last().unwrap();
            let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
            for count in [40, 3, 0, 17] {
                let rows = many(count);
                plan.run(
                    &picked(&loaded.inputs, &rows),
                    &vec![0; count],
                    &mut scratch,
                    &mut outputs,
                )
                .unwrap();
                assert_eq!(bits(&outputs), bits(&picked(&expected, &rows)), "{name}");
            }
        }
    }
}

/// Numbers that arithmetic treats in its own way.
fn odd(input: &Tensor) -> Tensor {
    let special = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        -0.0,
        1e-40,
        -1e-39,
        f32::MAX,
        f32::MIN_POSITIVE,
    ];
    match &input.data {
        Data::F32(values) => {
            let spoilt = values.iter().enumerate().map(|(at, value)| match at % 11 {
                at if at < special.len() && at % 2 == 0 => special[at],
                at if at < special.len() => value * special[at],
                _ => *value,
            });
            Tensor::f32(input.shape.clone(), spoilt.collect())
        }
        _ => input.clone(),
    }
}

#[test]
fn nan_infinity_and_denormals_come_out_as_the_interpreter_says() {
    for name in models() {
        let loaded = loaded(&name);
        let inputs: Vec<Tensor> = loaded.inputs.iter().map(odd).collect();
        for compiled in &loaded.compiled {
            let expected = compiled.expected(&loaded.model, &inputs);
            for plan in &compiled.plans {
                let got = run_plan(plan, &inputs, &[0; SAMPLES]);
                assert_eq!(bits(&got), bits(&expected), "{name} on {}", compiled.name(plan));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn a_score_does_not_depend_on_its_batch(
        name in proptest::sample::select(independent()),
        rows in proptest::collection::vec(0..SAMPLES, 1..90),
        cut in any::<proptest::sample::Index>(),
        (precision, set) in any::<(proptest::sample::Index, proptest::sample::Index)>(),
    ) {
        let loaded = loaded(&name);
        let compiled = precision.get(&loaded.compiled);
        let plan = set.get(&compiled.plans);
        let expected = compiled.expected(&loaded.model, &loaded.inputs);
        let cut = cut.index(rows.len() + 1);
        for part in [&rows[..], &rows[..cut], &rows[cut..]] {
            let got = run_plan(plan, &picked(&loaded.inputs, part), &vec![0; part.len()]);
            prop_assert_eq!(bits(&got), bits(&picked(&expected, part)));
        }
    }

    #[test]
    fn a_user_sent_once_is_the_user_repeated(
        name in proptest::sample::select(independent().into_iter().filter(|name| users(name).is_some()).collect::<Vec<_>>()),
        requests in proptest::collection::vec(0..SAMPLES, 1..5),
        pairs in proptest::collection::vec((0..SAMPLES, any::<proptest::sample::Index>()), 0..90),
        (precision, set) in any::<(proptest::sample::Index, proptest::sample::Index)>(),
    ) {
        let loaded = loaded(&name);
        let Some(once) = &loaded.once else { return Ok(()) };
        let compiled = precision.get(&loaded.compiled);
        let plan = set.get(&compiled.once_plans);
        let segments: Vec<usize> = pairs.iter().map(|(_, segment)| segment.index(requests.len())).collect();
        let items: Vec<usize> = pairs.iter().map(|(item, _)| *item).collect();
        let owners: Vec<usize> = segments.iter().map(|segment| requests[*segment]).collect();
        let pair_inputs = picked(&loaded.inputs, &items);
        let split = hoisted_inputs(&loaded.model, once, &picked(&loaded.inputs, &requests), &pair_inputs);
        let repeated = hoisted_inputs(&loaded.model, once, &picked(&loaded.inputs, &owners), &pair_inputs);
        let hoisted = hoist(&loaded.model.graph, once).unwrap();
        let domains = domains(&hoisted.graph, &hoisted.request);
        let each: Vec<usize> = (0..items.len()).collect();
        let expected = match compiled.precision {
            Precision::F32 => run_segmented(&hoisted.graph, &domains, &split, &segments).unwrap(),
            // An empty batch has nothing to compare.
            Precision::Bf16 if items.is_empty() => return Ok(()),
            Precision::Bf16 => {
                let row = |pair: &usize| bf16::run_row(&hoisted.graph, &picked(&repeated, &[*pair])).unwrap();
                bf16::stacked(&each.iter().map(row).collect::<Vec<_>>())
            }
        };
        prop_assert_eq!(bits(&run_plan(plan, &split, &segments)), bits(&expected));
        prop_assert_eq!(bits(&run_plan(plan, &repeated, &each)), bits(&expected));
    }
}

#[test]
fn a_run_allocates_nothing_after_the_first() {
    let mut checked = 0;
    for name in independent() {
        let loaded = loaded(&name);
        for compiled in &loaded.compiled {
            let plan = compiled.plans.last().unwrap();
            if plan.describe().contains("interpreter") {
                continue;
            }
            let inputs = picked(&loaded.inputs, &many(100));
            let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
            let mut run = || plan.run(&inputs, &[0; 100], &mut scratch, &mut outputs).unwrap();
            run();
            let allocations = allocation_counter::measure(run).count_total;
            assert_eq!(allocations, 0, "{name} on {}", compiled.name(plan));
            checked += 1;
        }
    }
    assert!(checked >= 80, "{checked} plans have a kernel for every step");
}

#[test]
fn no_export_is_slow() {
    for name in independent() {
        let loaded = loaded(&name);
        for plan in loaded
            .compiled
            .iter()
            .flat_map(|one| one.plans.iter().chain(&one.once_plans))
        {
            assert_eq!(plan.slow(), None, "{name}:\n{}", plan.describe());
        }
    }
}
