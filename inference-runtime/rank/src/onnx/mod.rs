//! ONNX files: reading into the IR, and writing the IR as ONNX again.

mod attributes;
mod bags;
mod constant;
mod emit;
mod import;
mod lower;
mod step;

use prost::Message as _;

pub use emit::emit;
pub use import::import;

/// Message types generated from `proto/onnx.proto`.
#[allow(clippy::all, missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// Why a graph is not taken: one reason, at the first place that it is met.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error("not an ONNX model: {0}; the file is damaged or of another kind")]
    Format(String),
    #[error("the model {0}")]
    Model(String),
    #[error("{what} {name:?}: {reason}")]
    Value {
        what: &'static str,
        name: String,
        reason: String,
    },
    #[error("node {node:?} ({operator}): {reason}")]
    Node {
        node: String,
        operator: String,
        reason: String,
    },
}

/// Reads data that a model keeps in files beside it. The caller decides where that is, and refuses what leads out.
pub trait ExternalData {
    /// `length` bytes of `location` from `offset`; `None` for the whole rest.
    fn read(&self, location: &str, offset: u64, length: Option<u64>) -> Result<Vec<u8>, String>;
}

/// For models in one file.
pub struct NoExternalData;

impl ExternalData for NoExternalData {
    fn read(&self, location: &str, _offset: u64, _length: Option<u64>) -> Result<Vec<u8>, String> {
        Err(format!(
            "its data is in the file {location:?}, and no other files were given"
        ))
    }
}

pub fn decode(content: &[u8]) -> Result<proto::ModelProto, Refusal> {
    proto::ModelProto::decode(bytes::Bytes::copy_from_slice(content))
        .map_err(|error| Refusal::Format(error.to_string()))
}
