//! Warm-up: each engine answers the model's samples, or zeros, before the replica is ready.

use std::time::{Duration, Instant};

use rank::plan::Precision;

use super::ServedModel;
use super::folder::ModelFolder;
use crate::engine::layout::Slot;
use crate::engine::rank::BF16_TOLERANCE;
use crate::engine::{Batch, Data, Dim, Engine, Outputs, Tensor, TensorSpec, merge};
use crate::failure::{LoadFailure, Reason};
use crate::protocol::request;
use crate::queue::Batching;

/// Samples are for warm-up, not for load tests.
const MAX_SAMPLES: usize = 32;
/// How far from a known answer is still right.
#[derive(Clone, Copy)]
struct Tolerance {
    relative: f64,
    absolute: f64,
}

impl Tolerance {
    /// Answers were computed on another machine, perhaps by another engine: sums differ in their last bits.
    const F32: Self = Self {
        relative: 1e-3,
        absolute: 1e-4,
    };
    /// Answers may have been computed in f32.
    const BF16: Self = Self {
        relative: BF16_TOLERANCE,
        absolute: BF16_TOLERANCE,
    };

    fn of(precision: Precision) -> Self {
        match precision {
            Precision::F32 => Self::F32,
            Precision::Bf16 => Self::BF16,
        }
    }
}

/// A request of `samples/`, with the answer if it is known.
pub struct Sample {
    pub name: String,
    pub batch: Batch,
    pub expected: Option<Vec<(String, Tensor)>>,
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelInvalid, message)
}

/// Names of the samples: of each there is `samples/NAME.request.json`.
pub fn sample_names(folder: &ModelFolder) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder.path.join("samples")) else {
        return Vec::new();
    };
    let name = |entry: std::fs::DirEntry| {
        let file = entry.file_name();
        Some(file.to_str()?.strip_suffix(".request.json")?.to_owned())
    };
    let mut names: Vec<String> = entries.flatten().filter_map(name).collect();
    names.sort();
    names.truncate(MAX_SAMPLES);
    names
}

/// Reads all samples.
pub fn samples(folder: &ModelFolder, model: &ServedModel) -> Result<Vec<Sample>, LoadFailure> {
    sample_names(folder)
        .iter()
        .map(|name| sample(folder, name, model))
        .collect()
}

/// Reads `samples/NAME.request.json`, and `samples/NAME.response.json` if it is there.
pub fn sample(folder: &ModelFolder, name: &str, model: &ServedModel) -> Result<Sample, LoadFailure> {
    let folder = folder.path.join("samples");
    let failed = |file: &str, error: String| invalid(format!("samples/{name}.{file}.json: {error}"));
    let bytes = std::fs::read(folder.join(format!("{name}.request.json")))
        .map_err(|e| failed("request", e.to_string()))?;
    let parsed = request::parse(&bytes, None, model).map_err(|error| failed("request", error.to_string()))?;
    let expected = match std::fs::read(folder.join(format!("{name}.response.json"))) {
        Ok(bytes) => {
            Some(request::parse_outputs(&bytes).map_err(|error| failed("response", error.to_string()))?)
        }
        Err(_) => None,
    };
    Ok(Sample {
        name: name.to_owned(),
        batch: parsed.batch,
        expected,
    })
}

/// Runs every sample, or one batch of zeros when there are none.
pub fn warm(engine: &mut dyn Engine, model: &ServedModel, samples: &[Sample]) -> Result<(), LoadFailure> {
    if samples.is_empty() {
        let run = engine.run(zeros(model, 1), &mut Outputs::default());
        return run
            .map_err(|error| invalid(format!("the model does not run on zeros: {error}; add samples/")));
    }
    samples
        .iter()
        .try_for_each(|sample| answers(engine, model, sample))
}

/// The engine's time a row, once it is warm: of the sample with the most rows, or of one pair of zeros.
pub fn row_time(
    engine: &mut dyn Engine,
    model: &ServedModel,
    samples: &[Sample],
) -> Result<Duration, LoadFailure> {
    let largest = samples.iter().max_by_key(|sample| sample.batch.rows);
    let batch = largest.map_or_else(|| zeros(model, 1), |sample| sample.batch.clone());
    let rows = u32::try_from(batch.rows).unwrap_or(u32::MAX).max(1);
    let started = Instant::now();
    let run = engine.run(batch, &mut Outputs::default());
    let took = started.elapsed();
    run.map_err(|error| invalid(format!("the model does not run again: {error}")))?;
    Ok(took / rows)
}

/// Runs a sample, and compares the answer with the known one.
pub fn answers(engine: &mut dyn Engine, model: &ServedModel, sample: &Sample) -> Result<(), LoadFailure> {
    let mut outputs = Outputs::default();
    let failed = |error: String| invalid(format!("sample {:?}: {error}", sample.name));
    engine
        .run(sample.batch.clone(), &mut outputs)
        .map_err(|error| failed(error.to_string()))?;
    let tolerance = Tolerance::of(model.config.precision);
    for (name, expected) in sample.expected.iter().flatten() {
        let index = model.signature.outputs.iter().position(|spec| spec.name == *name);
        let actual = index.and_then(|index| outputs.tensors.get(index));
        let actual = actual.ok_or_else(|| failed(format!("the model has no output {name:?}")))?;
        compare(name, actual, expected, tolerance).map_err(failed)?;
    }
    Ok(())
}

