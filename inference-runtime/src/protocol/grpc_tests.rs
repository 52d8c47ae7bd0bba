use std::time::Duration;

use super::*;
use crate::priority::Priority;
use crate::protocol::request::tests::{hashed, model};

fn input(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: Option<pb::InferTensorContents>,
) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents,
        ..Default::default()
    }
}

fn parameters(entries: &[(&str, ParameterChoice)]) -> Parameters {
    let entry = |(name, choice): &(&str, ParameterChoice)| {
        let parameter_choice = Some(choice.clone());
        ((*name).to_owned(), pb::InferParameter { parameter_choice })
    };
    entries.iter().map(entry).collect()
}

fn typed_request() -> pb::ModelInferRequest {
    let ids = pb::InferTensorContents {
        int64_contents: vec![7, 8],
        ..Default::default()
    };
    let dense = pb::InferTensorContents {
        fp32_contents: vec![1.0, 2.0, 3.0, 4.5],
        ..Default::default()
    };
    pb::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![
            input("ids", "INT64", &[2, 1], Some(ids)),
            input("dense", "FP32", &[2, 2], Some(dense)),
        ],
        ..Default::default()
    }
}

fn raw_request() -> pb::ModelInferRequest {
    let mut request = typed_request();
    let ids: Vec<u8> = [7_i64, 8].iter().flat_map(|id| id.to_le_bytes()).collect();
    let dense: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.5]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    request.raw_input_contents = vec![ids.into(), dense.into()];
    for input in &mut request.inputs {
        input.contents = None;
    }
    request
}

#[test]
fn raw_and_typed_contents_are_the_same_request() {
    for mut request in [typed_request(), raw_request()] {
        request.id = "x".into();
        request.parameters = parameters(&[
            ("timeout", ParameterChoice::Int64Param(5000)),
            ("priority", ParameterChoice::Uint64Param(3)),
            (
                "triton_enable_empty_final_response",
                ParameterChoice::BoolParam(true),
            ),
        ]);
        let parsed = parse(request, &model()).unwrap();
        assert_eq!(parsed.id.as_deref(), Some("x"));
        assert_eq!(parsed.batch.rows, 2);
        assert_eq!(parsed.batch.inputs[0].data, Data::F32(vec![1.0, 2.0, 3.0, 4.5]));
        assert_eq!(parsed.batch.inputs[1].data, Data::I64(vec![7, 8]));
        assert_eq!(
            parsed.outputs,
            [WantedOutput {
                index: 0,
                binary: true
            }]
        );
        let terms = Terms {
            timeout: Some(Duration::from_millis(5)),
            priority: Priority::Low,
        };
        assert_eq!(parsed.terms, terms);
    }
    assert_eq!(parse(raw_request(), &model()).unwrap().terms, Terms::default());
}

#[test]
fn faults_are_named() {
    type Change = fn(&mut pb::ModelInferRequest);
    let raw: Vec<(&str, Change)> = vec![
        ("1 entries for 2 inputs", |r| drop(r.raw_input_contents.pop())),
        ("has 15 bytes", |r| r.raw_input_contents[0] = vec![0; 15].into()),
        ("beside raw_input_contents", |r| {
            r.inputs[0].contents = Some(Default::default())
        }),
        ("BYTES", |r| r.inputs[0].datatype = "BYTES".into()),
        ("negative", |r| r.inputs[0].shape = vec![-2, 1]),
        ("too large", |r| r.inputs[0].shape = vec![i64::MAX, 2]),
        ("takes [-1, 2]", |r| r.inputs[1].shape = vec![4]),
        ("\"ids\" is missing", |r| r.inputs[0].name = "x".into()),
        ("shared memory", |r| {
            let region = ParameterChoice::StringParam("r".into());
            r.inputs[0].parameters = parameters(&[("shared_memory_region", region)]);
        }),
        ("timeout", |r| {
            r.parameters = parameters(&[("timeout", ParameterChoice::Int64Param(-1))])
        }),
        ("priority", |r| {
            r.parameters = parameters(&[("priority", ParameterChoice::StringParam("1".into()))])
        }),
        ("\"x\" is not one of the model's", |r| {
            r.outputs = vec![InferRequestedOutputTensor {
                name: "x".into(),
                ..Default::default()
            }]
        }),
        ("twice", |r| {
            r.outputs = vec![
                InferRequestedOutputTensor {
                    name: "score".into(),
                    ..Default::default()
                };
                2
            ]
        }),
        ("classification", |r| {
            r.outputs = vec![InferRequestedOutputTensor {
                name: "score".into(),
                parameters: parameters(&[("classification", ParameterChoice::Int64Param(3))]),
            }]
        }),
    ];
    let typed: Vec<(&str, Change)> = vec![
        ("neither contents nor", |r| r.inputs[0].contents = None),
        ("0 elements of contents are FP32, 4 in all", |r| {
            let contents = r.inputs[1].contents.as_mut().unwrap();
            contents.fp64_contents = contents.fp32_contents.drain(..).map(f64::from).collect();
        }),
        ("4 elements of contents are FP32, 5 in all", |r| {
            r.inputs[1].contents.as_mut().unwrap().bool_contents.push(true)
        }),
        ("vocabulary", |r| {
            r.inputs[0].contents.as_mut().unwrap().int64_contents[1] = 10
        }),
        ("NaN", |r| {
            r.inputs[1].contents.as_mut().unwrap().fp32_contents[1] = f32::NAN
        }),
    ];
    let cases = raw.into_iter().map(|case| (raw_request(), case));
    for (mut request, (named, change)) in cases.chain(typed.into_iter().map(|case| (typed_request(), case))) {
        change(&mut request);
        let error = parse(request, &model()).unwrap_err();
        assert!(error.message.contains(named), "{named}: {}", error.message);
        assert_eq!(error.status, http::StatusCode::BAD_REQUEST);
    }
}

