//! From a verified folder to engines that are warm.

use std::sync::Arc;

use super::config::{Device, ModelConfig};
use super::folder::ModelFolder;
use super::top_k::TopK;
use super::{ServedModel, warmup};
use crate::engine::{Engine, choice};
use crate::failure::LoadFailure;

/// What of a load is not in the folder.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub version: String,
    /// Instead of what the model says.
    pub device: Option<Device>,
    /// Engines, at least one.
    pub workers: usize,
}

/// A model with an engine for each worker.
pub struct Loaded {
    pub model: ServedModel,
    pub engines: Vec<Box<dyn Engine>>,
}

/// The model's configuration, for the device that is wanted.
pub fn config(folder: &ModelFolder, device: Option<Device>) -> Result<ModelConfig, LoadFailure> {
    let mut config = ModelConfig::parse(&folder.read(ModelConfig::FILE)?.unwrap_or_default())?;
    config.device = device.unwrap_or(config.device);
    Ok(config)
}

/// Loads and warms one engine a worker; `ended` is told the phases. Blocks.
pub fn load(
    folder: &ModelFolder,
    wanted: &Wanted,
    mut ended: impl FnMut(&'static str),
) -> Result<Loaded, LoadFailure> {
    let mut loaded = open(folder, wanted)?;
    ended("load");
    let samples = warmup::samples(folder, &loaded.model)?;
    for engine in &mut loaded.engines {
        warmup::warm(engine.as_mut(), &loaded.model, &samples)?;
    }
    loaded.model.batching = warmup::try_joining(loaded.engines[0].as_mut(), &loaded.model, &samples);
    ended("warm_up");
    Ok(loaded)
}

/// Loads one engine a worker, without a run.
pub fn open(folder: &ModelFolder, wanted: &Wanted) -> Result<Loaded, LoadFailure> {
    let config = config(folder, wanted.device)?;
    let mut opened = choice::open(&folder.model(), &config)?;
    let mut engines = Vec::with_capacity(wanted.workers);
    while engines.len() < wanted.workers.max(1) {
        engines.push(opened.loader.engine(&opened.layout)?);
    }
    let signature = opened.loader.signature().clone();
    let model = ServedModel {
        name: wanted.name.clone(),
        version: wanted.version.clone(),
        top_k: TopK::of(&config, &signature, &opened.layout)?,
        batching: config.batching(&signature),
        signature: Arc::new(signature),
        layout: Arc::new(opened.layout),
        chosen: Arc::new(opened.chosen),
        config: Arc::new(config),
    };
    Ok(Loaded { model, engines })
}
