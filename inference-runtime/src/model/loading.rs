//! From a verified folder to engines that are warm.

use std::sync::Arc;
use std::time::Duration;

use rank::plan::InstructionSet;

use super::config::{Device, ModelConfig};
use super::folder::ModelFolder;
use super::top_k::TopK;
use super::triton::{self, TritonConfig};
use super::{ServedModel, warmup};
use crate::engine::{Engine, Loader, choice};
use crate::failure::{LoadFailure, Reason};
use crate::ids::IdRules;
use crate::inline::Pace;
use crate::items::ItemTable;
use crate::split;

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
    /// The engine's time a row, as it was at warm-up.
    pub row: Duration,
    /// Pairs of a part at the least, where runs are split ([`crate::split`]).
    pub part: Option<usize>,
    /// As many again for short requests ([`crate::inline`]), if their time can be told beforehand.
    pub inline: Option<(Vec<Box<dyn Engine>>, Pace)>,
}

/// A model that can make engines.
pub struct Opened {
    pub model: ServedModel,
    pub loader: Box<dyn Loader>,
    /// Engines that the configuration lets it have, if it says so.
    pub instances: Option<usize>,
}

impl Opened {
    pub fn engine(&mut self) -> Result<Box<dyn Engine>, LoadFailure> {
        self.loader.engine(&self.model.layout)
    }

    fn engines(&mut self, count: usize) -> Result<Vec<Box<dyn Engine>>, LoadFailure> {
        (0..count).map(|_| self.engine()).collect()
    }

    /// What requests take of a warm engine, if that can be told beforehand.
    fn pace(&self, engine: &mut dyn Engine) -> Option<Pace> {
        let predictable = self.loader.is_predictable();
        predictable.then(|| Pace::measure(engine, &self.model)).flatten()
    }

    /// Whether short requests may run at once.
    fn may_inline(&self) -> bool {
        // Who limits the runs at a time wants no others beside them, and who lets requests wait wants them to run together.
        self.instances.is_none() && self.model.batching.max_delay.is_zero()
    }
}

/// Loads and warms one engine a worker; `ended` is told the phases. Blocks.
pub fn load(
    folder: &ModelFolder,
    wanted: &Wanted,
    mut ended: impl FnMut(&'static str),
) -> Result<Loaded, LoadFailure> {
    let mut opened = open(folder, wanted)?;
    let count = opened.instances.unwrap_or(usize::MAX).min(wanted.workers).max(1);
    let mut engines = opened.engines(count)?;
    ended("load");
    let samples = warmup::samples(folder, &opened.model)?;
    for engine in &mut engines {
        warmup::warm(engine.as_mut(), &opened.model, &samples)?;
    }
    opened.model.batching = warmup::try_joining(engines[0].as_mut(), &opened.model, &samples);
    let row = warmup::row_time(engines[0].as_mut(), &opened.model, &samples)?;
    let pace = opened.pace(engines[0].as_mut());
    let part = split::least(engines[0].as_mut(), pace);
    let inline = match pace.filter(|pace| pace.is_short() && opened.may_inline()) {
        Some(pace) => {
            let mut spare = opened.engines(count)?;
            for engine in &mut spare {
                warmup::warm(engine.as_mut(), &opened.model, &samples)?;
            }
            Some((spare, pace))
        }
        None => None,
    };
    // Samples are no traffic.
    opened.model.ids.take_replaced().for_each(drop);
    ended("warm_up");
    Ok(Loaded {
        model: opened.model,
        engines,
        row,
        part,
        inline,
    })
}

/// Reads the configuration, chooses an engine, and opens the model with it.
pub fn open(folder: &ModelFolder, wanted: &Wanted) -> Result<Opened, LoadFailure> {
    let (mut config, triton) = configuration(folder, &wanted.name)?;
    config.device = wanted.device.unwrap_or(config.device);
    config.instruction_set = wanted.instruction_set.unwrap_or(config.instruction_set);
    let choice::Opened {
        loader,
        layout,
        chosen,
    } = choice::open(&folder.model(), &config)?;
    let signature = loader.signature().clone();
    if let Some(triton) = &triton {
        triton.check(&signature)?;
    }
    let ids = Arc::new(IdRules::new(
        &config,
        (&signature, &layout),
        loader.vocabularies(),
    )?);
    let model = ServedModel {
        name: wanted.name.clone(),
        version: wanted.version.clone(),
        top_k: TopK::of(&config, &signature, &layout)?,
        items: ItemTable::load(&config, (&signature, &layout), &ids, folder)?,
        ids,
        batching: config.batching(&signature),
        signature: Arc::new(signature),
        layout: Arc::new(layout),
        chosen: Arc::new(chosen),
        config: Arc::new(config),
    };
    Ok(Opened {
        model,
        loader,
        instances: triton.and_then(|triton| triton.instances),
    })
}

/// The model's own configuration; Triton's too, where it was written for that.
pub fn configuration(
    folder: &ModelFolder,
    name: &str,
) -> Result<(ModelConfig, Option<TritonConfig>), LoadFailure> {
    match (folder.read(ModelConfig::FILE)?, folder.read(triton::FILE)?) {
        (Some(_), Some(_)) => Err(LoadFailure::permanent(
            Reason::ConfigInvalid,
            "the folder has both config.yaml and config.pbtxt; remove one of them",
        )),
        (None, Some(text)) => {
            let triton = TritonConfig::parse(&text, name)?;
            Ok((triton.model_config(), Some(triton)))
        }
        (text, None) => Ok((ModelConfig::parse(&text.unwrap_or_default())?, None)),
    }
}
