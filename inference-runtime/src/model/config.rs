//! `config.yaml` of a model: strict, so that a misspelt key is an error and not a default.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use rank::pass::hoist::Once;
use rank::plan::{InstructionSet, Precision};
use serde::Deserialize;

use crate::cascade::CascadeConfig;
use crate::engine::{Layout, Signature, Tensor, merge, names};
use crate::failure::{LoadFailure, Reason};
use crate::ids::Policy;
use crate::items::ItemTableConfig;
use crate::model::top_k::TopKConfig;
use crate::queue::Batching;
use crate::shadow::ShadowConfig;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Cpu,
    Gpu,
}

/// Which engine the model's author wants.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum EngineWish {
    /// `rank` on a CPU if it takes the model, else ONNX Runtime.
    #[default]
    Auto,
    Rank,
    OnnxRuntime,
}

/// Inputs, or columns of them, that belong to the request and not to the pair.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestInputs {
    /// As in the file.
    written: Vec<String>,
    once: Vec<(String, Once)>,
}

impl RequestInputs {
    pub fn parse(written: Vec<String>) -> Result<Self, String> {
        let texts: Vec<&str> = written.iter().map(String::as_str).collect();
        let once = rank::parse_once(&texts)?;
        Ok(Self { once, written })
    }

    pub fn is_empty(&self) -> bool {
        self.once.is_empty()
    }

    pub fn once(&self) -> &[(String, Once)] {
        &self.once
    }

    pub fn written(&self) -> &[String] {
        &self.written
    }
}

impl<'de> Deserialize<'de> for RequestInputs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::deserialize(deserializer)?;
        Self::parse(written).map_err(|error| serde::de::Error::custom(format!("requestInputs: {error}")))
    }
}

/// What happens to NaN and infinity in an input.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum NonFinite {
    #[default]
    Refuse,
    Allow,
}

/// What happens to NaN and infinity in an output.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum NonFiniteOutput {
    #[default]
    Refuse,
    Allow,
    /// The candidate is left out of a request for the best; any other request is refused.
    DropCandidate,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ModelConfig {
    /// Where the model runs. A GPU unless the model says otherwise: nobody pays for a GPU that is not used.
    pub device: Device,
    pub engine: EngineWish,
    /// Of products, on the engine `rank`.
    #[serde(deserialize_with = "precision")]
    pub precision: Precision,
    /// Of the machine at hand: the best, unless another is forced. Not in the file.
    #[serde(skip)]
    pub instruction_set: InstructionSet,
    pub request_inputs: RequestInputs,
    pub top_k: Option<TopKConfig>,
    pub item_table: Option<ItemTableConfig>,
    /// Largest first dimension of a request.
    pub max_batch_size: usize,
    pub batching: BatchingConfig,
    /// Weight of the model among those that share the process.
    pub share: NonZeroU32,
    /// A part of the requests goes to a second model too, to compare it.
    pub shadow: Option<ShadowConfig>,
    /// A light model scores all candidates first, and this one those that it leaves.
    pub cascade: Option<CascadeConfig>,
    pub inputs: BTreeMap<String, InputConfig>,
    pub outputs: BTreeMap<String, OutputConfig>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            device: Device::Gpu,
            engine: EngineWish::default(),
            precision: Precision::default(),
            instruction_set: InstructionSet::default(),
            request_inputs: RequestInputs::default(),
            top_k: None,
            item_table: None,
            max_batch_size: 4096,
            batching: BatchingConfig::default(),
            share: NonZeroU32::MIN,
            shadow: None,
            cascade: None,
            inputs: BTreeMap::new(),
            outputs: BTreeMap::new(),
        }
    }
}

/// How requests that wait together share a run of the engine.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct BatchingConfig {
    /// Rows of such a run; with 1, requests run one by one.
    pub max_batch_size: Option<usize>,
    /// How long a request may wait for others while an engine is free.
    #[serde(deserialize_with = "delay")]
    pub max_queue_delay: Duration,
}

/// A run of many more rows gains little a row on a CPU, and its requests wait for one another.
const JOINED_ROWS: usize = 256;

fn delay<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::args::duration(&text).map_err(|error| serde::de::Error::custom(format!("maxQueueDelay: {error}")))
}

