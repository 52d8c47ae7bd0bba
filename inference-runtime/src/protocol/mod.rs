//! The Open Inference Protocol V2 over REST: JSON bodies and the binary tensor extension.

pub mod error;
pub mod metadata;
pub mod request;
pub mod response;
pub mod values;

pub use error::ApiError;
