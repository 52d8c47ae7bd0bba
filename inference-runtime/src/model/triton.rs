//! `config.pbtxt` of Triton's repository layout: the usual subset. A key outside of it is an error, not ignored.

use std::time::Duration;

use super::config::{BatchingConfig, Device, ModelConfig};
use super::pbtxt::{self, Fields, Value};
use crate::engine::{Signature, TensorSpec, names};
use crate::failure::{LoadFailure, Reason};

pub const FILE: &str = "config.pbtxt";

/// Which of a model's versions are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// So many of the highest.
    Latest(usize),
    All,
    Specific(Vec<u64>),
}

impl Default for Policy {
    fn default() -> Self {
        Policy::Latest(1)
    }
}

impl Policy {
    /// Of the versions that are there (ascending), those that are served.
    pub fn choose(&self, there: &[u64]) -> Result<Vec<u64>, LoadFailure> {
        match self {
            Policy::All => Ok(there.to_vec()),
            Policy::Latest(count) => Ok(there[there.len().saturating_sub(*count)..].to_vec()),
            Policy::Specific(wanted) => match wanted.iter().find(|version| !there.contains(version)) {
                Some(missing) => Err(invalid(format!(
                    "version_policy names version {missing}, and there is none; add the folder, or correct the policy"
                ))),
                None => Ok(wanted.clone()),
            },
        }
    }
}

/// What is said of an input or output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tensor {
    name: String,
    data_type: Option<String>,
    dims: Vec<i64>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TritonConfig {
    pub policy: Policy,
    /// Runs of the model at a time, if that is limited.
    pub instances: Option<usize>,
    device: Option<Device>,
    /// 0: the model has no batch dimension of which it knows.
    max_batch_size: usize,
    batching: Option<BatchingConfig>,
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ConfigInvalid, format!("{FILE}: {message}"))
}

fn unknown<T>(place: &str, key: &str, known: &str) -> Result<T, String> {
    Err(format!(
        "{place}{key} is not read here; remove it (known are {known}), or serve the model from a folder with config.yaml"
    ))
}

fn number<N: std::str::FromStr>(key: &str, value: &Value) -> Result<N, String> {
    match value {
        Value::Word(word) => word
            .parse()
            .map_err(|_| format!("{key} is {word:?}; it is a whole number")),
        Value::Text(_) | Value::Message(_) => Err(format!("{key} is a whole number")),
    }
}

fn text(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Word(_) | Value::Message(_) => Err(format!("{key} is a string in quotes")),
    }
}

fn word(key: &str, value: &Value) -> Result<String, String> {
    match value {
        Value::Word(word) => Ok(word.clone()),
        Value::Text(_) | Value::Message(_) => Err(format!("{key} is a word without quotes")),
    }
}

fn message<'a>(key: &str, value: &'a Value) -> Result<&'a Fields, String> {
    match value {
        Value::Message(fields) => Ok(fields),
        Value::Text(_) | Value::Word(_) => Err(format!("{key} is a message in braces")),
    }
}

impl TritonConfig {
    /// Reads the configuration of the model in the folder `name`.
    pub fn parse(text: &str, name: &str) -> Result<Self, LoadFailure> {
        let fields = pbtxt::parse(text).map_err(invalid)?;
        Self::read(&fields, name).map_err(invalid)
    }

    fn read(fields: &Fields, folder: &str) -> Result<Self, String> {
        const KNOWN: &str = "name, platform, backend, max_batch_size, input, output, dynamic_batching, instance_group, \
                             version_policy, default_model_filename";
        let mut config = Self::default();
        for (key, value) in fields {
            match key.as_str() {
                "name" => only(key, &text(key, value)?, &["", folder], "as the folder is")?,
                "platform" => only(
                    key,
                    &text(key, value)?,
                    &["", "onnxruntime_onnx"],
                    "for ONNX models",
                )?,
                "backend" => only(key, &text(key, value)?, &["", "onnxruntime"], "for ONNX models")?,
                "default_model_filename" => {
                    only(
                        key,
                        &text(key, value)?,
                        &["", "model.onnx"],
                        "as the file is named",
                    )?;
                }
                "max_batch_size" => config.max_batch_size = number(key, value)?,
                "input" => config.inputs.push(tensor("input.", message(key, value)?)?),
                "output" => config.outputs.push(tensor("output.", message(key, value)?)?),
                "dynamic_batching" => config.batching = Some(batching(message(key, value)?)?),
                "instance_group" => config.instance_group(message(key, value)?)?,
                "version_policy" => config.policy = policy(message(key, value)?)?,
                _ => return unknown("", key, KNOWN),
            }
        }
        if let Some(rows) = config
            .batching
            .as_ref()
            .and_then(|batching| batching.max_batch_size)
            && rows > config.max_batch_size
        {
            return Err(format!(
                "dynamic_batching.preferred_batch_size has {rows}; it is at most max_batch_size, {}",
                config.max_batch_size
            ));
        }
        Ok(config)
    }

    fn instance_group(&mut self, fields: &Fields) -> Result<(), String> {
        let mut count = 1;
        for (key, value) in fields {
            match key.as_str() {
                "count" => count = number(key, value)?,
                "kind" => {
                    let device = match word(key, value)?.as_str() {
                        "KIND_CPU" => Device::Cpu,
                        "KIND_GPU" => Device::Gpu,
                        kind => {
                            return Err(format!("instance_group.kind is {kind}; say KIND_CPU or KIND_GPU"));
                        }
                    };
                    if self.device.is_some_and(|other| other != device) {
                        return Err("instance_group has both kinds; a model runs on one".to_owned());
                    }
                    self.device = Some(device);
                }
                _ => return unknown("instance_group.", key, "count and kind"),
            }
        }
        if count == 0 {
            return Err("instance_group.count is 0; it is at least 1".to_owned());
        }
        self.instances = Some(self.instances.unwrap_or(0) + count);
        Ok(())
    }

