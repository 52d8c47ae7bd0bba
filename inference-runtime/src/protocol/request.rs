//! An infer request: parsed once, into a batch in which every shape, type and value is what the model takes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::ApiError;
use super::candidates::{self, Parameters, Work};
use super::check::{self, MAX_TENSORS};
use super::declared::Declared;
use crate::cascade::{Models, Rest};
use crate::engine::{Batch, Tensor};
use crate::ids::InputRules;
use crate::model::ServedModel;
use crate::model::top_k::Asked;
use crate::priority::Priority;

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: RequestParameters,
    #[serde(borrow)]
    inputs: Bounded<RawTensor<'a>>,
    #[serde(default)]
    outputs: Option<Bounded<RawOutput>>,
}

/// As many as a request may have: what is beyond is not read, so it takes no memory.
pub struct Bounded<T>(pub Vec<T>);

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BoundedVisitor<T> {
    type Value = Bounded<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an array of at most {MAX_TENSORS} tensors")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut tensors = Vec::new();
        while let Some(tensor) = elements.next_element()? {
            if tensors.len() == MAX_TENSORS {
                return Err(A::Error::invalid_length(MAX_TENSORS + 1, &self));
            }
            tensors.push(tensor);
        }
        Ok(Bounded(tensors))
    }
}

// Unknown parameters are ignored: clients send some of their own (`triton_enable_empty_final_response`).
#[derive(Default, Deserialize)]
struct RequestParameters {
    #[serde(default)]
    binary_data_output: bool,
    /// Microseconds.
    #[serde(default)]
    timeout: u64,
    #[serde(default)]
    priority: u64,
    #[serde(default)]
    top_k: Option<u64>,
    #[serde(default)]
    keep: Option<u64>,
}

/// A tensor as a body names it: its values here, or behind the JSON.
#[derive(Deserialize)]
pub struct RawTensor<'a> {
    name: String,
    shape: Vec<i64>,
    #[serde(borrow)]
    datatype: Cow<'a, str>,
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
    /// Of a cascade the light model's, as is `top_k`.
    pub batch: Batch,
    pub outputs: Vec<WantedOutput>,
    /// Only the best candidates are wanted.
    pub top_k: Option<Asked>,
    /// Of a cascade: what the heavy model gets.
    pub rest: Option<Rest>,
    pub terms: Terms,
}

/// On what terms a request is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The client's own deadline.
    pub timeout: Option<Duration>,
    pub priority: Priority,
}

impl Terms {
    /// From the protocol's parameters: microseconds (0 means none) and the level of priority (0 means the default).
    pub fn new(timeout: u64, priority: u64) -> Self {
        Self {
            timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
            priority: Priority::of_level(priority),
        }
    }
}

/// Parses a body; `header_length` is `Inference-Header-Content-Length`, the JSON's part of it.
pub fn parse<'a>(
    body: &[u8],
    header_length: Option<usize>,
    models: impl Into<Models<'a>>,
) -> Result<InferRequest, ApiError> {
    let models = models.into();
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
    let RequestParameters { top_k, keep, .. } = raw.parameters;
    let candidates = candidates::wanted(models, Parameters { top_k, keep })?;
    let outputs = wanted(&raw, models.model, candidates.k)?;
    let tensors = tensors(raw.inputs, binary, |name| models.id_rules(name))?;
    let Work { batch, top_k, rest } = candidates::work(tensors, models, candidates)?;
    Ok(InferRequest {
        id: raw.id,
        batch,
        top_k,
        rest,
        outputs,
        terms: Terms::new(raw.parameters.timeout, raw.parameters.priority),
    })
}

/// The outputs of an answer, as a sample's known answer has them.
pub fn parse_outputs(body: &[u8]) -> Result<Vec<(String, Tensor)>, ApiError> {
    #[derive(Deserialize)]
    struct RawAnswer<'a> {
        #[serde(borrow)]
        outputs: Bounded<RawTensor<'a>>,
    }
    let raw: RawAnswer<'_> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is not an infer answer: {error}")))?;
    tensors(raw.outputs, &[], |_| None)
}

fn wanted(
    raw: &RawRequest<'_>,
    model: &ServedModel,
    top_k: Option<usize>,
) -> Result<Vec<WantedOutput>, ApiError> {
    let all = || 0..check::output_count(model, top_k);
    let binary = raw.parameters.binary_data_output;
    let outputs = raw.outputs.as_ref().map_or(&[][..], |outputs| &outputs.0);
    if outputs.is_empty() {
        return Ok(all().map(|index| WantedOutput { index, binary }).collect());
    }
    let mut wanted = Vec::with_capacity(outputs.len());
    for output in outputs {
        let parameters = &output.parameters;
        check::served("output", &output.name, parameters.shared_memory_region.is_some())?;
        check::classification(&output.name, parameters.classification.unwrap_or(0))?;
        wanted.push(WantedOutput {
            index: check::output(model, &output.name, top_k, &wanted)?,
            binary: parameters.binary_data.unwrap_or(binary),
        });
    }
    Ok(wanted)
}

/// Reads tensors whose binary values follow one another in `binary`; what the `rules` of a name say is hashed.
pub fn tensors<'a>(
    raw: Bounded<RawTensor<'_>>,
    binary: &[u8],
    rules: impl Fn(&str) -> Option<&'a InputRules>,
) -> Result<Vec<(String, Tensor)>, ApiError> {
    let mut rest = binary;
    let mut tensors = Vec::with_capacity(raw.0.len());
    for tensor in raw.0 {
        let shared = tensor.parameters.shared_memory_region.is_some();
        check::served("input", &tensor.name, shared)?;
        let value = read_tensor(&tensor, &mut rest, rules(&tensor.name))?;
        tensors.push((tensor.name, value));
    }
    if !rest.is_empty() {
        return Err(ApiError::invalid(format!(
            "{} bytes are left after the last binary tensor; binary_data_size of the inputs must add up",
            rest.len()
        )));
    }
    Ok(tensors)
}

fn read_tensor(
    raw: &RawTensor<'_>,
    rest: &mut &[u8],
    rules: Option<&InputRules>,
) -> Result<Tensor, ApiError> {
    let name = &raw.name;
    let invalid = |what: String| ApiError::invalid(format!("input {name:?}: {what}"));
    let declared = Declared::new(name, &raw.datatype, &raw.shape, rules)?;
    let data = match (raw.parameters.binary_data_size, raw.data) {
        (Some(_), Some(_)) => {
            return Err(invalid(
                "has both data and binary_data_size; send one of them".to_owned(),
            ));
        }
        (None, None) => return Err(invalid("has neither data nor binary_data_size".to_owned())),
        (Some(size), None) => {
            if let Some(bytes) = declared.bytes().filter(|bytes| *bytes != size) {
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
            declared.from_bytes(own).map_err(invalid)?
        }
        (None, Some(text)) => declared.from_json(text.get()).map_err(|error| {
            invalid(format!(
                "data does not fit shape {:?} of {}, {} elements: {error}",
                raw.shape, raw.datatype, declared.count
            ))
        })?,
    };
    let shape = declared.shape;
    Ok(Tensor { shape, data })
}

#[cfg(test)]
#[path = "request_tests.rs"]
pub mod tests;