/// How requests are joined: as configured, unless the engine answers joined requests otherwise than single ones. A
/// model that compares the rows of a list (a softmax over them) would silently give wrong scores.
pub fn try_joining(engine: &mut dyn Engine, model: &ServedModel, samples: &[Sample]) -> Batching {
    if model.batching.max_rows < 2 {
        return model.batching;
    }
    // Rows of a table may be in bf16, in which nothing could be varied.
    let wide = |sample: &Sample| sample.batch.clone().wide(&model.layout);
    let mut parts: Vec<Batch> = samples.iter().map(wide).collect();
    if parts.is_empty() {
        parts.push(zeros(model, 1));
    }
    parts.push(varied(&parts[0]));
    parts = parts
        .iter()
        .filter(|part| merge::uniform(part) && merge::alike(part, &parts[0]))
        .cloned()
        .collect();
    match joined_equals_single(engine, model, &parts) {
        Ok(()) => model.batching,
        Err(reason) => {
            tracing::warn!(reason, "requests run one by one: joined ones get other answers");
            Batching::NONE
        }
    }
}

fn joined_equals_single(engine: &mut dyn Engine, model: &ServedModel, parts: &[Batch]) -> Result<(), String> {
    let mut singles = Vec::with_capacity(parts.len());
    for part in parts {
        let mut outputs = Outputs::default();
        engine
            .run(part.clone(), &mut outputs)
            .map_err(|error| error.to_string())?;
        singles.push(outputs);
    }
    let joined = merge::join(&parts.iter().collect::<Vec<_>>()).ok_or("inputs have no rows in front")?;
    let mut outputs = Outputs::default();
    engine
        .run(joined, &mut outputs)
        .map_err(|error| error.to_string())?;
    let rows: Vec<usize> = parts.iter().map(|part| part.rows).collect();
    let split = merge::split(&outputs, &rows).ok_or("an output has not as many rows as the inputs")?;
    for (single, part) in singles.iter().zip(&split) {
        for ((spec, expected), actual) in model
            .signature
            .outputs
            .iter()
            .zip(&single.tensors)
            .zip(&part.tensors)
        {
            compare(&spec.name, actual, expected, Tolerance::F32)?;
        }
    }
    Ok(())
}

/// The same ids with other floats: rows that do not resemble the given ones.
fn varied(batch: &Batch) -> Batch {
    let mut batch = batch.clone();
    for tensor in &mut batch.inputs {
        match &mut tensor.data {
            Data::F32(values) => values.iter_mut().for_each(|value| *value = 0.25 - 0.5 * *value),
            Data::F64(values) => values.iter_mut().for_each(|value| *value = 0.25 - 0.5 * *value),
            _ => {}
        }
    }
    batch
}

/// One request of `rows` pairs of zeros.
pub fn zeros(model: &ServedModel, rows: usize) -> Batch {
    let slots = model.layout.slots.iter();
    let rows_of = |slot: &Slot| if slot.once { 1 } else { rows };
    Batch {
        inputs: slots.map(|slot| zero_tensor(&slot.spec, rows_of(slot))).collect(),
        rows,
        lists: if model.layout.has_lists() {
            vec![rows]
        } else {
            vec![]
        },
    }
}

/// Zeros, of `rows` where the first dimension counts them.
pub fn zero_tensor(spec: &TensorSpec, rows: usize) -> Tensor {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        Dim::Named(_) | Dim::Any if axis == 0 => rows,
        Dim::Named(_) | Dim::Any => 1,
    };
    let shape: Vec<usize> = spec.dims.iter().enumerate().map(size).collect();
    let data = spec.datatype.zeros(shape.iter().product());
    Tensor { shape, data }
}

fn compare(name: &str, actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if actual.shape != expected.shape || actual.data.datatype() != expected.data.datatype() {
        return Err(format!(
            "output {name:?} has shape {:?}, the known answer {:?}",
            actual.shape, expected.shape
        ));
    }
    // A NaN is far from everything.
    let Tolerance { relative, absolute } = tolerance;
    let far = |a: f64, b: f64| a.is_nan() || (a - b).abs() > absolute + relative * b.abs();
    let differs = match (&actual.data, &expected.data) {
        (Data::F32(a), Data::F32(b)) => a
            .iter()
            .zip(b)
            .position(|(a, b)| far(f64::from(*a), f64::from(*b))),
        (Data::F64(a), Data::F64(b)) => a.iter().zip(b).position(|(a, b)| far(*a, *b)),
        (a, b) => (a != b).then_some(0),
    };
    match differs {
        Some(index) => Err(format!(
            "output {name:?} differs from the known answer at element {index}"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::RunError;
    use crate::protocol::request::tests::model;

    /// Sums each row, less the mean of all rows if it is listwise.
    struct Sums {
        listwise: bool,
    }

    impl Engine for Sums {
        fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
            let Data::F32(dense) = &batch.inputs[0].data else {
                return Err(RunError::Refused("no floats".into()));
            };
            let mut sums: Vec<f32> = dense.chunks(2).map(|row| row.iter().sum()).collect();
            let mean = sums.iter().sum::<f32>() / sums.len() as f32;
            if self.listwise {
                sums.iter_mut().for_each(|sum| *sum -= mean);
            }
            outputs.tensors = vec![Tensor {
                shape: vec![batch.rows],
                data: Data::F32(sums),
            }];
            Ok(())
        }
    }

    #[test]
    fn listwise_models_are_not_joined() {
        let model = model();
        let sample = Sample {
            name: "one".into(),
            batch: zeros(&model, 1),
            expected: None,
        };
        let mut half = Sample {
            name: "half".into(),
            batch: zeros(&model, 1),
            expected: None,
        };
        half.batch.inputs[0].data = Data::U16(vec![0; 2]);
        for samples in [vec![], vec![sample], vec![half]] {
            let rows = |listwise| try_joining(&mut Sums { listwise }, &model, &samples).max_rows;
            assert_eq!(rows(false), model.batching.max_rows);
            assert_eq!(rows(true), 1);
        }
    }
}
