//! An infer answer: JSON, with binary tensors behind it where the client asked for them.

use std::io::Write as _;

use super::request::WantedOutput;
use super::{ApiError, check};
use crate::engine::{Data, Outputs};
use crate::model::ServedModel;
use crate::with_numbers;

#[derive(Debug, PartialEq)]
pub struct Answer {
    pub body: Vec<u8>,
    /// Length of the JSON part, when binary tensors follow it.
    pub header_length: Option<usize>,
}

const TAKES_ALL: &str = "a Vec takes all bytes";

/// Encodes the outputs that the client wants.
pub fn encode(
    model: &ServedModel,
    id: Option<&str>,
    wanted: &[WantedOutput],
    outputs: &Outputs,
) -> Result<Answer, ApiError> {
    let mut json = Vec::with_capacity(256);
    let mut binary = Vec::new();
    json.extend_from_slice(b"{\"model_name\":");
    string(&mut json, &model.name);
    json.extend_from_slice(b",\"model_version\":");
    string(&mut json, &model.version);
    if let Some(id) = id {
        json.extend_from_slice(b",\"id\":");
        string(&mut json, id);
    }
    json.extend_from_slice(b",\"outputs\":[");
    for (place, output) in wanted.iter().enumerate() {
        let (name, tensor) = check::computed(model, output.index, outputs)?;
        if place > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"name\":");
        string(&mut json, name);
        let (datatype, shape) = (tensor.data.datatype().name(), &tensor.shape);
        write!(json, ",\"datatype\":\"{datatype}\",\"shape\":{shape:?}").expect(TAKES_ALL);
        if output.binary {
            let before = binary.len();
            tensor.data.to_bytes(&mut binary);
            let size = binary.len() - before;
            write!(json, ",\"parameters\":{{\"binary_data_size\":{size}}}}}").expect(TAKES_ALL);
        } else {
            json.extend_from_slice(b",\"data\":");
            numbers(&mut json, name, &tensor.data)?;
            json.push(b'}');
        }
    }
    json.extend_from_slice(b"]}");
    if !wanted.iter().any(|output| output.binary) {
        return Ok(Answer {
            body: json,
            header_length: None,
        });
    }
    let header_length = Some(json.len());
    json.append(&mut binary);
    Ok(Answer {
        body: json,
        header_length,
    })
}

fn string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a string is JSON, and a Vec takes all bytes");
}

fn numbers(json: &mut Vec<u8>, name: &str, data: &Data) -> Result<(), ApiError> {
    // JSON has no NaN, and would give null for it.
    if let Some(index) = data.first_non_finite() {
        let message = format!("output {name:?} is NaN or infinity at element {index}; ask for binary output");
        return Err(ApiError::internal(message));
    }
    let written = with_numbers!(data,
        values => serde_json::to_writer(json, values),
        bool values => serde_json::to_writer(json, values));
    written.map_err(|error| ApiError::internal(format!("output {name:?}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Tensor;
    use crate::protocol::request::tests::model;

    fn outputs(values: Vec<f32>) -> Outputs {
        Outputs {
            tensors: vec![Tensor {
                shape: vec![values.len()],
                data: Data::F32(values),
            }],
        }
    }

    #[test]
    fn json_and_binary() {
        let json = [WantedOutput {
            index: 0,
            binary: false,
        }];
        let answer = encode(&model(), Some("a\"b"), &json, &outputs(vec![0.1, -2.0])).unwrap();
        assert_eq!(answer.header_length, None);
        assert_eq!(
            String::from_utf8(answer.body).unwrap(),
            r#"{"model_name":"m","model_version":"3","id":"a\"b","outputs":[{"name":"score","datatype":"FP32","shape":[2],"data":[0.1,-2.0]}]}"#
        );
        let binary = [WantedOutput {
            index: 0,
            binary: true,
        }];
        let answer = encode(&model(), None, &binary, &outputs(vec![1.0])).unwrap();
        let (head, tail) = answer.body.split_at(answer.header_length.unwrap());
        assert_eq!(tail, 1.0_f32.to_le_bytes());
        let head: serde_json::Value = serde_json::from_slice(head).unwrap();
        assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 4);
    }

    #[test]
    fn nan_is_an_error_not_null() {
        for binary in [false, true] {
            let wanted = [WantedOutput { index: 0, binary }];
            let error = encode(&model(), None, &wanted, &outputs(vec![f32::NAN])).unwrap_err();
            assert!(error.message.contains("score"));
        }
    }
}
