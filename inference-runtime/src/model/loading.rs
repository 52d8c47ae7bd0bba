//! From a verified folder to engines that are warm.

use std::sync::Arc;

use rank::plan::InstructionSet;

use super::config::{Device, ModelConfig};
use super::folder::ModelFolder;
use super::top_k::TopK;
use super::{ServedModel, warmup};
use crate::engine::{Engine, Loader, choice};
use crate::failure::LoadFailure;
use crate::inline::Pace;
use crate::items::ItemTable;

/// What of a load is not in the folder.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub name: String,
    pub version: String,
    /// Instead of what the model says.
    pub device: Option<Device>,
    /// Instead of the best that the machine has.
    pub instruction_set: Option<InstructionSet>,
    /// Engines, at least one.
    pub workers: usize,
}

/// A model with an engine for each worker.
pub struct Loaded {
    pub model: ServedModel,
    pub engines: Vec<Box<dyn Engine>>,
    /// As many again for short requests ([`crate::inline`]), if their time can be told beforehand.
    pub inline: Option<(Vec<Box<dyn Engine>>, Pace)>,
}

/// A model that can make engines.
pub struct Opened {
    pub model: ServedModel,
    pub loader: Box<dyn Loader>,
}

impl Opened {
    pub fn engine(&mut self) -> Result<Box<dyn Engine>, LoadFailure> {
        self.loader.engine(&self.model.layout)
    }
}

/// Loads and warms one engine a worker; `ended` is told the phases. Blocks.
pub fn load(
    folder: &ModelFolder,
    wanted: &Wanted,
    mut ended: impl FnMut(&'static str),
) -> Result<Loaded, LoadFailure> {
    let mut opened = open(folder, wanted)?;
    let workers = wanted.workers.max(1);
    let sets = if opened.loader.is_predictable() { 2 } else { 1 };
    let mut engines = Vec::with_capacity(sets * workers);
    while engines.len() < sets * workers {
        engines.push(opened.engine()?);
    }
    let mut model = opened.model;
    ended("load");
    let samples = warmup::samples(folder, &model)?;
    for engine in &mut engines {
        warmup::warm(engine.as_mut(), &model, &samples)?;
    }
    model.batching = warmup::try_joining(engines[0].as_mut(), &model, &samples);
    let mut spare = engines.split_off(workers);
    // Who lets requests wait for others wants them to run together.
    let pace = match spare.first_mut() {
        Some(engine) if model.batching.max_delay.is_zero() => Pace::measure(engine.as_mut(), &model),
        _ => None,
    };
    ended("warm_up");
    let inline = pace.map(|pace| (spare, pace));
    Ok(Loaded {
        model,
        engines,
        inline,
    })
}

/// Reads the configuration, chooses an engine, and opens the model with it.
pub fn open(folder: &ModelFolder, wanted: &Wanted) -> Result<Opened, LoadFailure> {
    let mut config = ModelConfig::parse(&folder.read(ModelConfig::FILE)?.unwrap_or_default())?;
    config.device = wanted.device.unwrap_or(config.device);
    config.instruction_set = wanted.instruction_set.unwrap_or(config.instruction_set);
    let choice::Opened {
        loader,
        layout,
        chosen,
    } = choice::open(&folder.model(), &config)?;
    let signature = loader.signature().clone();
    let model = ServedModel {
        name: wanted.name.clone(),
        version: wanted.version.clone(),
        top_k: TopK::of(&config, &signature, &layout)?,
        items: ItemTable::load(&config, (&signature, &layout), folder)?,
        batching: config.batching(&signature),
        signature: Arc::new(signature),
        layout: Arc::new(layout),
        chosen: Arc::new(chosen),
        config: Arc::new(config),
    };
    Ok(Opened { model, loader })
}
