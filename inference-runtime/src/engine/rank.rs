//! The engine of our own: a model compiled once, its plan shared by all workers, each with scratch memory of its own.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rank::Model;
use rank::interpret::EvalError;
use rank::ir::{Extent, Fact, ValueId};
use rank::pass::rows::Rows;
use rank::pass::vocabulary::{self, Vocabulary};
use rank::plan::{self, Options, Plan, Scratch};
use rank::tensor::{self as own, Element};

use super::choice::{Fallback, NotRank};
use super::external::Beneath;
use super::{
    Batch, Begun, Data, Datatype, Dim, Divisible, Engine, Layout, Loader, Outputs, RunError, Signature,
    Tensor, TensorSpec,
};
use crate::failure::{LoadFailure, Reason};
use crate::model::config::ModelConfig;

/// How far scores in bf16 may be from those in f32, relative to the larger of 1 and the score. Both factors of each product are
/// off by up to 2^-9 = 0.002; real exports are off by up to 0.004.
pub const BF16_TOLERANCE: f64 = 0.01;

pub struct RankLoader {
    plan: Arc<Plan>,
    spare: Arc<Spare>,
    signature: Signature,
    vocabularies: Vec<Vocabulary>,
}

fn invalid(message: String) -> LoadFailure {
    LoadFailure::permanent(Reason::ModelInvalid, message)
}

/// Reads the model; `Err` inside says why it is none for this engine.
pub fn read(model: &Path) -> Result<Result<Model, NotRank>, LoadFailure> {
    let content = std::fs::read(model).map_err(|error| invalid(format!("{}: {error}", model.display())))?;
    let read = Model::load(&content, &Beneath::of(model));
    Ok(read.map_err(|refusal| NotRank::new(Fallback::Operators, refusal.to_string())))
}

impl RankLoader {
    /// Compiles the model. A model outside of the engine's operators is not an error, a wrong configuration is.
    pub fn open(model: &Path, config: &ModelConfig) -> Result<Result<Self, NotRank>, LoadFailure> {
        let model = match read(model)? {
            Ok(model) => model,
            Err(reason) => return Ok(Err(reason)),
        };
        let signature = signature(&model);
        config.layout(&signature)?;
        Ok(compile(&model, config).map(|plan| Self {
            plan: Arc::new(plan),
            spare: Arc::default(),
            signature,
            vocabularies: vocabulary::infer(&model.graph, &model.rows),
        }))
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

fn compile(model: &Model, config: &ModelConfig) -> Result<Plan, NotRank> {
    if let Rows::Listwise(reason) = &model.rows
        && !config.request_inputs.is_empty()
    {
        return Err(NotRank::new(
            Fallback::Listwise,
            format!("the model is listwise: {reason}"),
        ));
    }
    let options = Options {
        once: config.request_inputs.once().to_vec(),
        instruction_set: config.instruction_set,
        precision: config.precision,
    };
    Plan::compile(model, &options).map_err(|reason| NotRank::new(Fallback::Operators, reason))
}

impl Loader for RankLoader {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn vocabularies(&self) -> &[Vocabulary] {
        &self.vocabularies
    }

    fn is_predictable(&self) -> bool {
        *self.plan.rows() == Rows::Independent
    }

    fn engine(&mut self, layout: &Layout) -> Result<Box<dyn Engine>, LoadFailure> {
        let slot = |input: &rank::plan::Input| {
            let place = layout.slots.iter().position(|slot| slot.spec.name == input.name);
            place.ok_or_else(|| {
                invalid(format!(
                    "the compiled model takes {:?}, which nothing gives",
                    input.name
                ))
            })
        };
        Ok(Box::new(RankEngine {
            slots: self.plan.inputs().iter().map(slot).collect::<Result<_, _>>()?,
            scratch: self.plan.scratch(),
            plan: Arc::clone(&self.plan),
            spare: Arc::clone(&self.spare),
            outputs: Vec::new(),
        }))
    }
}

struct RankEngine {
    plan: Arc<Plan>,
    /// Where each of the plan's inputs is in a batch.
    slots: Vec<usize>,
    scratch: Scratch,
    outputs: Vec<own::Tensor>,
    spare: Arc<Spare>,
}

/// Memory of threads that score parts of a model's runs.
type Spare = Mutex<Vec<Scratch>>;

impl RankEngine {
    /// A batch's inputs as the plan takes them.
    fn inputs(&self, batch: &mut Batch) -> Result<Vec<own::Tensor>, RunError> {
        let mut inputs = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let tensor = batch.inputs.get_mut(*slot);
            let tensor = tensor.map(|tensor| std::mem::replace(tensor, Tensor::EMPTY));
            inputs.push(tensor.and_then(into_own).ok_or_else(|| {
                RunError::Failed(format!("input {slot} of the batch is missing or of another type"))
            })?);
        }
        Ok(inputs)
    }
}

impl Engine for RankEngine {
    fn run(&mut self, mut batch: Batch, outputs: &mut Outputs) -> Result<(), RunError> {
        let segments = batch.segments();
        let inputs = self.inputs(&mut batch)?;
        let run = self
            .plan
            .run(&inputs, &segments, &mut self.scratch, &mut self.outputs);
        run.map_err(|error| refused_or_failed(&error))?;
        outputs.tensors.clear();
        outputs.tensors.extend(self.outputs.drain(..).map(from_own));
        Ok(())
    }

