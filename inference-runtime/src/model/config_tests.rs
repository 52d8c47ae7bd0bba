use super::*;
use crate::engine::{Data, Datatype, Dim, TensorSpec};
use crate::ids::PolicyKeys;

fn signature() -> Signature {
    let dims = vec![Dim::Named("n".into()), Dim::Fixed(2)];
    let input = |name: &str, datatype| TensorSpec {
        name: name.into(),
        datatype,
        dims: dims.clone(),
    };
    Signature {
        inputs: vec![input("dense", Datatype::F32), input("sparse", Datatype::I64)],
        outputs: vec![input("score", Datatype::F32)],
    }
}

#[test]
fn unknown_keys_are_named() {
    for (text, named) in [
        ("devise: cpu", "devise"),
        ("device: tpu", "tpu"),
        ("precision: fp8", "precision: \"fp8\" is neither f32 nor bf16"),
        ("instructionSet: avx2", "instructionSet"),
        ("inputs: {sparse: {vocabulary: [1]}}", "vocabulary"),
        ("maxBatchSize: 0", "maxBatchSize"),
        ("maxBatchSize: many", "maxBatchSize"),
        ("- a", "config.yaml"),
        ("batching: {maxRows: 1}", "maxRows"),
        ("batching: {maxBatchSize: 0}", "batching.maxBatchSize"),
        (
            "{maxBatchSize: 8, batching: {maxBatchSize: 9}}",
            "batching.maxBatchSize is 9",
        ),
        ("batching: {maxQueueDelay: 5}", "maxQueueDelay"),
        ("batching: {maxQueueDelay: soon}", "soon"),
        (
            "inputs: {dense: {nonFinite: dropCandidate}}",
            "expected `refuse` or `allow`",
        ),
    ] {
        let failure = ModelConfig::parse(text).unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid);
        assert!(failure.message.contains(named), "{text}: {}", failure.message);
    }
}

#[test]
fn batching_by_config_and_signature() {
    let batching = |text: &str, signature: &Signature| {
        let batching = ModelConfig::parse(text).unwrap().batching(signature);
        (batching.max_rows, batching.max_delay.as_micros())
    };
    assert_eq!(batching("", &signature()), (256, 0));
    assert_eq!(batching("maxBatchSize: 64", &signature()), (64, 0));
    let text = "batching: {maxBatchSize: 512, maxQueueDelay: 0.5ms}";
    assert_eq!(batching(text, &signature()), (512, 500));
    let mut fixed = signature();
    fixed.inputs[0].dims[0] = Dim::Fixed(2);
    assert_eq!(batching(text, &fixed), (1, 0));
}

#[test]
fn defaults_want_a_gpu() {
    assert_eq!(ModelConfig::parse("").unwrap().device, Device::Gpu);
    assert_eq!(ModelConfig::parse("device: cpu").unwrap().device, Device::Cpu);
}

#[test]
fn names_must_be_the_models() {
    for (text, named) in [
        ("inputs: {spars: {}}", "inputs.spars"),
        ("outputs: {scores: {}}", "outputs.scores"),
        (
            "outputs: {score: {nonFinite: dropCandidate}}",
            "outputs.score.nonFinite: dropCandidate needs topK",
        ),
    ] {
        let failure = ModelConfig::parse(text).unwrap().check(&signature()).unwrap_err();
        assert!(failure.message.contains(named), "{text}: {}", failure.message);
    }
    let known = ModelConfig::parse("inputs: {sparse: {vocabularies: [7, 8]}}");
    known.unwrap().check(&signature()).unwrap();
}

#[test]
fn nan_is_refused() {
    let config = ModelConfig::default();
    let dense = Tensor {
        shape: vec![1, 2],
        data: Data::F32(vec![0.0, f32::NAN]),
    };
    let (element, message) = config.not_finite("dense", "dense", &dense).unwrap();
    assert_eq!(element, 1);
    assert!(message.contains("element 1"), "{message}");
    assert!(config.refuse_output("score", &dense).is_err());
}

/// Keys that a part of the configuration knows: its own error lists them.
fn keys<T: serde::de::DeserializeOwned>() -> Vec<String> {
    let error = serde_yaml::from_str::<T>("'?': 1")
        .map(|_| ())
        .unwrap_err()
        .to_string();
    let expected = error.split_once("expected").unwrap().1;
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_key_is_in_the_reference() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/runtime-config.md");
    let page = std::fs::read_to_string(page).unwrap();
    let parts = [
        ("", keys::<ModelConfig>()),
        ("batching.", keys::<BatchingConfig>()),
        ("inputs.NAME.", keys::<InputConfig>()),
        ("inputs.NAME.policies.", keys::<PolicyKeys>()),
        ("outputs.NAME.", keys::<OutputConfig>()),
        ("topK.", keys::<TopKConfig>()),
        ("itemTable.", keys::<ItemTableConfig>()),
        ("shadow.", keys::<ShadowConfig>()),
        ("cascade.", keys::<CascadeConfig>()),
    ];
    let mut documented: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    for (prefix, keys) in &parts {
        assert!(!keys.is_empty());
        for key in keys {
            let key = format!("{prefix}{key}");
            // Of a part, its own keys are listed.
            if !parts
                .iter()
                .any(|(other, _)| other.split('.').next() == Some(&key))
            {
                assert!(
                    documented.contains(&key.as_str()),
                    "{key} is not in the reference"
                );
                documented.retain(|documented| *documented != key);
            }
        }
    }
    assert!(documented.is_empty(), "no such keys: {documented:?}");
}
