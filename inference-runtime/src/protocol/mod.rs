//! The Open Inference Protocol V2 over REST (JSON and the binary tensor extension) and gRPC.

pub mod candidates;
pub mod check;
pub mod codec;
pub mod declared;
pub mod error;
pub mod grpc;
pub mod metadata;
pub mod request;
pub mod response;
pub mod text;
pub mod values;

pub use error::ApiError;

/// Messages and service of `proto/inference.proto`.
#[allow(clippy::too_many_lines)]
pub mod pb {
    tonic::include_proto!("inference");
}
