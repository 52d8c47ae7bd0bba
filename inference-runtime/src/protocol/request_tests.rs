use std::sync::Arc;

use super::*;
use crate::engine::{Chosen, Data, Datatype, Dim, Layout, Signature, TensorSpec};
use crate::ids::IdRules;
use crate::model::config::ModelConfig;
use crate::model::top_k::TopK;
use crate::queue::Batching;

pub fn model() -> ServedModel {
    configured("inputs: {ids: {vocabularies: [10]}}\ntopK: {ids: ids}")
}

/// The same model, whose ids are hashed.
pub fn hashed() -> ServedModel {
    configured("inputs: {ids: {vocabularies: [1000], policies: [{hash: farmhash64}]}}")
}

/// The same model, with more in its configuration.
pub fn configured(more: &str) -> ServedModel {
    let rows = || Dim::Named("n".into());
    let spec = TensorSpec::new;
    let signature = Signature {
        inputs: vec![
            spec("dense", Datatype::F32, vec![rows(), Dim::Fixed(2)]),
            spec("ids", Datatype::I64, vec![rows(), Dim::Fixed(1)]),
        ],
        outputs: vec![spec("score", Datatype::F32, vec![rows()])],
    };
    let layout = Layout::new(&signature, &[]).unwrap();
    let config = ModelConfig::parse(&format!("device: cpu\nmaxBatchSize: 3\n{more}")).unwrap();
    let ids = IdRules::new(&config, (&signature, &layout), &[]).unwrap();
    ServedModel {
        name: "m".into(),
        version: "3".into(),
        top_k: TopK::of(&config, &signature, &layout).unwrap(),
        ids: Arc::new(ids),
        signature: Arc::new(signature),
        layout: Arc::new(layout),
        chosen: Arc::new(Chosen::RANK),
        config: Arc::new(config),
        items: None,
        batching: Batching {
            max_rows: 3,
            max_delay: Duration::from_millis(2),
        },
    }
}

const DENSE: &str = r#"{"name":"dense","shape":[2,2],"datatype":"FP32","data":[1,2,3,4.5]}"#;
const IDS: &str = r#"{"name":"ids","shape":[2,1],"datatype":"INT64","data":[[7],[8]]}"#;

