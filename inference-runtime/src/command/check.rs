//! `check FOLDER`: loads a model folder as `serve` would, and goes on after a problem where that makes sense.

use std::fmt;

use crate::args::Check;
use crate::engine::choice::EngineName;
use crate::engine::layout::Sent;
use crate::engine::onnx::OnnxLoader;
use crate::engine::rank::{BF16_TOLERANCE, RankLoader};
use crate::engine::{Batch, Data, Datatype, Dim, Engine, Loader, Outputs, Signature, Tensor, TensorSpec};
use crate::failure::LoadFailure;
use crate::ids::Column;
use crate::model::ServedModel;
use crate::model::config::Device;
use crate::model::digest::{Digest, Manifest};
use crate::model::folder::{self, ModelFolder};
use crate::model::loading::{self, Wanted};
use crate::model::{ranking, warmup};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rank::plan::Precision;

/// How far engines may be apart, relative to the larger of 1 and the score: sums in another order.
const TOLERANCE: f64 = 2e-5;
/// Pairs of made-up inputs; in bf16 enough for a ranking.
const ROWS: usize = 16;
const RANKED_ROWS: usize = 200;
/// Of the pairs of a list, those whose place among the best counts.
const BEST: usize = 10;

/// What was found, in the order in which it was looked at.
#[derive(Debug, Default)]
pub struct Report {
    pub notes: Vec<String>,
    /// One line each: what is wrong, and the remedy.
    pub problems: Vec<String>,
}

impl Report {
    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// The value, or the failure as a problem.
    fn take<T>(&mut self, result: Result<T, LoadFailure>) -> Option<T> {
        result.map_err(|failure| self.problem(failure.to_string())).ok()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {}", problem.replace('\n', " "))?;
        }
        match self.problems.len() {
            0 => writeln!(f, "the model can be served"),
            1 => writeln!(f, "1 problem"),
            count => writeln!(f, "{count} problems"),
        }
    }
}

pub fn check(args: &Check) -> Report {
    let mut report = Report::default();
    let digest = files(args, &mut report);
    let folder = ModelFolder {
        path: args.folder.clone(),
        digest: digest.unwrap_or_else(|| Digest::of(b"")),
    };
    let wanted = Wanted {
        name: "model".to_owned(),
        version: "1".to_owned(),
        device: args.device,
        instruction_set: None,
        workers: 1,
    };
    let Some(mut opened) = report.take(loading::open(&folder, &wanted)) else {
        return report;
    };
    let engine = opened.model.chosen.engine.as_str();
    match &opened.model.chosen.not_rank {
        Some(not) => report.note(format!("engine: {engine} ({})", not.reason)),
        None => report.note(format!("engine: {engine}")),
    }
    if let Some(cascade) = &opened.model.config.cascade {
        report.note(format!(
            "cascade: {:?} is not here to be checked; that it fits is checked when both are served",
            cascade.model
        ));
    }
    if let Some(mut engine) = report.take(opened.engine()) {
        let mut batches = samples(&folder, &opened.model, engine.as_mut(), &mut report);
        batches.push(made_up(&opened.model));
        compared(&folder, &opened.model, (engine.as_mut(), batches), &mut report);
    }
    report
}

/// The manifest against the files; gives back the folder's digest.
fn files(args: &Check, report: &mut Report) -> Option<Digest> {
    let path = args.folder.join(Manifest::FILE);
    let again = "write it with `pinnace-runtime manifest FOLDER`";
    let bytes = std::fs::read(&path);
    let bytes = bytes
        .map_err(|error| report.problem(format!("{}: {error}; {again}", path.display())))
        .ok()?;
    let manifest = report.take(Manifest::parse(&bytes, None))?;
    for (name, file) in &manifest.files {
        match Digest::of_file(&args.folder.join(name)) {
            Err(error) => report.problem(format!("{name} is in manifest.json and cannot be read: {error}")),
            Ok(digest) if digest != file.digest => report.problem(format!(
                "{name} has digest {digest}, manifest.json says {}; restore the file, or {again}",
                file.digest
            )),
            Ok(_) => {}
        }
    }
    for name in folder::files(&args.folder).unwrap_or_default() {
        if !manifest.files.contains_key(&name) {
            report.problem(format!(
                "{name} is not in manifest.json, so it is not served; {again}"
            ));
        }
    }
    let digest = Digest::of(&bytes);
    report.note(format!("digest: {digest}"));
    Some(digest)
}

