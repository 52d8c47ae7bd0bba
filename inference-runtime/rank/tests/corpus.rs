//! Real exports (`corpus/make.py`): each runs in the interpreter and agrees with ONNX Runtime, or is refused with its reason.

mod support;

use rank::Model;
use rank::interpret;
use rank::onnx::NoExternalData;
use rank::pass::rows::Rows;
use rank::pass::vocabulary;
use rank::plan::{Options, Plan, Precision};
use rank::tensor::{Data, Tensor};
use support::{answers, content, inputs, models, tensors};

/// f32, sums in another order than ONNX Runtime's: relative to the larger of 1 and the answer.
const TOLERANCE: f32 = 2e-5;

/// Exports that are refused, and what the reason contains.
const REFUSED: &[(&str, &str)] = &[];

/// Exports whose rows depend on each other, and what the reason contains.
const LISTWISE: &[(&str, &str)] = &[
    ("in-batch-softmax.", "(Softmax) works across rows"),
    // nn.MultiheadAttention merges steps and rows into one axis, steps outside: not proved, so it runs whole.
    ("transformer.", "(Reshape) mixes rows: [11, N, 2, 8] to [11N, 16]"),
];

fn reason<'a>(table: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    table
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix))
        .map(|(_, reason)| *reason)
}

fn difference(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.shape, expected.shape);
    match (&got.data, &expected.data) {
        (Data::F32(got), Data::F32(expected)) => {
            let apart = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(1.0);
            got.iter().zip(expected).map(apart).fold(0.0, f32::max)
        }
        (got, expected) => {
            assert_eq!(got, expected);
            0.0
        }
    }
}

fn check(name: &str) -> Result<(), String> {
    let answers = answers(name);
    let model = match (
        Model::load(&content(name), &NoExternalData),
        reason(REFUSED, name),
    ) {
        (Ok(model), None) => model,
        (Ok(_), Some(_)) => return Err("is no longer refused".to_owned()),
        (Err(refusal), Some(reason)) if refusal.to_string().contains(reason) => return Ok(()),
        (Err(refusal), _) => return Err(format!("refused: {refusal}")),
    };
    match (&model.rows, reason(LISTWISE, name)) {
        (Rows::Independent, None) => {}
        (Rows::Listwise(reason), Some(expected)) if reason.contains(expected) => {}
        (rows, _) => return Err(format!("{rows:?}")),
    }
    let outputs =
        interpret::run(&model.graph, &inputs(&model, &answers)).map_err(|error| error.to_string())?;
    for ((name, expected), got) in tensors(&answers, "outputs").iter().zip(&outputs) {
        let difference = difference(got, expected);
        if difference.is_nan() || difference > TOLERANCE {
            return Err(format!("output {name:?} is off by {difference}"));
        }
    }
    Ok(())
}

#[test]
fn every_export_agrees_with_onnx_runtime_or_says_why_not() {
    let models = models();
    assert!(models.len() >= 50, "the corpus has {} exports", models.len());
    let failures: Vec<String> = models
        .iter()
        .filter_map(|name| check(name).err().map(|error| format!("{name}: {error}")))
        .collect();
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        models.len(),
        failures.join("\n")
    );
}

/// bf16: both factors of each product are off by up to 2^-9 = 0.002, in several layers. Relative to the larger of 1 and the answer.
const BF16_TOLERANCE: f32 = 0.01;

#[test]
fn every_export_in_bf16_agrees_with_onnx_runtime_within_its_tolerance() {
    let options = Options {
        precision: Precision::Bf16,
        ..Options::default()
    };
    let (mut checked, mut worst) = (0, Vec::new());
    for name in models() {
        let answers = answers(&name);
        let model = Model::load(&content(&name), &NoExternalData).unwrap();
        let Ok(plan) = Plan::compile(&model, &options) else {
            continue;
        };
        let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
        let inputs = inputs(&model, &answers);
        let segments = vec![0; inputs[0].shape[0]];
        plan.run(&inputs, &segments, &mut scratch, &mut outputs).unwrap();
        for ((_, expected), got) in tensors(&answers, "outputs").iter().zip(&outputs) {
            worst.push((difference(got, expected), name.clone()));
        }
        checked += 1;
    }
    worst.sort_by(|a, b| b.0.total_cmp(&a.0));
    assert!(checked >= 40, "{checked} exports have a plan in bf16");
    assert!(worst[0].0 <= BF16_TOLERANCE, "{worst:?}");
    // Something was rounded.
    assert!(worst[0].0 > 10.0 * TOLERANCE, "{worst:?}");
}

/// Exports whose columns have 5, 6, 7 ... ids, and the inputs that have them: in a table for each, or in parts of one.
const FIELDS: &[(&str, &[&str])] = &[
    ("dcn.", &["sparse"]),
    ("deepfm.", &["sparse"]),
    ("dlrm-dcnv2.", &["sparse"]),
    ("dlrm.", &["sparse"]),
    ("mmoe.", &["sparse"]),
    ("two-tower.", &["user", "item"]),
    ("wide-and-deep.", &["sparse"]),
    ("xdeepfm.", &["sparse"]),
];

#[test]
fn vocabularies_are_the_rows_of_the_tables() {
    let mut checked = 0;
    for name in models() {
        let Some((_, inputs)) = FIELDS.iter().find(|(prefix, _)| name.starts_with(prefix)) else {
            continue;
        };
        let model = support::load(&name);
        let found = vocabulary::infer(&model.graph, &model.rows);
        for input in *inputs {
            let own = found.iter().find(|vocabulary| vocabulary.input == *input);
            let own = own.unwrap_or_else(|| panic!("{name}: nothing is known of {input}"));
            let fields: Vec<Option<u64>> = (5..).take(own.sizes.len()).map(Some).collect();
            assert_eq!(own.sizes, fields, "{name}: {input}");
            checked += 1;
        }
    }
    assert!(checked >= 36, "{checked} inputs were looked at");
    // A history, of which paddings are marked, and a target in one table of 20 rows.
    let model = support::load("din.torchscript-17");
    let found = vocabulary::infer(&model.graph, &model.rows);
    let sizes: Vec<_> = found
        .into_iter()
        .flat_map(|vocabulary| vocabulary.sizes)
        .collect();
    assert_eq!(sizes, [Some(20); 11]);
}