fn body(inputs: &[&str], rest: &str) -> Vec<u8> {
    format!(r#"{{"inputs":[{}]{rest}}}"#, inputs.join(",")).into_bytes()
}

#[test]
fn json_in_any_order() {
    let text = body(
        &[IDS, DENSE],
        r#","id":"x","parameters":{"timeout":5000,"priority":1,"triton_enable_empty_final_response":true}"#,
    );
    let request = parse(&text, None, &model()).unwrap();
    assert_eq!(request.id.as_deref(), Some("x"));
    assert_eq!(
        request.terms,
        Terms {
            timeout: Some(Duration::from_millis(5)),
            priority: Priority::High
        }
    );
    assert_eq!(request.batch.rows, 2);
    assert_eq!(request.batch.inputs[0].data, Data::F32(vec![1.0, 2.0, 3.0, 4.5]));
    assert_eq!(request.batch.inputs[1].data, Data::I64(vec![7, 8]));
    assert_eq!(
        request.outputs,
        [WantedOutput {
            index: 0,
            binary: false
        }]
    );
}

fn binary(sizes: [usize; 2], tail: &[u8]) -> Result<InferRequest, ApiError> {
    let dense = format!(
        r#"{{"name":"dense","shape":[1,2],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}"#,
        sizes[0]
    );
    let ids = format!(
        r#"{{"name":"ids","shape":[1,1],"datatype":"INT64","parameters":{{"binary_data_size":{}}}}}"#,
        sizes[1]
    );
    let mut text = body(
        &[&dense, &ids],
        r#","outputs":[{"name":"score","parameters":{"binary_data":true}}]"#,
    );
    let length = text.len();
    text.extend_from_slice(tail);
    parse(&text, Some(length), &model())
}

#[test]
fn binary_tensors_follow_the_json() {
    let mut tail = Vec::new();
    tail.extend(1.5_f32.to_le_bytes());
    tail.extend((-2.0_f32).to_le_bytes());
    tail.extend(9_i64.to_le_bytes());
    let request = binary([8, 8], &tail).unwrap();
    assert_eq!(request.batch.inputs[0].data, Data::F32(vec![1.5, -2.0]));
    assert_eq!(request.batch.inputs[1].data, Data::I64(vec![9]));
    assert!(request.outputs[0].binary);
    for (sizes, tail) in [
        ([8, 8], &tail[..15]),
        ([8, 8], &tail[..0]),
        ([4, 8], &tail[..12]),
        ([8, 16], &[0; 24][..]),
    ] {
        assert!(
            binary(sizes, tail)
                .unwrap_err()
                .message
                .contains("binary_data_size"),
            "{sizes:?}"
        );
    }
    tail.push(0);
    assert!(
        binary([8, 8], &tail)
            .unwrap_err()
            .message
            .contains("1 bytes are left")
    );
    assert!(
        parse(b"{}", Some(3), &model())
            .unwrap_err()
            .message
            .contains("Inference-Header-Content-Length")
    );
    assert!(parse(b"{}", Some(usize::MAX), &model()).is_err());
}

fn refused(cases: Vec<(Vec<u8>, &str)>) {
    let model = model();
    cases
        .iter()
        .for_each(|(text, named)| refused_by(&model, text, named));
}

fn refused_by(model: &ServedModel, text: &[u8], named: &str) {
    let error = parse(text, None, model).unwrap_err();
    assert_eq!(error.status, http::StatusCode::BAD_REQUEST);
    assert!(
        error.message.contains(named),
        "wanted {named:?}, got {:?}",
        error.message
    );
}

#[test]
fn broken_bodies_and_names_are_refused() {
    refused(vec![
        (b"".to_vec(), "not an infer request"),
        (b"\xff".to_vec(), "not an infer request"),
        (b"[]".to_vec(), "not an infer request"),
        (b"{}".to_vec(), "inputs"),
        ("[".repeat(100_000).into_bytes(), "not an infer request"),
        (body(&vec![DENSE; 1025], ""), "at most 1024 tensors"),
        (body(&[], ""), "\"dense\" is missing"),
        (body(&[DENSE], ""), "\"ids\" is missing"),
        (body(&[DENSE, IDS, IDS], ""), "\"ids\" is there twice"),
        (
            body(&[DENSE, IDS, &IDS.replace("\"ids\"", "\"x\"")], ""),
            "\"x\" is not one of",
        ),
        (
            body(&[DENSE, IDS], r#","outputs":[{"name":"x"}]"#),
            "\"x\" is not one of",
        ),
        (
            body(&[DENSE, IDS], r#","outputs":[{"name":"score"},{"name":"score"}]"#),
            "twice",
        ),
        (
            body(
                &[DENSE, IDS],
                r#","outputs":[{"name":"score","parameters":{"classification":2}}]"#,
            ),
            "classification",
        ),
    ]);
}

#[test]
fn tensors_that_do_not_fit_are_refused() {
    let dense = |change: (&str, &str)| body(&[&DENSE.replace(change.0, change.1), IDS], "");
    let ids = |change: (&str, &str)| body(&[DENSE, &IDS.replace(change.0, change.1)], "");
    let data = "\"data\":[1,2,3,4.5]";
    let four = [
        DENSE
            .replace("[2,2]", "[4,2]")
            .replace("[1,2,3,4.5]", "[1,2,3,4,5,6,7,8]"),
        IDS.replace("[2,1]", "[4,1]").replace("[[7],[8]]", "[1,2,3,4]"),
    ];
    refused(vec![
        (dense(("FP32", "FP64")), "takes FP32"),
        (dense(("FP32", "BYTES")), "BYTES"),
        (dense(("[2,2]", "[4]")), "takes [-1, 2]"),
        (dense(("[2,2]", "[4,1]")), "takes [-1, 2]"),
        (
            dense(("[2,2]", "[-2,2]")),
            "\"dense\": shape [-2, 2] has a negative",
        ),
        (dense(("[2,2]", "[2,3]")), "6 elements"),
        (
            dense(("[2,2]", "[4611686018427387904,4611686018427387904]")),
            "too large",
        ),
        (dense(("[2,2]", "[4611686018427387904,1]")), "too large"),
        (dense(("[2,2]", "[1073741824,2]")), "2147483648 elements"),
        (dense(("4.5", "\"a\"")), "dense"),
        (dense((data, "\"data\":null")), "dense"),
        (dense((",\"data\":[1,2,3,4.5]", "")), "neither data nor"),
        (
            dense((data, "\"parameters\":{\"shared_memory_region\":\"r\"}")),
            "shared memory",
        ),
        (ids(("[[7],[8]]", "[7,10]")), "vocabulary"),
        (ids(("[[7],[8]]", "[7,-1]")), "vocabulary"),
        (ids(("[[7],[8]]", "[7,1.5]")), "INT64"),
        (ids(("[2,1]", "[1,1]")), "more than 1 elements"),
        (
            body(
                &[DENSE, &IDS.replace("[2,1]", "[1,1]").replace("[[7],[8]]", "[7]")],
                "",
            ),
            "\"n\" is 1 here and 2",
        ),
        (body(&[&four[0], &four[1]], ""), "maxBatchSize"),
    ]);
}

#[test]
fn zero_rows_are_refused() {
    let empty = |tensor: &str, data: &str| tensor.replace("[2,", "[0,").replace(data, "[]");
    let text = body(&[&empty(DENSE, "[1,2,3,4.5]"), &empty(IDS, "[[7],[8]]")], "");
    assert!(
        parse(&text, None, &model())
            .unwrap_err()
            .message
            .contains("at least 1")
    );
}

#[test]
fn the_best_are_asked_for() {
    let asked = |rest: &str| parse(&body(&[IDS, DENSE], rest), None, &model());
    for (rest, k) in [
        ("", None),
        (r#","parameters":{"top_k":0}"#, None),
        (r#","parameters":{"top_k":1}"#, Some(1)),
        (r#","parameters":{"top_k":99}"#, Some(2)),
    ] {
        let request = asked(rest).unwrap();
        assert_eq!(request.top_k.as_ref().map(|asked| asked.k), k, "{rest}");
        assert_eq!(request.outputs.len(), 1 + usize::from(k.is_some()));
        if let Some(asked) = request.top_k {
            assert_eq!(asked.ids, Data::I64(vec![7, 8]));
        }
    }
    let only_ids = r#","parameters":{"top_k":1},"outputs":[{"name":"ids"}]"#;
    assert_eq!(asked(only_ids).unwrap().outputs[0].index, 1);
    let error = asked(r#","outputs":[{"name":"ids"}]"#).unwrap_err();
    assert!(error.message.contains("\"ids\" is not one"), "{error}");
    let mut unknown = model();
    unknown.top_k = None;
    let text = body(&[IDS, DENSE], r#","parameters":{"top_k":1}"#);
    assert!(
        parse(&text, None, &unknown)
            .unwrap_err()
            .message
            .contains("topK.ids")
    );
}

#[test]
fn a_user_sent_once_is_one_row() {
    let mut model = model();
    let once = rank::parse_once(&["dense"]).unwrap();
    model.layout = Arc::new(Layout::new(&model.signature, &once).unwrap());
    let user = r#"{"name":"dense","shape":[1,2],"datatype":"FP32","data":[1,2]}"#;
    let repeated = r#"{"name":"dense","shape":[2,2],"datatype":"FP32","data":[1,2,1,2]}"#;
    let batch = |dense| parse(&body(&[dense, IDS], ""), None, &model).unwrap().batch;
    assert_eq!(batch(user), batch(repeated));
    assert_eq!((batch(user).rows, batch(user).lists), (2, vec![2]));
    assert_eq!(batch(DENSE).lists, [1, 1]);
    let three = r#"{"name":"dense","shape":[3,2],"datatype":"FP32","data":[1,2,1,2,1,2]}"#;
    let error = parse(&body(&[three, IDS], ""), None, &model).unwrap_err();
    assert!(
        error.message.contains("its first dimension is 1, or 2"),
        "{error}"
    );
}

/// The rows of 4711 and "abc" among 1,000, by farmhash64.
const HASHED: [i64; 2] = [21, 385];

fn texts(shape: &str, rest: &str) -> String {
    format!(r#"{{"name":"ids","shape":{shape},"datatype":"BYTES",{rest}}}"#)
}

#[test]
fn hashed_inputs_are_numbers_or_text() {
    let numbers = r#"{"name":"ids","shape":[2,1],"datatype":"INT64","data":[4711,-5]}"#;
    let request = parse(&body(&[DENSE, numbers], ""), None, &hashed()).unwrap();
    assert_eq!(request.batch.inputs[1].data, Data::I64(vec![HASHED[0], 816]));
    let text = texts("[2,1]", r#""data":[["4711"],["abc"]]"#);
    let request = parse(&body(&[DENSE, &text], ""), None, &hashed()).unwrap();
    assert_eq!(request.batch.inputs[1].data, Data::I64(HASHED.to_vec()));
    let binary = texts("[2,1]", r#""parameters":{"binary_data_size":15}"#);
    let mut bytes = body(&[DENSE, &binary], "");
    let length = bytes.len();
    bytes.extend(b"\x04\0\0\x004711\x03\0\0\0abc");
    let request = parse(&bytes, Some(length), &hashed()).unwrap();
    assert_eq!(request.batch.inputs[1].data, Data::I64(HASHED.to_vec()));
}

#[test]
fn text_is_refused_where_it_does_not_fit() {
    for (text, served, named) in [
        (
            texts("[2,1]", r#""data":["a","b"]"#),
            model(),
            "\"ids\": datatype \"BYTES\" is not one of BOOL",
        ),
        (
            texts("[2,1]", r#""data":["a"]"#),
            hashed(),
            "2 elements: 1 elements",
        ),
        (
            texts("[1,2]", r#""data":["a","b"]"#),
            hashed(),
            "\"ids\": shape is [1, 2]",
        ),
        (
            texts("[4611686018427387904]", r#""data":[]"#),
            hashed(),
            "too large",
        ),
        (texts("[2,1]", r#""data":[1,2]"#), hashed(), "expected a string"),
        (
            texts("[2,1]", r#""parameters":{"binary_data_size":9}"#),
            hashed(),
            "0 bytes are left of the body",
        ),
    ] {
        refused_by(&served, &body(&[DENSE, &text], ""), named);
    }
}

#[test]
fn ids_of_other_candidates_are_refused() {
    let mut model = model();
    let mut signature = Signature::clone(&model.signature);
    // Nothing says that the inputs have as many rows as one another.
    for spec in &mut signature.inputs {
        spec.dims[0] = Dim::Any;
    }
    model.layout = Arc::new(Layout::new(&signature, &[]).unwrap());
    model.signature = Arc::new(signature);
    let one = r#"{"name":"ids","shape":[1,1],"datatype":"INT64","data":[7]}"#;
    let best = r#","parameters":{"top_k":1}"#;
    assert!(parse(&body(&[DENSE, IDS], best), None, &model).is_ok());
    let error = parse(&body(&[DENSE, one], best), None, &model).unwrap_err();
    assert_eq!(error.status.as_u16(), 400);
    assert!(
        error
            .message
            .starts_with("input \"ids\": shape is [1, 1]; its first dimension is 2"),
        "{error}"
    );
}