/// Runs the samples as `serve` does; gives back what they ask.
fn samples(
    folder: &ModelFolder,
    model: &ServedModel,
    engine: &mut dyn Engine,
    report: &mut Report,
) -> Vec<Batch> {
    let mut batches = Vec::new();
    let names = warmup::sample_names(folder);
    for name in &names {
        if let Some(sample) = report.take(warmup::sample(folder, name, model)) {
            report.take(warmup::answers(engine, model, &sample));
            batches.push(sample.batch);
        }
    }
    if names.is_empty() {
        report.take(warmup::warm(engine, model, &[]));
    }
    report.note(format!("samples: {}", names.len()));
    batches
}

/// The model in the engine that was not chosen, or why it is not there.
fn other(folder: &ModelFolder, model: &ServedModel) -> Result<Box<dyn Engine>, String> {
    let path = folder.model();
    let mut loader: Box<dyn Loader> = match model.chosen.engine {
        EngineName::Rank => match OnnxLoader::open(&path, Device::Cpu) {
            Ok(loader) => Box::new(loader),
            Err(failure) => return Err(failure.message),
        },
        EngineName::OnnxRuntime => match RankLoader::open(&path, &model.config) {
            Ok(Ok(loader)) => Box::new(loader),
            Ok(Err(not)) => return Err(not.reason),
            Err(failure) => return Err(failure.message),
        },
    };
    loader.engine(&model.layout).map_err(|failure| failure.message)
}

/// Compares the engine that was chosen with the other one.
fn compared(
    folder: &ModelFolder,
    model: &ServedModel,
    (engine, batches): (&mut dyn Engine, Vec<Batch>),
    report: &mut Report,
) {
    let mut other = match other(folder, model) {
        Ok(other) => other,
        Err(reason) => return report.note(format!("engines not compared: {reason}")),
    };
    let mut largest = 0.0_f64;
    let mut kept = Kept::default();
    for batch in batches {
        let rows = batch.rows;
        let compared = run_both(engine, other.as_mut(), batch).and_then(|[a, b]| {
            kept.add(&a, &b, rows);
            difference(&model.signature, &a, &b)
        });
        match compared {
            Ok(difference) => largest = largest.max(difference),
            Err(reason) => return report.problem(format!("the engines cannot be compared: {reason}")),
        }
    }
    let (tolerance, remedy) = match model.config.precision {
        Precision::F32 => (
            TOLERANCE,
            "say engine: onnxruntime in config.yaml, and report the model",
        ),
        Precision::Bf16 => (BF16_TOLERANCE, "say precision: f32 in config.yaml"),
    };
    if model.config.precision == Precision::Bf16 {
        report.note(kept.to_string());
    }
    if largest <= tolerance {
        return report.note(format!(
            "rank and onnxruntime agree: largest difference {largest:.1e}"
        ));
    }
    report.problem(format!(
        "rank and onnxruntime differ by {largest:.1e}, more than {tolerance:.0e}; {remedy}"
    ));
}

/// How many of the best tenth of each list are among the best in both.
#[derive(Debug, Default)]
struct Kept {
    of: usize,
    same: usize,
}

impl Kept {
    /// Counts every output with one score a pair, of lists that have a tenth.
    fn add(&mut self, a: &Outputs, b: &Outputs, rows: usize) {
        for (a, b) in a.tensors.iter().zip(&b.tensors) {
            let (Data::F32(_), Some(a), Some(b)) = (&a.data, a.data.floats(), b.data.floats()) else {
                continue;
            };
            let count = rows / BEST;
            if a.len() == rows && b.len() == rows {
                self.of += count;
                self.same += ranking::agreed(&a, &b, count);
            }
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, same } = self;
        write!(
            f,
            "bf16 keeps {same} of the {of} best pairs, which are the best tenth of each list"
        )
    }
}

fn run_both(one: &mut dyn Engine, two: &mut dyn Engine, batch: Batch) -> Result<[Outputs; 2], String> {
    let (mut a, mut b) = (Outputs::default(), Outputs::default());
    one.run(batch.clone(), &mut a)
        .map_err(|error| error.to_string())?;
    two.run(batch, &mut b).map_err(|error| error.to_string())?;
    Ok([a, b])
}

