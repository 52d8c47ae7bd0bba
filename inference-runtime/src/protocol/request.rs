//! An infer request: parsed once, into a batch in which every shape, type and value is what the model takes.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{ApiError, values};
use crate::engine::{Batch, Datatype, Dim, Tensor, TensorSpec, tensor};
use crate::model::ServedModel;

/// Tensors of one request; no ranking model has as many.
const MAX_TENSORS: usize = 1024;

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: RequestParameters,
    #[serde(borrow)]
    inputs: Vec<RawTensor<'a>>,
    #[serde(default)]
    outputs: Option<Vec<RawOutput>>,
}

// Unknown parameters are ignored: clients send some of their own (`triton_enable_empty_final_response`).
#[derive(Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
    /// Microseconds.
    #[serde(default)]
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct RawTensor<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: TensorParameters,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct TensorParameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
    #[serde(default)]
    shared_memory_region: Option<String>,
}

#[derive(Deserialize)]
struct RawOutput {
    name: String,
    #[serde(default)]
    parameters: OutputParameters,
}

#[derive(Default, Deserialize)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    classification: Option<u64>,
    #[serde(default)]
    shared_memory_region: Option<String>,
}

/// An output the client wants, by its place in the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedOutput {
    pub index: usize,
    pub binary: bool,
}

#[derive(Debug)]
pub struct InferRequest {
    pub id: Option<String>,
    pub batch: Batch,
    pub outputs: Vec<WantedOutput>,
    /// The client's own deadline, from now.
    pub timeout: Option<Duration>,
}

/// Parses a body; `header_length` is `Inference-Header-Content-Length`, the JSON's part of it.
pub fn parse(
    body: &[u8],
    header_length: Option<usize>,
    model: &ServedModel,
) -> Result<InferRequest, ApiError> {
    let (json, binary) = match header_length {
        None => (body, &[][..]),
        Some(length) => body.split_at_checked(length).ok_or_else(|| {
            ApiError::invalid(format!(
                "Inference-Header-Content-Length is {length}, the body has {} bytes; send the length of the JSON part",
                body.len()
            ))
        })?,
    };
    let raw: RawRequest<'_> = serde_json::from_slice(json)
        .map_err(|error| ApiError::invalid(format!("the body is not an infer request: {error}")))?;
    let outputs = wanted(&raw, model)?;
    let tensors = tensors(&raw.inputs, binary)?;
    let batch = batch(tensors, model)?;
    Ok(InferRequest {
        id: raw.id,
        batch,
        outputs,
        timeout: raw.parameters.timeout.map(Duration::from_micros),
    })
}

/// The outputs of an answer, as a sample's known answer has them.
pub fn parse_outputs(body: &[u8]) -> Result<Vec<(String, Tensor)>, ApiError> {
    #[derive(Deserialize)]
    struct RawAnswer<'a> {
        #[serde(borrow)]
        outputs: Vec<RawTensor<'a>>,
    }
    let raw: RawAnswer<'_> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is not an infer answer: {error}")))?;
    tensors(&raw.outputs, &[])
}

fn wanted(raw: &RawRequest<'_>, model: &ServedModel) -> Result<Vec<WantedOutput>, ApiError> {
    let all = || 0..model.signature.outputs.len();
    let binary = raw.parameters.binary_data_output;
    let Some(outputs) = raw.outputs.as_ref().filter(|outputs| !outputs.is_empty()) else {
        return Ok(all().map(|index| WantedOutput { index, binary }).collect());
    };
    let mut wanted: Vec<WantedOutput> = Vec::with_capacity(outputs.len().min(MAX_TENSORS));
    for output in outputs {
        let index = all().find(|index| model.signature.outputs[*index].name == output.name);
        let index = index.ok_or_else(|| {
            let known = names(&model.signature.outputs);
            ApiError::invalid(format!(
                "output {:?} is not one of the model's: {known}",
                output.name
            ))
        })?;
        if wanted.iter().any(|other| other.index == index) {
            return Err(ApiError::invalid(format!(
                "output {:?} is asked for twice",
                output.name
            )));
        }
        refuse_shared_memory(
            "output",
            &output.name,
            output.parameters.shared_memory_region.as_deref(),
        )?;
        if output.parameters.classification.is_some_and(|count| count > 0) {
            let message = format!(
                "output {:?}: the classification extension is not served",
                output.name
            );
            return Err(ApiError::invalid(message));
        }
        wanted.push(WantedOutput {
            index,
            binary: output.parameters.binary_data.unwrap_or(binary),
        });
    }
    Ok(wanted)
}

fn refuse_shared_memory(what: &str, name: &str, region: Option<&str>) -> Result<(), ApiError> {
    match region {
        Some(_) => Err(ApiError::invalid(format!(
            "{what} {name:?}: shared memory is not served; send the tensor"
        ))),
        None => Ok(()),
    }
}

