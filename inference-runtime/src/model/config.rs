//! `config.yaml` of a model: strict, so that a misspelt key is an error and not a default.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use crate::engine::{Data, Datatype, Signature, Tensor, merge};
use crate::failure::{LoadFailure, Reason};
use crate::queue::Batching;

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Device {
    Cpu,
    Gpu,
}

/// What happens to NaN and infinity.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NonFinite {
    #[default]
    Refuse,
    Allow,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct ModelConfig {
    /// Where the model runs. A GPU unless the model says otherwise: nobody pays for a GPU that is not used.
    pub device: Device,
    /// Largest first dimension of a request.
    pub max_batch_size: usize,
    pub batching: BatchingConfig,
    pub inputs: BTreeMap<String, InputConfig>,
    pub outputs: BTreeMap<String, OutputConfig>,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            device: Device::Gpu,
            max_batch_size: 4096,
            batching: BatchingConfig::default(),
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
    pub non_finite: NonFinite,
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
                let known: Vec<&str> = signature.inputs.iter().map(|spec| spec.name.as_str()).collect();
                return Err(invalid(format!(
                    "inputs.{name}: the model has no such input; it has {}",
                    known.join(", ")
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
        match self
            .outputs
            .keys()
            .find(|name| signature.outputs.iter().all(|spec| spec.name != **name))
        {
            Some(name) => Err(invalid(format!("outputs.{name}: the model has no such output"))),
            None => Ok(()),
        }
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

    /// What is wrong with the values of an input, if anything: ids outside their vocabulary, NaN, infinity.
    pub fn refuse_input(&self, name: &str, tensor: &Tensor) -> Result<(), String> {
        const DEFAULT: &InputConfig = &InputConfig {
            vocabularies: Vec::new(),
            non_finite: NonFinite::Refuse,
        };
        let config = self.inputs.get(name).unwrap_or(DEFAULT);
        if config.non_finite == NonFinite::Refuse
            && let Some(index) = tensor.data.first_non_finite()
        {
            return Err(format!(
                "input {name:?} has NaN or infinity at element {index}; send finite values, or allow them with \
                 `inputs.{name}.nonFinite: allow` in config.yaml"
            ));
        }
        let (columns, sizes) = (config.vocabularies.len(), &config.vocabularies);
        if columns == 0 {
            return Ok(());
        }
        let outside =
            |index: usize, id: i64| u64::try_from(id).map_or(true, |id| id >= sizes[index % columns]);
        let found = match &tensor.data {
            Data::I64(ids) => ids
                .iter()
                .enumerate()
                .find(|(index, id)| outside(*index, **id))
                .map(|(i, id)| (i, *id)),
            Data::I32(ids) => ids
                .iter()
                .enumerate()
                .find(|(index, id)| outside(*index, i64::from(**id)))
                .map(|(i, id)| (i, i64::from(*id))),
            _ => None,
        };
        match found {
            Some((index, id)) => Err(format!(
                "input {name:?} has id {id} at element {index} (column {}), outside its vocabulary of {}; send ids from \
                 0 to {}",
                index % columns,
                sizes[index % columns],
                sizes[index % columns].saturating_sub(1)
            )),
            None => Ok(()),
        }
    }

    /// The first output value that may not be answered.
    pub fn refuse_output(&self, name: &str, tensor: &Tensor) -> Result<(), String> {
        if self
            .outputs
            .get(name)
            .is_some_and(|config| config.non_finite == NonFinite::Allow)
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
mod tests {
    use super::*;
    use crate::engine::{Dim, TensorSpec};

    fn signature() -> Signature {
        let dims = vec![Dim::Named("n".into()), Dim::Fixed(2)];
        let input = |name: &str, datatype| TensorSpec {
            name: name.into(),
            datatype,
            dims: dims.clone(),
        };
        Signature {
            inputs: vec![input("dense", Datatype::F32), input("sparse", Datatype::I64)],
            outputs: vec![input("score", Datatype::F32)],
        }
    }

    #[test]
    fn unknown_keys_are_named() {
        for (text, named) in [
            ("devise: cpu", "devise"),
            ("device: tpu", "tpu"),
            ("inputs: {sparse: {vocabulary: [1]}}", "vocabulary"),
            ("maxBatchSize: 0", "maxBatchSize"),
            ("maxBatchSize: many", "maxBatchSize"),
            ("- a", "config.yaml"),
            ("batching: {maxRows: 1}", "maxRows"),
            ("batching: {maxBatchSize: 0}", "batching.maxBatchSize"),
            (
                "{maxBatchSize: 8, batching: {maxBatchSize: 9}}",
                "batching.maxBatchSize is 9",
            ),
            ("batching: {maxQueueDelay: 5}", "maxQueueDelay"),
            ("batching: {maxQueueDelay: soon}", "soon"),
        ] {
            let failure = ModelConfig::parse(text).unwrap_err();
            assert_eq!(failure.reason, Reason::ConfigInvalid);
            assert!(failure.message.contains(named), "{text}: {}", failure.message);
        }
    }

    #[test]
    fn batching_by_config_and_signature() {
        let batching = |text: &str, signature: &Signature| {
            let batching = ModelConfig::parse(text).unwrap().batching(signature);
            (batching.max_rows, batching.max_delay.as_micros())
        };
        assert_eq!(batching("", &signature()), (256, 0));
        assert_eq!(batching("maxBatchSize: 64", &signature()), (64, 0));
        let text = "batching: {maxBatchSize: 512, maxQueueDelay: 0.5ms}";
        assert_eq!(batching(text, &signature()), (512, 500));
        let mut fixed = signature();
        fixed.inputs[0].dims[0] = Dim::Fixed(2);
        assert_eq!(batching(text, &fixed), (1, 0));
    }

    #[test]
    fn defaults_want_a_gpu() {
        assert_eq!(ModelConfig::parse("").unwrap().device, Device::Gpu);
        assert_eq!(ModelConfig::parse("device: cpu").unwrap().device, Device::Cpu);
    }

    #[test]
    fn names_must_be_the_models() {
        for (text, named) in [
            ("inputs: {spars: {}}", "inputs.spars"),
            (
                "inputs: {dense: {vocabularies: [1]}}",
                "inputs.dense.vocabularies",
            ),
            ("inputs: {sparse: {vocabularies: [1, 2, 3]}}", "3 entries"),
            ("outputs: {scores: {}}", "outputs.scores"),
        ] {
            let failure = ModelConfig::parse(text).unwrap().check(&signature()).unwrap_err();
            assert!(failure.message.contains(named), "{text}: {}", failure.message);
        }
        ModelConfig::parse("inputs: {sparse: {vocabularies: [7, 8]}}")
            .unwrap()
            .check(&signature())
            .unwrap();
    }

    #[test]
    fn ids_and_nan_are_refused() {
        let config = ModelConfig::parse("inputs: {sparse: {vocabularies: [3, 5]}}").unwrap();
        let ids = |values: Vec<i64>| Tensor {
            shape: vec![values.len() / 2, 2],
            data: Data::I64(values),
        };
        assert!(config.refuse_input("sparse", &ids(vec![2, 4, 0, 0])).is_ok());
        for bad in [
            vec![3, 0],
            vec![0, 5],
            vec![-1, 0],
            vec![i64::MIN, 0],
            vec![i64::MAX, 0],
        ] {
            assert!(
                config
                    .refuse_input("sparse", &ids(bad))
                    .unwrap_err()
                    .contains("vocabulary")
            );
        }
        let dense = Tensor {
            shape: vec![1, 2],
            data: Data::F32(vec![0.0, f32::NAN]),
        };
        assert!(
            config
                .refuse_input("dense", &dense)
                .unwrap_err()
                .contains("element 1")
        );
        assert!(config.refuse_output("score", &dense).is_err());
    }
}