/// The largest difference of any score, relative to the larger of 1 and the score.
fn difference(signature: &Signature, a: &Outputs, b: &Outputs) -> Result<f64, String> {
    let mut largest = 0.0_f64;
    for (spec, (a, b)) in signature.outputs.iter().zip(a.tensors.iter().zip(&b.tensors)) {
        if a.shape != b.shape {
            return Err(format!(
                "output {:?} has shape {:?} and {:?}",
                spec.name, a.shape, b.shape
            ));
        }
        let difference = match (&a.data, &b.data) {
            (Data::F32(a), Data::F32(b)) => a
                .iter()
                .zip(b)
                .map(|(a, b)| apart((*a).into(), (*b).into()))
                .fold(0.0, f64::max),
            (a, b) if a == b => 0.0,
            _ => f64::INFINITY,
        };
        largest = largest.max(difference);
    }
    Ok(largest)
}

fn apart(a: f64, b: f64) -> f64 {
    if a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) {
        return 0.0;
    }
    let difference = (a - b).abs() / a.abs().max(1.0);
    if difference.is_nan() {
        f64::INFINITY
    } else {
        difference
    }
}

/// Inputs of the model's shapes: numbers from -1 to 1, ids within their vocabularies, else 0.
fn made_up(model: &ServedModel) -> Batch {
    let mut random = StdRng::seed_from_u64(1);
    let rows = match model.config.precision {
        Precision::F32 => ROWS,
        Precision::Bf16 => RANKED_ROWS,
    };
    let mut sent = Vec::with_capacity(model.signature.inputs.len());
    for spec in &model.signature.inputs {
        let rules = model.ids.of(&spec.name);
        let columns = rules.map_or(&[][..], |rules| rules.columns());
        sent.push(Sent::Whole(tensor(spec, rows, columns, &mut random)));
    }
    let rows = if model.signature.batched() { rows } else { 1 };
    model.layout.batch(sent, rows)
}

fn tensor(spec: &TensorSpec, rows: usize, columns: &[Column], random: &mut StdRng) -> Tensor {
    let size = |(axis, dim): (usize, &Dim)| match dim {
        Dim::Fixed(size) => *size,
        Dim::Named(_) | Dim::Any if axis == 0 => rows,
        Dim::Named(_) | Dim::Any => 1,
    };
    let shape: Vec<usize> = spec.dims.iter().enumerate().map(size).collect();
    let count = shape.iter().product();
    let mut ids = || -> Vec<i64> {
        let sizes = columns.iter().cycle().take(count);
        let size = |column: &Column| column.vocabulary.map_or(1, |(size, _)| size);
        sizes
            .map(|column| i64::try_from(random.random_range(0..size(column))).unwrap_or(0))
            .collect()
    };
    let data = match spec.datatype {
        Datatype::I64 if !columns.is_empty() => Data::I64(ids()),
        Datatype::I32 if !columns.is_empty() => Data::I32(
            ids()
                .into_iter()
                .map(|id| i32::try_from(id).unwrap_or(0))
                .collect(),
        ),
        Datatype::F32 => Data::F32((0..count).map(|_| random.random_range(-1.0..1.0)).collect()),
        other => other.zeros(count),
    };
    Tensor { shape, data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scores(values: &[f32]) -> Outputs {
        let tensor = |data: Data, width| Tensor {
            shape: vec![values.len(), width],
            data,
        };
        let ids = Data::I64(vec![0; values.len()]);
        Outputs {
            tensors: vec![tensor(ids, 1), tensor(Data::F32(values.to_vec()), 1)],
        }
    }

    #[test]
    fn the_best_are_compared_as_sets() {
        let mut a: Vec<f32> = (0..20).map(|pair| pair as f32).collect();
        let mut kept = Kept::default();
        kept.add(&scores(&a), &scores(&a), 20);
        assert_eq!((kept.same, kept.of), (2, 2));
        let before = scores(&a);
        // In another order, then one of them gone.
        a.swap(18, 19);
        kept.add(&before, &scores(&a), 20);
        assert_eq!((kept.same, kept.of), (4, 4));
        a[3] = 50.0;
        kept.add(&before, &scores(&a), 20);
        assert_eq!((kept.same, kept.of), (5, 6));
    }
}