    fn divisible(&mut self) -> Option<&mut dyn Divisible> {
        self.plan.least_part().is_some().then_some(self)
    }
}

impl Divisible for RankEngine {
    fn least(&self) -> usize {
        self.plan.least_part().unwrap_or(usize::MAX)
    }

    fn begin(&mut self, mut batch: Batch) -> Result<Box<dyn Begun>, RunError> {
        let segments = batch.segments();
        let inputs = self.inputs(&mut batch)?;
        let begun = self.plan.begin(inputs, segments, &mut self.scratch);
        Ok(Box::new(RankRun {
            begun: begun.map_err(|error| refused_or_failed(&error))?,
            plan: Arc::clone(&self.plan),
            spare: Arc::clone(&self.spare),
        }))
    }
}

struct RankRun {
    plan: Arc<Plan>,
    begun: plan::Begun,
    spare: Arc<Spare>,
}

impl Begun for RankRun {
    fn part(&self, pairs: Range<usize>, outputs: &mut Outputs) -> Result<(), RunError> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let mut scratch = spare().pop().unwrap_or_else(|| self.plan.scratch());
        let mut scored = Vec::new();
        let part = self.plan.part(&self.begun, pairs, &mut scratch, &mut scored);
        spare().push(scratch);
        part.map_err(|error| refused_or_failed(&error))?;
        outputs.tensors = scored.into_iter().map(from_own).collect();
        Ok(())
    }
}

fn refused_or_failed(error: &EvalError) -> RunError {
    let mut cause = error;
    while let EvalError::Node { source, .. } = cause {
        cause = source;
    }
    match cause {
        // What a client sends decides these.
        EvalError::Index { .. } | EvalError::DivisionByZero | EvalError::Input { .. } => {
            RunError::Refused(error.to_string())
        }
        _ => RunError::Failed(error.to_string()),
    }
}

fn into_own(tensor: Tensor) -> Option<own::Tensor> {
    let shape = tensor.shape;
    Some(match tensor.data {
        Data::F32(values) => own::Tensor::f32(shape, values),
        Data::U16(halves) => own::Tensor::bf16(shape, halves),
        Data::I64(values) => own::Tensor::i64(shape, values),
        Data::I32(values) => {
            own::Tensor::int(Element::I32, shape, values.into_iter().map(i64::from).collect())
        }
        Data::Bool(values) => own::Tensor::bool(shape, values),
        _ => return None,
    })
}

fn from_own(tensor: own::Tensor) -> Tensor {
    let tensor = tensor.into_wide();
    let data = match (tensor.data, tensor.element) {
        (own::Data::F32(values), _) => Data::F32(values),
        (own::Data::Bf16(_), _) => unreachable!("it was made wide"),
        (own::Data::Bool(values), _) => Data::Bool(values),
        // They are kept within 32 bits.
        #[allow(clippy::cast_possible_truncation)]
        (own::Data::Int(values), Element::I32) => {
            Data::I32(values.into_iter().map(|value| value as i32).collect())
        }
        (own::Data::Int(values), _) => Data::I64(values),
    };
    Tensor {
        shape: tensor.shape,
        data,
    }
}

/// Inputs and outputs as the protocol tells them; the rows are one dimension wherever they are in front.
pub fn signature(model: &Model) -> Signature {
    let specs = |ids: &[ValueId]| {
        let spec = |id: &ValueId| spec(&model.graph.value(*id).name, model.graph.fact(*id));
        ids.iter().map(spec).collect()
    };
    Signature {
        inputs: specs(&model.graph.inputs),
        outputs: specs(&model.graph.outputs),
    }
}

fn spec(name: &str, fact: &Fact) -> TensorSpec {
    let dim = |extent: &Extent| match extent.as_fixed() {
        Some(size) => Dim::Fixed(size),
        None if *extent == Extent::N => Dim::Named("rows".to_owned()),
        None => Dim::Any,
    };
    TensorSpec {
        name: name.to_owned(),
        datatype: match fact.element {
            Element::F32 => Datatype::F32,
            Element::I64 => Datatype::I64,
            Element::I32 => Datatype::I32,
            Element::Bool => Datatype::Bool,
        },
        dims: fact.shape.iter().map(dim).collect(),
    }
}

#[cfg(test)]
#[path = "rank_tests.rs"]
mod tests;
