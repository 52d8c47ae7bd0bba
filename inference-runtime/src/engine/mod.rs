//! Engines: one trait. An engine is synchronous, is owned by one thread, and may keep scratch memory.

pub mod merge;
pub mod onnx;
pub mod tensor;

use std::path::Path;

pub use tensor::{Data, Datatype, Tensor};

use crate::failure::LoadFailure;
use crate::model::config::Device;

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

/// Inputs of one run, in the order of the signature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub inputs: Vec<Tensor>,
    /// First dimension of the inputs: pairs to be scored.
    pub rows: usize,
}

/// Outputs of one run, in the order of the signature; kept by the caller, so that memory is used again.
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
    /// Scores `batch`. No async, no blocking beyond the computation.
    fn run(&mut self, batch: &Batch, outputs: &mut Outputs) -> Result<(), RunError>;
}

/// Makes engines of one kind; a loaded model makes one engine a worker, sharing what can be shared.
pub trait Loader: Send {
    fn load(&mut self, model: &Path, device: Device) -> Result<Loaded, LoadFailure>;
}

pub struct Loaded {
    pub engine: Box<dyn Engine>,
    pub signature: Signature,
}
