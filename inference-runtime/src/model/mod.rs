//! A model from its address to engines that are warm: fetched, verified, configured, loaded, tried.

pub mod config;
pub mod digest;
pub mod folder;
pub mod loading;
pub mod pbtxt;
pub mod ranking;
pub mod source;
pub mod top_k;
pub mod triton;
pub mod uri;
pub mod utility;
pub mod warmup;

use std::sync::Arc;

use crate::engine::{Chosen, Layout, Signature};
use crate::ids::IdRules;
use crate::items::ItemTable;
use crate::queue::Batching;

/// What requests need to know of the model that serves them.
#[derive(Clone, Debug)]
pub struct ServedModel {
    pub name: String,
    pub version: String,
    pub signature: Arc<Signature>,
    /// How requests' inputs reach the engine.
    pub layout: Arc<Layout>,
    /// The engine, and why that one.
    pub chosen: Arc<Chosen>,
    pub config: Arc<config::ModelConfig>,
    /// Which ids requests may have, and what becomes of others.
    pub ids: Arc<IdRules>,
    /// Where the ids of the candidates are, if the configuration says so.
    pub top_k: Option<top_k::TopK>,
    /// What requests may name by the items' ids.
    pub items: Option<Arc<ItemTable>>,
    /// How its requests are joined.
    pub batching: Batching,
}
