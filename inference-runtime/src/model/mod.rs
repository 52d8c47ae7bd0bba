//! A model from its address to engines that are warm: fetched, verified, configured, loaded, tried.

pub mod config;
pub mod digest;
pub mod folder;
pub mod source;
pub mod uri;
pub mod warmup;

use std::sync::Arc;

use crate::engine::Signature;
use crate::queue::Batching;

/// What requests need to know of the model that serves them.
#[derive(Clone, Debug)]
pub struct ServedModel {
    pub name: String,
    pub version: String,
    pub signature: Arc<Signature>,
    pub config: Arc<config::ModelConfig>,
    /// How its requests are joined.
    pub batching: Batching,
}