    /// In our own terms.
    pub fn model_config(&self) -> ModelConfig {
        let default = ModelConfig::default();
        // Without dynamic_batching, requests are never joined; with it, up to what is said or our own default.
        let alone = BatchingConfig {
            max_batch_size: Some(1),
            ..BatchingConfig::default()
        };
        ModelConfig {
            device: self.device.unwrap_or(default.device),
            max_batch_size: match self.max_batch_size {
                0 => default.max_batch_size,
                rows => rows,
            },
            batching: self.batching.clone().unwrap_or(alone),
            ..default
        }
    }

    /// Checks what is said of inputs and outputs against the model's own.
    pub fn check(&self, signature: &Signature) -> Result<(), LoadFailure> {
        if self.max_batch_size > 0 && !signature.batched() {
            return Err(invalid(format!(
                "max_batch_size is {}, and not every input and output has rows in front; say 0",
                self.max_batch_size
            )));
        }
        let sides = [
            ("input", &self.inputs, &signature.inputs),
            ("output", &self.outputs, &signature.outputs),
        ];
        for (side, said, specs) in sides {
            for tensor in said {
                self.fits(tensor, specs)
                    .map_err(|error| invalid(format!("{side} {:?}: {error}", tensor.name)))?;
            }
        }
        Ok(())
    }

    fn fits(&self, tensor: &Tensor, specs: &[TensorSpec]) -> Result<(), String> {
        let spec = specs.iter().find(|spec| spec.name == tensor.name);
        let spec = spec.ok_or_else(|| format!("the model has none of that name; it has {}", names(specs)))?;
        let own_type = format!("TYPE_{}", spec.datatype.name());
        if let Some(data_type) = tensor.data_type.as_ref().filter(|said| **said != own_type) {
            return Err(format!("data_type is {data_type}, the model's is {own_type}"));
        }
        let own = &spec.protocol_shape()[usize::from(self.max_batch_size > 0)..];
        let fits = |(said, own): (&i64, &i64)| said == own || *said == -1 || *own == -1;
        if tensor.dims.len() != own.len() || !tensor.dims.iter().zip(own).all(fits) {
            let without = if self.max_batch_size > 0 {
                " without the batch"
            } else {
                ""
            };
            return Err(format!(
                "dims are {:?}, the model's are {own:?}{without}",
                tensor.dims
            ));
        }
        Ok(())
    }
}

fn only(key: &str, said: &str, allowed: &[&str], why: &str) -> Result<(), String> {
    if allowed.contains(&said) {
        return Ok(());
    }
    let wanted = allowed.last().copied().unwrap_or_default();
    Err(format!("{key} is {said:?}; it is {wanted:?}, {why}"))
}

fn tensor(place: &str, fields: &Fields) -> Result<Tensor, String> {
    let mut tensor = Tensor::default();
    for (key, value) in fields {
        match key.as_str() {
            "name" => tensor.name = text(key, value)?,
            "data_type" => tensor.data_type = Some(word(key, value)?),
            "dims" => tensor.dims.push(number(key, value)?),
            _ => return unknown(place, key, "name, data_type and dims"),
        }
    }
    Ok(tensor)
}

fn batching(fields: &Fields) -> Result<BatchingConfig, String> {
    let mut batching = BatchingConfig::default();
    for (key, value) in fields {
        match key.as_str() {
            "max_queue_delay_microseconds" => {
                batching.max_queue_delay = Duration::from_micros(number(key, value)?);
            }
            // A run is of what waits; the largest preferred size bounds it.
            "preferred_batch_size" => {
                let rows: usize = number(key, value)?;
                if rows == 0 {
                    return Err("dynamic_batching.preferred_batch_size has 0; it is at least 1".to_owned());
                }
                batching.max_batch_size = batching.max_batch_size.max(Some(rows));
            }
            _ => {
                let known = "max_queue_delay_microseconds and preferred_batch_size";
                return unknown("dynamic_batching.", key, known);
            }
        }
    }
    Ok(batching)
}

fn policy(fields: &Fields) -> Result<Policy, String> {
    let [(key, value)] = fields.as_slice() else {
        return Err("version_policy is one of latest, all and specific".to_owned());
    };
    let inner = message(key, value)?;
    match key.as_str() {
        "all" => Ok(Policy::All),
        "latest" => match inner.as_slice() {
            [] => Ok(Policy::default()),
            [(key, value)] if key == "num_versions" => match number(key, value)? {
                0 => Err("version_policy.latest.num_versions is 0; it is at least 1".to_owned()),
                count => Ok(Policy::Latest(count)),
            },
            other => unknown("version_policy.latest.", &other[0].0, "num_versions"),
        },
        "specific" => {
            let mut versions = Vec::new();
            for (key, value) in inner {
                match key.as_str() {
                    "versions" => versions.push(number(key, value)?),
                    _ => return unknown("version_policy.specific.", key, "versions"),
                }
            }
            versions.sort_unstable();
            versions.dedup();
            Ok(Policy::Specific(versions))
        }
        _ => unknown("version_policy.", key, "latest, all and specific"),
    }
}

#[cfg(test)]
#[path = "triton_tests.rs"]
mod tests;
