//! What is checked of a request alike over HTTP and gRPC.

use std::collections::HashMap;

use super::ApiError;
use super::request::WantedOutput;
use crate::engine::{Batch, Datatype, Dim, Outputs, Tensor, TensorSpec};
use crate::model::ServedModel;

/// Tensors of one request; no ranking model has as many.
pub const MAX_TENSORS: usize = 1024;

pub fn tensor_count(count: usize) -> Result<(), ApiError> {
    if count > MAX_TENSORS {
        return Err(ApiError::invalid(format!(
            "{count} tensors; at most {MAX_TENSORS} are taken"
        )));
    }
    Ok(())
}

/// Refuses tensors in shared memory.
pub fn served(what: &str, name: &str, shared_memory: bool) -> Result<(), ApiError> {
    if shared_memory {
        return Err(ApiError::invalid(format!(
            "{what} {name:?}: shared memory is not served; send the tensor"
        )));
    }
    Ok(())
}

pub fn classification(output: &str, count: u64) -> Result<(), ApiError> {
    if count > 0 {
        let message = format!("output {output:?}: the classification extension is not served");
        return Err(ApiError::invalid(message));
    }
    Ok(())
}

/// The place of an output in the signature, unless it is among the `wanted` already.
pub fn output(model: &ServedModel, name: &str, wanted: &[WantedOutput]) -> Result<usize, ApiError> {
    let outputs = &model.signature.outputs;
    let Some(index) = outputs.iter().position(|spec| spec.name == name) else {
        let known = names(outputs);
        let message = format!("output {name:?} is not one of the model's: {known}");
        return Err(ApiError::invalid(message));
    };
    if wanted.iter().any(|other| other.index == index) {
        return Err(ApiError::invalid(format!("output {name:?} is asked for twice")));
    }
    Ok(index)
}

/// An output of a run, if it may be answered.
pub fn computed<'a>(model: &ServedModel, index: usize, outputs: &'a Outputs) -> Result<&'a Tensor, ApiError> {
    let name = &model.signature.outputs[index].name;
    let tensor = outputs.tensors.get(index);
    let tensor = tensor.ok_or_else(|| ApiError::internal(format!("output {name:?} was not computed")))?;
    let refused = model.config.refuse_output(name, tensor);
    refused.map_err(ApiError::internal)?;
    Ok(tensor)
}

/// What a tensor is said to be: possible in itself, not yet compared with the model.
pub struct Declared {
    pub datatype: Datatype,
    pub shape: Vec<usize>,
    /// Elements.
    pub count: usize,
    pub bytes: usize,
}

pub fn declared(name: &str, datatype: &str, shape: &[i64]) -> Result<Declared, ApiError> {
    let invalid = |what: String| ApiError::invalid(format!("input {name:?}: {what}"));
    let Some(datatype) = Datatype::parse(datatype) else {
        let known: Vec<&str> = Datatype::ALL.iter().map(|datatype| datatype.name()).collect();
        let known = known.join(", ");
        return Err(invalid(format!("datatype {datatype:?} is not one of {known}")));
    };
    let sizes: Result<Vec<usize>, _> = shape.iter().map(|size| usize::try_from(*size)).collect();
    let sizes = sizes.map_err(|_| invalid(format!("shape {shape:?} has a negative dimension")))?;
    let count = sizes
        .iter()
        .try_fold(1_usize, |product, size| product.checked_mul(*size));
    let bytes = count.and_then(|count| count.checked_mul(datatype.size()));
    let (Some(count), Some(bytes)) = (count, bytes) else {
        return Err(invalid(format!("shape {shape:?} is too large")));
    };
    Ok(Declared {
        datatype,
        shape: sizes,
        count,
        bytes,
    })
}

fn names(specs: &[TensorSpec]) -> String {
    specs
        .iter()
        .map(|spec| spec.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Puts the tensors in the model's order, and checks each against it.
pub fn batch(mut given: Vec<(String, Tensor)>, model: &ServedModel) -> Result<Batch, ApiError> {
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