fn tensors(raw: &[RawTensor<'_>], binary: &[u8]) -> Result<Vec<(String, Tensor)>, ApiError> {
    if raw.len() > MAX_TENSORS {
        return Err(ApiError::invalid(format!(
            "{} tensors; at most {MAX_TENSORS} are taken",
            raw.len()
        )));
    }
    let mut rest = binary;
    let mut tensors = Vec::with_capacity(raw.len());
    for tensor in raw {
        refuse_shared_memory(
            "input",
            &tensor.name,
            tensor.parameters.shared_memory_region.as_deref(),
        )?;
        let value = read_tensor(tensor, &mut rest)?;
        tensors.push((tensor.name.clone(), value));
    }
    if !rest.is_empty() {
        return Err(ApiError::invalid(format!(
            "{} bytes are left after the last binary tensor; binary_data_size of the inputs must add up",
            rest.len()
        )));
    }
    Ok(tensors)
}

fn read_tensor(raw: &RawTensor<'_>, rest: &mut &[u8]) -> Result<Tensor, ApiError> {
    let name = &raw.name;
    let invalid = |what: String| ApiError::invalid(format!("input {name:?}: {what}"));
    let datatype = Datatype::parse(&raw.datatype).ok_or_else(|| {
        let known: Vec<&str> = Datatype::ALL.iter().map(|datatype| datatype.name()).collect();
        invalid(format!(
            "datatype {:?} is not one of {}",
            raw.datatype,
            known.join(", ")
        ))
    })?;
    let shape: Result<Vec<usize>, _> = raw.shape.iter().map(|size| usize::try_from(*size)).collect();
    let shape = shape.map_err(|_| invalid(format!("shape {:?} has a negative dimension", raw.shape)))?;
    let count = shape
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size));
    let bytes = count.and_then(|count| count.checked_mul(datatype.size()));
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(invalid(format!("shape {:?} is too large", raw.shape)));
    };
    let data = match (raw.parameters.binary_data_size, raw.data) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "has both data and binary_data_size; send one of them".to_owned(),
            ));
        }
        (None, None) => return Err(invalid("has neither data nor binary_data_size".to_owned())),
        (Some(size), None) => {
            if size != bytes {
                return Err(invalid(format!(
                    "binary_data_size is {size}, shape {:?} of {} has {bytes} bytes",
                    raw.shape, raw.datatype
                )));
            }
            let Some((own, others)) = rest.split_at_checked(size) else {
                let left = rest.len();
                return Err(invalid(format!(
                    "binary_data_size is {size}, {left} bytes are left of the body"
                )));
            };
            *rest = others;
            tensor::from_bytes(datatype, own)
                .ok_or_else(|| invalid("a BOOL is neither 0 nor 1".to_owned()))?
        }
        (None, Some(text)) => values::parse(datatype, text.get(), count).map_err(|error| {
            invalid(format!(
                "data does not fit shape {:?} of {}, {count} elements: {error}",
                raw.shape, raw.datatype
            ))
        })?,
    };
    Ok(Tensor { shape, data })
}

fn names(specs: &[TensorSpec]) -> String {
    specs
        .iter()
        .map(|spec| spec.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Puts the tensors in the model's order, and checks each against it.
fn batch(mut given: Vec<(String, Tensor)>, model: &ServedModel) -> Result<Batch, ApiError> {
    let specs = &model.signature.inputs;
    let mut sizes = HashMap::new();
    let mut inputs = Vec::with_capacity(specs.len());
    for spec in specs {
        let Some(index) = given.iter().position(|(name, _)| *name == spec.name) else {
            return Err(ApiError::invalid(format!(
                "input {:?} is missing; the model takes {}",
                spec.name,
                names(specs)
            )));
        };
        let (name, tensor) = given.swap_remove(index);
        fits(spec, &tensor, &mut sizes)?;
        model
            .config
            .refuse_input(&name, &tensor)
            .map_err(ApiError::invalid)?;
        inputs.push(tensor);
    }
    if let Some((name, _)) = given.first() {
        let twice = specs.iter().any(|spec| spec.name == *name);
        let message = if twice {
            "is there twice".to_owned()
        } else {
            format!("is not one of {}", names(specs))
        };
        return Err(ApiError::invalid(format!("input {name:?} {message}")));
    }
    let batched = specs.first().is_some_and(TensorSpec::batched);
    let rows = inputs
        .first()
        .filter(|_| batched)
        .and_then(|tensor| tensor.shape.first())
        .map_or(1, |rows| *rows);
    let limit = model.config.max_batch_size;
    if rows > limit {
        return Err(ApiError::invalid(format!(
            "{rows} rows; at most {limit} are taken (maxBatchSize in config.yaml): split the request"
        )));
    }
    Ok(Batch { inputs, rows })
}

fn fits<'a>(
    spec: &'a TensorSpec,
    tensor: &Tensor,
    sizes: &mut HashMap<&'a str, usize>,
) -> Result<(), ApiError> {
    let name = &spec.name;
    let invalid = |what: String| Err(ApiError::invalid(format!("input {name:?}: {what}")));
    let expected = spec.protocol_shape();
    let datatype = tensor.data.datatype();
    if datatype != spec.datatype {
        return invalid(format!(
            "datatype is {}, the model takes {}",
            datatype.name(),
            spec.datatype.name()
        ));
    }
    if tensor.shape.len() != spec.dims.len() {
        return invalid(format!(
            "shape is {:?}, the model takes {expected:?}",
            tensor.shape
        ));
    }
    for (size, dim) in tensor.shape.iter().zip(&spec.dims) {
        let fixed = match dim {
            Dim::Fixed(fixed) => *fixed,
            Dim::Named(symbol) => *sizes.entry(symbol).or_insert(*size),
            Dim::Any => *size,
        };
        if *size != fixed {
            return invalid(match dim {
                Dim::Named(symbol) => {
                    format!(
                        "shape is {:?}: {symbol:?} is {size} here and {fixed} in another input",
                        tensor.shape
                    )
                }
                _ => format!("shape is {:?}, the model takes {expected:?}", tensor.shape),
            });
        }
        if *size == 0 {
            return invalid(format!(
                "shape is {:?}; every dimension is at least 1",
                tensor.shape
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "request_tests.rs"]
pub mod tests;
