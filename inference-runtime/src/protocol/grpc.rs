//! Infer requests and answers of the gRPC service, to and from what the queue takes and gives.

use std::collections::HashMap;

use super::candidates::{self, Work};
use super::check;
use super::declared::{Declared, Form};
use super::request::{InferRequest, Terms, WantedOutput};
use super::{ApiError, pb, text};
use crate::cascade::Models;
use crate::engine::{Data, Datatype, Outputs, Tensor};
use crate::ids::InputRules;
use crate::model::ServedModel;
use pb::infer_parameter::ParameterChoice;
use pb::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use pb::model_infer_response::InferOutputTensor;

type Parameters = HashMap<String, pb::InferParameter>;

/// Checks a request against the model. Parameters that are not known here are ignored.
pub fn parse<'a>(
    request: pb::ModelInferRequest,
    models: impl Into<Models<'a>>,
) -> Result<InferRequest, ApiError> {
    let models = models.into();
    let given = |name| match request.parameters.contains_key(name) {
        true => unsigned(&request.parameters, name).map(Some),
        false => Ok(None),
    };
    let asked = candidates::Parameters {
        top_k: given("top_k")?,
        keep: given("keep")?,
    };
    let candidates = candidates::wanted(models, asked)?;
    let outputs = wanted(&request.outputs, models.model, candidates.k)?;
    let terms = Terms::new(
        unsigned(&request.parameters, "timeout")?,
        unsigned(&request.parameters, "priority")?,
    );
    check::tensor_count(request.inputs.len())?;
    let (inputs, raw) = (request.inputs, request.raw_input_contents);
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(ApiError::invalid(format!(
            "raw_input_contents has {} entries for {} inputs; send one for each input, or none",
            raw.len(),
            inputs.len()
        )));
    }
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let shared = input.parameters.contains_key("shared_memory_region");
        check::served("input", &input.name, shared)?;
        let name = input.name.clone();
        let rules = models.id_rules(&name);
        tensors.push((name, read_tensor(input, raw.next().as_deref(), rules)?));
    }
    let Work { batch, top_k, rest } = candidates::work(tensors, models, candidates)?;
    Ok(InferRequest {
        id: Some(request.id).filter(|id| !id.is_empty()),
        batch,
        top_k,
        rest,
        outputs,
        terms,
    })
}

fn wanted(
    outputs: &[InferRequestedOutputTensor],
    model: &ServedModel,
    top_k: Option<usize>,
) -> Result<Vec<WantedOutput>, ApiError> {
    if outputs.is_empty() {
        let all = 0..check::output_count(model, top_k);
        return Ok(all.map(|index| WantedOutput { index, binary: true }).collect());
    }
    check::tensor_count(outputs.len())?;
    let mut wanted = Vec::with_capacity(outputs.len());
    for output in outputs {
        let (name, parameters) = (&output.name, &output.parameters);
        check::served("output", name, parameters.contains_key("shared_memory_region"))?;
        check::classification(name, unsigned(parameters, "classification")?)?;
        let index = check::output(model, name, top_k, &wanted)?;
        wanted.push(WantedOutput { index, binary: true });
    }
    Ok(wanted)
}

/// A parameter that is a whole number from 0; 0 when it is not there.
fn unsigned(parameters: &Parameters, name: &str) -> Result<u64, ApiError> {
    let Some(choice) = parameters
        .get(name)
        .and_then(|value| value.parameter_choice.as_ref())
    else {
        return Ok(0);
    };
    let value = match choice {
        ParameterChoice::Uint64Param(value) => Some(*value),
        ParameterChoice::Int64Param(value) => u64::try_from(*value).ok(),
        _ => None,
    };
    value.ok_or_else(|| {
        ApiError::invalid(format!(
            "parameter {name:?} is {choice:?}; send int64_param or uint64_param, at least 0"
        ))
    })
}