#[test]
fn every_datatype_has_its_list() {
    let contents = pb::InferTensorContents {
        bool_contents: vec![true],
        int_contents: vec![-7],
        int64_contents: vec![i64::MIN],
        uint_contents: vec![200],
        uint64_contents: vec![u64::MAX],
        fp32_contents: vec![0.5],
        fp64_contents: vec![-0.25],
        ..Default::default()
    };
    let expected = [
        Data::Bool(vec![true]),
        Data::U8(vec![200]),
        Data::U16(vec![200]),
        Data::U32(vec![200]),
        Data::U64(vec![u64::MAX]),
        Data::I8(vec![-7]),
        Data::I16(vec![-7]),
        Data::I32(vec![-7]),
        Data::I64(vec![i64::MIN]),
        Data::F32(vec![0.5]),
        Data::F64(vec![-0.25]),
    ];
    for (datatype, expected) in Datatype::ALL.iter().zip(expected) {
        assert_eq!(typed(*datatype, contents.clone()), Ok(expected));
    }
    let wide = pb::InferTensorContents {
        int_contents: vec![1, 128],
        uint_contents: vec![256],
        ..Default::default()
    };
    assert!(
        typed(Datatype::I8, wide.clone())
            .unwrap_err()
            .contains("element 1 is 128")
    );
    assert!(typed(Datatype::U8, wide).is_err());
}

#[test]
fn answers_are_raw() {
    let wanted = [WantedOutput {
        index: 0,
        binary: true,
    }];
    let outputs = |value: f32| Outputs {
        tensors: vec![Tensor {
            shape: vec![2],
            data: Data::F32(vec![value, 1.5]),
        }],
    };
    let answer = encode(&model(), Some("x".into()), &wanted, &outputs(0.25)).unwrap();
    assert_eq!(
        (
            answer.model_name.as_str(),
            answer.model_version.as_str(),
            answer.id.as_str()
        ),
        ("m", "3", "x")
    );
    assert_eq!(
        (answer.outputs[0].datatype.as_str(), &answer.outputs[0].shape),
        ("FP32", &vec![2])
    );
    assert_eq!(answer.raw_output_contents[0][..4], 0.25_f32.to_le_bytes());
    let error = encode(&model(), None, &wanted, &outputs(f32::NAN)).unwrap_err();
    assert!(error.message.contains("score"));
}

#[test]
fn text_is_hashed_in_both_forms() {
    let mut typed = typed_request();
    typed.inputs[0].datatype = "BYTES".into();
    typed.inputs[0].contents = Some(pb::InferTensorContents {
        bytes_contents: vec![b"4711".to_vec(), b"abc".to_vec()],
        ..Default::default()
    });
    let mut raw = raw_request();
    raw.inputs[0].datatype = "BYTES".into();
    raw.raw_input_contents[0] = b"\x04\0\0\x004711\x03\0\0\0abc".to_vec().into();
    let mut short = raw.clone();
    short.raw_input_contents[0].truncate(14);
    let mut more = typed.clone();
    more.inputs[0].shape = vec![3, 1];
    for request in [typed, raw] {
        let parsed = parse(request.clone(), &hashed()).unwrap();
        assert_eq!(parsed.batch.inputs[1].data, Data::I64(vec![21, 385]));
        assert!(
            parse(request, &model())
                .unwrap_err()
                .message
                .contains("\"BYTES\" is not one of")
        );
    }
    let error = parse(short, &hashed()).unwrap_err().message;
    assert!(
        error.contains("\"ids\": element 1 of 2 has 3 bytes by its length, 2 are left"),
        "{error}"
    );
    let error = parse(more, &hashed()).unwrap_err().message;
    assert!(
        error.contains("2 elements of contents are BYTES, 2 in all; shape [3, 1] has 3"),
        "{error}"
    );
}
