//! `config.yaml` of a model: strict, so that a misspelt key is an error and not a default.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use rank::pass::hoist::Once;
use rank::plan::{InstructionSet, Precision};
use serde::Deserialize;

use crate::engine::layout::Slot;
use crate::engine::{Data, Datatype, Layout, Signature, Tensor, merge, names};
use crate::failure::{LoadFailure, Reason};
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
    /// Sizes of the vocabularies of an id input: one for all columns, or one a column. Ids outside are refused.
    pub vocabularies: Vec<u64>,
    pub non_finite: NonFinite,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct OutputConfig {
    pub non_finite: NonFiniteOutput,
}

/// The first id outside of its column's vocabulary. Rows are looked at as a whole, which takes a fraction of the time.
fn outside<T: Copy + Into<i64>>(ids: &[T], sizes: &[u64]) -> Option<(usize, i64)> {
    // Below zero is beyond every size.
    let beyond = |(id, size): (&T, &u64)| (*id).into().cast_unsigned() >= *size;
    let row = |row: &[T]| row.iter().zip(sizes).fold(false, |any, pair| any | beyond(pair));
    let start = ids.chunks(sizes.len()).position(row)? * sizes.len();
    let inside = ids[start..].iter().zip(sizes).position(beyond)?;
    Some((start + inside, ids[start + inside].into()))
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
        for (name, input) in &self.inputs {
            let Some(spec) = signature.inputs.iter().find(|spec| spec.name == *name) else {
                let known = names(&signature.inputs);
                return Err(invalid(format!(
                    "inputs.{name}: the model has no such input; it has {known}"
                )));
            };
            if input.vocabularies.is_empty() {
                continue;
            }
            if !matches!(spec.datatype, Datatype::I64 | Datatype::I32) {
                return Err(invalid(format!(
                    "inputs.{name}.vocabularies: the input is {}, ids are INT64 or INT32",
                    spec.datatype.name()
                )));
            }
            let columns = match spec.dims.last() {
                Some(crate::engine::Dim::Fixed(size)) if spec.dims.len() > 1 => *size,
                _ => 1,
            };
            if input.vocabularies.len() != 1 && input.vocabularies.len() != columns {
                return Err(invalid(format!(
                    "inputs.{name}.vocabularies has {} entries, the input has {columns} columns; give 1 or {columns}",
                    input.vocabularies.len()
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

    /// What is wrong with the values of an input, or of a part of it, if anything: ids outside their vocabulary, NaN,
    /// infinity.
    pub fn refuse_input(&self, input: &str, part: Option<&Slot>, tensor: &Tensor) -> Result<(), String> {
        self.bad_element(input, part, tensor)
            .map_or(Ok(()), |(_, message)| Err(message))
    }

    /// The first element that is refused, and why.
    pub fn bad_element(&self, input: &str, part: Option<&Slot>, tensor: &Tensor) -> Option<(usize, String)> {
        const DEFAULT: &InputConfig = &InputConfig {
            vocabularies: Vec::new(),
            non_finite: NonFinite::Refuse,
        };
        let config = self.inputs.get(input).unwrap_or(DEFAULT);
        let name = part.map_or(input, |part| &part.spec.name);
        if config.non_finite == NonFinite::Refuse
            && let Some(index) = tensor.data.first_non_finite()
        {
            let message = format!(
                "input {name:?} has NaN or infinity at element {index}; send finite values, or allow them with \
                 `inputs.{input}.nonFinite: allow` in config.yaml"
            );
            return Some((index, message));
        }
        let sizes: Cow<'_, [u64]> = match part {
            Some(part) if config.vocabularies.len() > 1 => {
                let places = part.places();
                places
                    .iter()
                    .filter_map(|place| config.vocabularies.get(*place).copied())
                    .collect()
            }
            _ => config.vocabularies.as_slice().into(),
        };
        let columns = sizes.len();
        if columns == 0 {
            return None;
        }
        let (index, id) = match &tensor.data {
            Data::I64(ids) => outside(ids, &sizes),
            Data::I32(ids) => outside(ids, &sizes),
            _ => None,
        }?;
        let message = format!(
            "input {name:?} has id {id} at element {index} (column {}), outside its vocabulary of {}; send ids from 0 to \
             {}",
            index % columns,
            sizes[index % columns],
            sizes[index % columns].saturating_sub(1)
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
