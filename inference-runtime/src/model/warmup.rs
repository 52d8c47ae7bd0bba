//! Warm-up: each engine answers the model's samples, or zeros, before the replica is ready.

use std::path::Path;

use super::ServedModel;
use super::folder::ModelFolder;
use crate::engine::{Batch, Data, Dim, Engine, Outputs, Tensor, TensorSpec};
use crate::failure::{LoadFailure, Reason};
use crate::protocol::request;

/// Samples are for warm-up, not for load tests.
const MAX_SAMPLES: usize = 32;
/// Answers were computed on another machine, perhaps by another engine: sums differ in their last bits.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-4;

/// A request of `samples/`, with the answer if it is known.
pub struct Sample {
    pub name: String,
    pub batch: Batch,
    pub expected: Option<Vec<(String, Tensor)>>,
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelInvalid, message)
}

/// Reads `samples/NAME.request.json` and `samples/NAME.response.json`.
pub fn samples(folder: &ModelFolder, model: &ServedModel) -> Result<Vec<Sample>, LoadFailure> {
    let Ok(entries) = std::fs::read_dir(folder.path.join("samples")) else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            Some(
                entry
                    .file_name()
                    .to_str()?
                    .strip_suffix(".request.json")?
                    .to_owned(),
            )
        })
        .collect();
    names.sort();
    names.truncate(MAX_SAMPLES);
    names
        .into_iter()
        .map(|name| sample(&folder.path.join("samples"), name, model))
        .collect()
}

fn sample(folder: &Path, name: String, model: &ServedModel) -> Result<Sample, LoadFailure> {
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
        name,
        batch: parsed.batch,
        expected,
    })
}

/// Runs every sample, or one batch of zeros when there are none.
pub fn warm(engine: &mut dyn Engine, model: &ServedModel, samples: &[Sample]) -> Result<(), LoadFailure> {
    let mut outputs = Outputs::default();
    if samples.is_empty() {
        let inputs = model.signature.inputs.iter().map(zeros).collect();
        let run = engine.run(&Batch { inputs, rows: 1 }, &mut outputs);
        return run
            .map_err(|error| invalid(format!("the model does not run on zeros: {error}; add samples/")));
    }
    for sample in samples {
        let failed = |error: String| invalid(format!("sample {:?}: {error}", sample.name));
        engine
            .run(&sample.batch, &mut outputs)
            .map_err(|error| failed(error.to_string()))?;
        for (name, expected) in sample.expected.iter().flatten() {
            let index = model.signature.outputs.iter().position(|spec| spec.name == *name);
            let actual = index.and_then(|index| outputs.tensors.get(index));
            let actual = actual.ok_or_else(|| failed(format!("the model has no output {name:?}")))?;
            compare(name, actual, expected).map_err(failed)?;
        }
    }
    Ok(())
}

fn zeros(spec: &TensorSpec) -> Tensor {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => *size,
        Dim::Named(_) | Dim::Any => 1,
    };
    let shape: Vec<usize> = spec.dims.iter().map(size).collect();
    let data = spec.datatype.zeros(shape.iter().product());
    Tensor { shape, data }
}

fn compare(name: &str, actual: &Tensor, expected: &Tensor) -> Result<(), String> {
    if actual.shape != expected.shape || actual.data.datatype() != expected.data.datatype() {
        return Err(format!(
            "output {name:?} has shape {:?}, the known answer {:?}",
            actual.shape, expected.shape
        ));
    }
    // A NaN is far from everything.
    let far = |a: f64, b: f64| a.is_nan() || (a - b).abs() > ABSOLUTE + RELATIVE * b.abs();
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
