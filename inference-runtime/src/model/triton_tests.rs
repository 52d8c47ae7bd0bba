use super::*;
use crate::engine::{Datatype, Dim};

const FULL: &str = r#"
name: "ranker"
platform: "onnxruntime_onnx"
max_batch_size: 64
input [
  { name: "dense" data_type: TYPE_FP32 dims: [ 13 ] },
  { name: "sparse" data_type: TYPE_INT64 dims: [ -1 ] }
]
output { name: "score" data_type: TYPE_FP32 dims: [] }
dynamic_batching { preferred_batch_size: [ 8, 32 ] max_queue_delay_microseconds: 500 }
instance_group [ { kind: KIND_CPU count: 2 } ]
version_policy: { specific { versions: [ 3, 1 ] } }
"#;

fn signature() -> Signature {
    let rows = || Dim::Named("n".into());
    let spec = TensorSpec::new;
    Signature {
        inputs: vec![
            spec("dense", Datatype::F32, vec![rows(), Dim::Fixed(13)]),
            spec("sparse", Datatype::I64, vec![rows(), Dim::Fixed(26)]),
        ],
        outputs: vec![spec("score", Datatype::F32, vec![rows()])],
    }
}

fn parse(text: &str) -> TritonConfig {
    TritonConfig::parse(text, "ranker").unwrap()
}

#[test]
fn the_usual_subset() {
    let config = parse(FULL);
    assert_eq!(config.instances, Some(2));
    assert_eq!(config.policy, Policy::Specific(vec![1, 3]));
    config.check(&signature()).unwrap();
    let model = config.model_config();
    assert_eq!((model.device, model.max_batch_size), (Device::Cpu, 64));
    assert_eq!(model.batching.max_batch_size, Some(32));
    assert_eq!(model.batching.max_queue_delay, Duration::from_micros(500));
    let none = parse("");
    assert_eq!((none.instances, none.policy.clone()), (None, Policy::Latest(1)));
    let model = none.model_config();
    assert_eq!((model.device, model.max_batch_size), (Device::Gpu, 4096));
    assert_eq!(model.batching.max_batch_size, Some(1));
    assert_eq!(
        parse("dynamic_batching {}")
            .model_config()
            .batching
            .max_batch_size,
        None
    );
}

#[test]
fn what_is_not_read_is_named_with_a_remedy() {
    for (text, named) in [
        (
            "optimization { graph { level: 1 } }",
            "optimization is not read here; remove it",
        ),
        (
            "input { name: \"x\" reshape { shape: [1] } }",
            "input.reshape is not read",
        ),
        (
            "instance_group [ { gpus: [0] } ]",
            "instance_group.gpus is not read",
        ),
        (
            "dynamic_batching { priority_levels: 2 }",
            "dynamic_batching.priority_levels is not read",
        ),
        (
            "version_policy { newest {} }",
            "version_policy.newest is not read",
        ),
        ("name: \"other\"", "it is \"ranker\", as the folder is"),
        ("platform: \"tensorrt_plan\"", "it is \"onnxruntime_onnx\""),
        ("backend: \"python\"", "it is \"onnxruntime\""),
        ("instance_group { kind: KIND_AUTO }", "say KIND_CPU or KIND_GPU"),
        (
            "instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU } ]",
            "both kinds",
        ),
        ("instance_group { count: 0 }", "at least 1"),
        ("max_batch_size: -1", "whole number"),
        ("max_batch_size: \"4\"", "whole number"),
        ("name: ranker", "in quotes"),
        ("input: 3", "in braces"),
        (
            "max_batch_size: 4 dynamic_batching { preferred_batch_size: [8] }",
            "at most max_batch_size, 4",
        ),
        ("version_policy { latest { num_versions: 0 } }", "at least 1"),
        ("max_batch_size", "config.pbtxt: line 1"),
    ] {
        let failure = TritonConfig::parse(text, "ranker").unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid);
        assert!(failure.message.contains(named), "{text}: {}", failure.message);
    }
}

#[test]
fn dims_and_types_are_the_models() {
    for (from, to, named) in [
        (
            "dims: [ 13 ]",
            "dims: [ 12 ]",
            "dims are [12], the model's are [13] without the batch",
        ),
        ("dims: [ 13 ]", "dims: [ -1, 13 ]", "dims are [-1, 13]"),
        (
            "TYPE_INT64",
            "TYPE_INT32",
            "data_type is TYPE_INT32, the model's is TYPE_INT64",
        ),
        ("\"sparse\"", "\"ids\"", "it has dense, sparse"),
        ("\"score\"", "\"scores\"", "it has score"),
        (
            "max_batch_size: 64",
            "max_batch_size: 0",
            "the model's are [-1, 13]",
        ),
    ] {
        let text = FULL
            .replace("preferred_batch_size: [ 8, 32 ]", "")
            .replace(from, to);
        let failure = parse(&text).check(&signature()).unwrap_err();
        assert!(failure.message.contains(named), "{to}: {}", failure.message);
    }
    let mut fixed = signature();
    fixed.outputs[0].dims = vec![Dim::Fixed(1)];
    let failure = parse("max_batch_size: 2").check(&fixed).unwrap_err();
    assert!(failure.message.contains("say 0"));
    parse("").check(&fixed).unwrap();
}

#[test]
fn versions_by_policy() {
    let there = [1, 2, 5];
    assert_eq!(Policy::Latest(1).choose(&there).unwrap(), [5]);
    assert_eq!(Policy::Latest(9).choose(&there).unwrap(), [1, 2, 5]);
    assert_eq!(Policy::All.choose(&there).unwrap(), [1, 2, 5]);
    assert_eq!(Policy::Specific(vec![2]).choose(&there).unwrap(), [2]);
    let failure = Policy::Specific(vec![2, 3]).choose(&there).unwrap_err();
    assert!(failure.message.contains("version 3"));
}
