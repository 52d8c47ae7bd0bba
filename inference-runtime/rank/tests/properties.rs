//! A score does not depend on the batch it rode in, nor on how often the user was sent: bit by bit, on real exports.

#![allow(clippy::unwrap_used)] // of helpers outside of the tests themselves

mod support;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use proptest::prelude::*;
use rank::interpret::{run, run_segmented};
use rank::onnx::NoExternalData;
use rank::pass::domain::domains;
use rank::pass::hoist::hoist;
use rank::pass::rows::Rows;
use rank::tensor::Tensor;
use rank::{Model, optimize};
use support::{answers, bits, hoisted_inputs, inputs, load, models, rows, users};

/// Rows of each answer file.
const SAMPLES: usize = 5;

type Loaded = (Model, Vec<Tensor>);

static MODELS: LazyLock<Mutex<HashMap<String, Loaded>>> = LazyLock::new(Mutex::default);

fn loaded(name: &str) -> Loaded {
    let mut models = MODELS.lock().unwrap();
    let load = || {
        let model = load(name);
        let inputs = inputs(&model, &answers(name));
        (model, inputs)
    };
    models.entry(name.to_owned()).or_insert_with(load).clone()
}

/// Weights cannot break anything; a small file is mostly graph.
fn small() -> Vec<String> {
    models()
        .into_iter()
        .filter(|name| support::content(name).len() < 20_000)
        .collect()
}

fn of_rows(inputs: &[Tensor], picked: &[usize]) -> Vec<Tensor> {
    inputs.iter().map(|input| rows(input, picked)).collect()
}

fn independent() -> Vec<String> {
    models()
        .into_iter()
        .filter(|name| loaded(name).0.rows == Rows::Independent)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_split_batch_joined_again_is_the_batch(
        model in proptest::sample::select(independent()),
        picked in proptest::collection::vec(0..SAMPLES, 1..24),
        cut in any::<proptest::sample::Index>(),
    ) {
        let (model, inputs) = loaded(&model);
        let cut = cut.index(picked.len() + 1);
        let whole = run(&model.graph, &of_rows(&inputs, &picked)).unwrap();
        let mut joined = vec![Vec::new(); whole.len()];
        for part in [&picked[..cut], &picked[cut..]] {
            let part = run(&model.graph, &of_rows(&inputs, part)).unwrap();
            for (joined, part) in joined.iter_mut().zip(bits(&part)) {
                joined.extend(part);
            }
        }
        prop_assert_eq!(bits(&whole), joined);
    }

    #[test]
    fn a_user_sent_once_is_the_user_repeated(
        name in proptest::sample::select(independent().into_iter().filter(|name| users(name).is_some()).collect::<Vec<_>>()),
        requests in proptest::collection::vec(0..SAMPLES, 1..4),
        pairs in proptest::collection::vec((0..SAMPLES, any::<proptest::sample::Index>()), 1..16),
    ) {
        let (model, inputs) = loaded(&name);
        let once = users(&name).unwrap();
        let hoisted = hoist(&model.graph, &once).unwrap();
        let segments: Vec<usize> = pairs.iter().map(|(_, segment)| segment.index(requests.len())).collect();
        let items: Vec<usize> = pairs.iter().map(|(item, _)| *item).collect();
        let owners: Vec<usize> = segments.iter().map(|segment| requests[*segment]).collect();
        let pair_inputs = of_rows(&inputs, &items);
        let split = hoisted_inputs(&model, &once, &of_rows(&inputs, &requests), &pair_inputs);
        let repeated = hoisted_inputs(&model, &once, &of_rows(&inputs, &owners), &pair_inputs);
        let domains = domains(&hoisted.graph, &hoisted.request);
        let split = run_segmented(&hoisted.graph, &domains, &split, &segments).unwrap();
        prop_assert_eq!(bits(&split), bits(&run(&hoisted.graph, &repeated).unwrap()));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_damage_is_worse_than_a_refusal(
        model in proptest::sample::select(small()),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<bool>(),
    ) {
        let mut content = support::content(&model);
        for (position, byte) in &damage {
            let position = position.index(content.len());
            content[position] = *byte;
        }
        if cut {
            content.truncate(damage[0].0.index(content.len()));
        }
        // Whatever comes out, nothing panics.
        let _ = Model::load(&content, &NoExternalData);
    }
}

#[test]
fn what_is_emitted_is_what_was_hoisted() {
    let mut checked = 0;
    for name in models() {
        let Some(once) = users(&name) else { continue };
        let (model, inputs) = loaded(&name);
        let emitted = optimize(&support::content(&name), &NoExternalData, &once)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let emitted =
            Model::load(&emitted, &NoExternalData).unwrap_or_else(|error| panic!("{name}: {error}"));
        let hoisted = hoist(&model.graph, &once).unwrap();
        let user = of_rows(&inputs, &[2]);
        let split = hoisted_inputs(&model, &once, &user, &inputs);
        let domains = domains(&hoisted.graph, &hoisted.request);
        let expected = run_segmented(&hoisted.graph, &domains, &split, &[0; SAMPLES]).unwrap();
        let got = run(&emitted.graph, &split).unwrap_or_else(|error| panic!("{name}: {error}"));
        // Not bit by bit: ONNX has no product of more than two axes that begins at a start value.
        for (expected, got) in expected.iter().zip(&got) {
            let pairs = expected.as_f32().unwrap().iter().zip(got.as_f32().unwrap());
            let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                expected.shape == got.shape && worst < 2e-6,
                "{name} is off by {worst}"
            );
        }
        checked += 1;
    }
    assert!(checked >= 40, "{checked} exports have a user's side");
}