fn read_tensor(
    input: InferInputTensor,
    raw: Option<&[u8]>,
    rules: Option<&InputRules>,
) -> Result<Tensor, ApiError> {
    let name = &input.name;
    let invalid = |what: String| ApiError::invalid(format!("input {name:?}: {what}"));
    let datatype = &input.datatype;
    let declared = Declared::new(name, datatype, &input.shape, rules)?;
    let (shape, count) = (&declared.shape, declared.count);
    let data = match (raw, input.contents) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "has contents beside raw_input_contents; send one of them".to_owned(),
            ));
        }
        (None, None) => {
            return Err(invalid("has neither contents nor raw_input_contents".to_owned()));
        }
        (Some(raw), None) => {
            if let Some(bytes) = declared.bytes().filter(|bytes| *bytes != raw.len()) {
                return Err(invalid(format!(
                    "raw_input_contents has {} bytes, shape {shape:?} of {datatype} has {bytes}",
                    raw.len()
                )));
            }
            declared.from_bytes(raw).map_err(invalid)?
        }
        (None, Some(contents)) => {
            let given = elements(&contents);
            let data = match declared.form {
                Form::Numbers(datatype) => declared.hashed(typed(datatype, contents).map_err(invalid)?),
                Form::Text(rules) => text::from_values(rules, &contents.bytes_contents),
            };
            if (data.count(), given) != (count, count) {
                return Err(invalid(format!(
                    "{} elements of contents are {datatype}, {given} in all; shape {shape:?} has {count}",
                    data.count()
                )));
            }
            data
        }
    };
    let shape = declared.shape;
    Ok(Tensor { shape, data })
}

fn elements(contents: &pb::InferTensorContents) -> usize {
    contents.bool_contents.len()
        + contents.int_contents.len()
        + contents.int64_contents.len()
        + contents.uint_contents.len()
        + contents.uint64_contents.len()
        + contents.fp32_contents.len()
        + contents.fp64_contents.len()
        + contents.bytes_contents.len()
}

/// The list that fits the datatype.
fn typed(datatype: Datatype, contents: pb::InferTensorContents) -> Result<Data, String> {
    Ok(match datatype {
        Datatype::Bool => Data::Bool(contents.bool_contents),
        Datatype::U8 => Data::U8(narrow(&contents.uint_contents)?),
        Datatype::U16 => Data::U16(narrow(&contents.uint_contents)?),
        Datatype::U32 => Data::U32(contents.uint_contents),
        Datatype::U64 => Data::U64(contents.uint64_contents),
        Datatype::I8 => Data::I8(narrow(&contents.int_contents)?),
        Datatype::I16 => Data::I16(narrow(&contents.int_contents)?),
        Datatype::I32 => Data::I32(contents.int_contents),
        Datatype::I64 => Data::I64(contents.int64_contents),
        Datatype::F32 => Data::F32(contents.fp32_contents),
        Datatype::F64 => Data::F64(contents.fp64_contents),
    })
}

fn narrow<W: Copy + std::fmt::Display, N: TryFrom<W>>(values: &[W]) -> Result<Vec<N>, String> {
    let narrow = |(index, value): (usize, &W)| {
        N::try_from(*value)
            .map_err(|_| format!("element {index} is {value}, which does not fit the datatype"))
    };
    values.iter().enumerate().map(narrow).collect()
}

/// The answer: values always in `raw_output_contents`.
pub fn encode(
    model: &ServedModel,
    id: Option<String>,
    wanted: &[WantedOutput],
    outputs: &Outputs,
) -> Result<pb::ModelInferResponse, ApiError> {
    let mut answer = pb::ModelInferResponse {
        model_name: model.name.clone(),
        model_version: model.version.clone(),
        id: id.unwrap_or_default(),
        ..Default::default()
    };
    for output in wanted {
        let (name, tensor) = check::computed(model, output.index, outputs)?;
        let size = |size: &usize| i64::try_from(*size).unwrap_or(i64::MAX);
        answer.outputs.push(InferOutputTensor {
            name: name.to_owned(),
            datatype: tensor.data.datatype().name().to_owned(),
            shape: tensor.shape.iter().map(size).collect(),
            ..Default::default()
        });
        let mut bytes = Vec::new();
        tensor.data.to_bytes(&mut bytes);
        answer.raw_output_contents.push(bytes.into());
    }
    Ok(answer)
}

#[cfg(test)]
#[path = "grpc_tests.rs"]
mod tests;