fn precision<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Precision, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|error| serde::de::Error::custom(format!("precision: {error}")))
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct InputConfig {
    /// Sizes of the vocabularies of an id input: one for all columns, or one a column.
    pub vocabularies: Vec<u64>,
    /// What becomes of ids outside: one for all columns, or one a column.
    pub policies: Vec<Policy>,
    pub non_finite: NonFinite,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct OutputConfig {
    pub non_finite: NonFiniteOutput,
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ConfigInvalid, format!("config.yaml: {message}"))
}

impl ModelConfig {
    pub const FILE: &str = "config.yaml";

    pub fn parse(text: &str) -> Result<Self, LoadFailure> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let config: Self = serde_yaml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if config.max_batch_size == 0 {
            return Err(invalid("maxBatchSize is 0; it is at least 1".to_owned()));
        }
        if let Some(shadow) = &config.shadow {
            shadow.check().map_err(invalid)?;
        }
        if let Some(cascade) = &config.cascade {
            cascade.check(&config).map_err(invalid)?;
        }
        let largest = config.max_batch_size;
        if let Some(rows) = config.batching.max_batch_size
            && !(1..=largest).contains(&rows)
        {
            return Err(invalid(format!(
                "batching.maxBatchSize is {rows}; it is at least 1 (requests run one by one) and at most maxBatchSize, \
                 {largest}"
            )));
        }
        Ok(config)
    }

    /// Checks every name and shape against the model's own.
    pub fn check(&self, signature: &Signature) -> Result<(), LoadFailure> {
        for name in self.inputs.keys() {
            if signature.inputs.iter().all(|spec| spec.name != *name) {
                let known = names(&signature.inputs);
                return Err(invalid(format!(
                    "inputs.{name}: the model has no such input; it has {known}"
                )));
            }
        }
        for (name, output) in &self.outputs {
            if signature.outputs.iter().all(|spec| spec.name != *name) {
                return Err(invalid(format!("outputs.{name}: the model has no such output")));
            }
            if output.non_finite == NonFiniteOutput::DropCandidate && self.top_k.is_none() {
                return Err(invalid(format!(
                    "outputs.{name}.nonFinite: dropCandidate needs topK; name the ids as topK.ids, or say refuse or allow"
                )));
            }
        }
        Ok(())
    }

    /// How the inputs of a model with this signature reach an engine.
    pub fn layout(&self, signature: &Signature) -> Result<Layout, LoadFailure> {
        Layout::new(signature, self.request_inputs.once())
            .map_err(|error| invalid(format!("requestInputs: {error}")))
    }

    /// How requests of a model with this signature are joined.
    pub fn batching(&self, signature: &Signature) -> Batching {
        if !merge::joinable(signature) {
            return Batching::NONE;
        }
        let default = JOINED_ROWS.min(self.max_batch_size);
        Batching {
            max_rows: self.batching.max_batch_size.unwrap_or(default),
            max_delay: self.batching.max_queue_delay,
        }
    }

    /// The first NaN or infinity of an input that has none, and what is wrong with it. `name`: of the input, or a part of it.
    pub fn not_finite(&self, input: &str, name: &str, tensor: &Tensor) -> Option<(usize, String)> {
        let config = self.inputs.get(input);
        if config.is_some_and(|config| config.non_finite == NonFinite::Allow) {
            return None;
        }
        let index = tensor.data.first_non_finite()?;
        let message = format!(
            "input {name:?} has NaN or infinity at element {index}; send finite values, or allow them with \
             `inputs.{input}.nonFinite: allow` in config.yaml"
        );
        Some((index, message))
    }

    /// The first output value that may not be answered.
    pub fn refuse_output(&self, name: &str, tensor: &Tensor) -> Result<(), String> {
        if self
            .outputs
            .get(name)
            .is_some_and(|config| config.non_finite == NonFiniteOutput::Allow)
        {
            return Ok(());
        }
        match tensor.data.first_non_finite() {
            Some(index) => Err(format!(
                "output {name:?} is NaN or infinity at element {index}; correct the model, or allow it with \
                 `outputs.{name}.nonFinite: allow` in config.yaml and ask for binary output"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
