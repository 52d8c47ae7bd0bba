//! Engines: one trait. An engine is synchronous, is owned by one thread, and may keep scratch memory.

pub mod choice;
pub mod external;
pub mod layout;
pub mod merge;
pub mod onnx;
pub mod rank;
pub mod tensor;

pub use choice::{Chosen, EngineName};
pub use layout::Layout;
pub use tensor::{Data, Datatype, Tensor};

use std::ops::Range;

use ::rank::pass::vocabulary::Vocabulary;
use ::rank::tensor::widened;

use crate::failure::LoadFailure;

/// One dimension of a model's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    Fixed(usize),
    /// Any size, but the same wherever the same name stands.
    Named(String),
    Any,
}

/// What a model expects of an input, or says of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: String,
    pub datatype: Datatype,
    pub dims: Vec<Dim>,
}

impl TensorSpec {
    pub fn new(name: &str, datatype: Datatype, dims: Vec<Dim>) -> Self {
        Self {
            name: name.to_owned(),
            datatype,
            dims,
        }
    }

    /// Shape in the protocol: -1 for a dimension of any size.
    pub fn protocol_shape(&self) -> Vec<i64> {
        let dim = |dim: &Dim| match dim {
            Dim::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Dim::Named(_) | Dim::Any => -1,
        };
        self.dims.iter().map(dim).collect()
    }

    /// Whether the first dimension counts rows.
    pub fn batched(&self) -> bool {
        matches!(self.dims.first(), Some(Dim::Named(_) | Dim::Any))
    }
}

/// As messages list them.
pub fn names(specs: &[TensorSpec]) -> String {
    let names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.join(", ")
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Whether every input and output has rows in front, so that a client may choose the batch size.
    pub fn batched(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).all(TensorSpec::batched)
    }
}

/// Inputs of one run, in the order of the layout's slots. One of FP32 may be UINT16: the upper halves of its numbers, where an
/// item table in bf16 has filled it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub inputs: Vec<Tensor>,
    /// Pairs to be scored.
    pub rows: usize,
    /// Pairs of each list, where some inputs have one row a list; else empty.
    pub lists: Vec<usize>,
}

impl Batch {
    /// What an engine is given; the number of rows stays.
    pub fn take(&mut self) -> Batch {
        Batch {
            inputs: std::mem::take(&mut self.inputs),
            lists: std::mem::take(&mut self.lists),
            rows: self.rows,
        }
    }

    /// With FP32 wherever the model takes it.
    pub fn wide(mut self, layout: &Layout) -> Batch {
        for (tensor, slot) in self.inputs.iter_mut().zip(&layout.slots) {
            if let (Datatype::F32, Data::U16(halves)) = (slot.spec.datatype, &tensor.data) {
                tensor.data = Data::F32(halves.iter().copied().map(widened).collect());
            }
        }
        self
    }

    /// The list that each pair belongs to.
    pub fn segments(&self) -> Vec<usize> {
        if self.lists.is_empty() {
            return vec![0; self.rows];
        }
        let mut segments = Vec::with_capacity(self.rows);
        for (list, pairs) in self.lists.iter().enumerate() {
            segments.resize(segments.len() + pairs, list);
        }
        segments
    }
}

/// Outputs of one run, in the order of the signature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outputs {
    pub tensors: Vec<Tensor>,
}

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The model refuses these inputs; the client can mend it.
    #[error("the model refuses the inputs: {0}")]
    Refused(String),
    #[error("the engine failed: {0}")]
    Failed(String),
}

pub trait Engine: Send {
    /// Scores `batch`, whose memory it may use. No async, no blocking beyond the computation.
    fn run(&mut self, batch: Batch, outputs: &mut Outputs) -> Result<(), RunError>;
    /// The same engine for runs whose pairs several threads share: only where rows are proven independent.
    fn divisible(&mut self) -> Option<&mut dyn Divisible> {
        None
    }
}

/// An engine whose runs can be cut into parts by pairs.
pub trait Divisible {
    /// Pairs of a part at the least: with fewer, all of them together would take notably longer.
    fn least(&self) -> usize;
    /// Begins a run: computes what belongs to its requests. Fails as [`Engine::run`] does.
    fn begin(&mut self, batch: Batch) -> Result<Box<dyn Begun>, RunError>;
}

/// A run that has begun: any threads may score its pairs, at the same time.
pub trait Begun: Send + Sync {
    /// Scores some of the pairs; `outputs` get what the whole run gives for these, to the bit.
    fn part(&self, pairs: Range<usize>, outputs: &mut Outputs) -> Result<(), RunError>;
}

/// A model as one kind of engine has opened it: makes an engine a worker, which share what can be shared.
pub trait Loader: Send {
    fn signature(&self) -> &Signature;
    /// Whether a run's time grows with its rows alone, so that short ones can be told beforehand.
    fn is_predictable(&self) -> bool {
        false
    }
    /// How many ids columns of the inputs may have, where the graph proves it.
    fn vocabularies(&self) -> &[Vocabulary] {
        &[]
    }
    /// `layout` is of this signature.
    fn engine(&mut self, layout: &Layout) -> Result<Box<dyn Engine>, LoadFailure>;
}
