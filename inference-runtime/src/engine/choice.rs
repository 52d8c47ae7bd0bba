//! Which engine a model runs on, and why not on ours.

use std::path::Path;

use rank::plan::Precision;

use super::onnx::OnnxLoader;
use super::rank::RankLoader;
use super::{Layout, Loader};
use crate::failure::{LoadFailure, Reason};
use crate::model::config::{Device, EngineWish, ModelConfig};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineName {
    Rank,
    OnnxRuntime,
}

impl EngineName {
    pub fn as_str(self) -> &'static str {
        match self {
            EngineName::Rank => "rank",
            EngineName::OnnxRuntime => "onnxruntime",
        }
    }
}

/// The class of a reason not to run on `rank`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The configuration says so.
    Configured,
    /// The model is for a GPU.
    Device,
    /// An operator, type or shape is outside of the engine's set.
    Operators,
    /// Rows are seen together.
    Listwise,
    /// Most of the work is in operators that have no kernel.
    Slow,
}

impl Fallback {
    /// A label of metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Fallback::Configured => "configured",
            Fallback::Device => "device",
            Fallback::Operators => "operators",
            Fallback::Listwise => "listwise",
            Fallback::Slow => "slow",
        }
    }
}

/// Why a model does not run on `rank`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotRank {
    pub class: Fallback,
    pub reason: String,
}

impl NotRank {
    pub fn new(class: Fallback, reason: impl Into<String>) -> Self {
        Self {
            class,
            reason: reason.into(),
        }
    }
}

/// The engine that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub engine: EngineName,
    /// Why it is not `rank`.
    pub not_rank: Option<NotRank>,
}

impl Chosen {
    pub const RANK: Chosen = Chosen {
        engine: EngineName::Rank,
        not_rank: None,
    };

    fn onnx_runtime(reason: NotRank) -> Self {
        Self {
            engine: EngineName::OnnxRuntime,
            not_rank: Some(reason),
        }
    }
}

/// A model opened by the engine that was chosen for it.
pub struct Opened {
    pub loader: Box<dyn Loader>,
    pub layout: Layout,
    pub chosen: Chosen,
}

/// Opens a model with the engine that its configuration asks for, or that suits it best. ONNX Runtime's library is loaded
/// only if it is needed.
pub fn open(model: &Path, config: &ModelConfig) -> Result<Opened, LoadFailure> {
    let reason = match try_rank(model, config)? {
        Ok(loader) => return opened(Box::new(loader), config, Chosen::RANK),
        Err(reason) => reason,
    };
    let loader = OnnxLoader::open(model, config.device).map_err(|failure| {
        let why = format!(
            "{} (engine onnxruntime, because {})",
            failure.message, reason.reason
        );
        LoadFailure {
            message: why,
            ..failure
        }
    })?;
    opened(Box::new(loader), config, Chosen::onnx_runtime(reason))
}

fn opened(loader: Box<dyn Loader>, config: &ModelConfig, chosen: Chosen) -> Result<Opened, LoadFailure> {
    config.check(loader.signature())?;
    let layout = config.layout(loader.signature())?;
    Ok(Opened {
        loader,
        layout,
        chosen,
    })
}

/// Opens a model with `rank`, or says why it is not for that: `Err` inside. Only `rank` has bf16: a model that says so is for no
/// other engine.
pub fn try_rank(model: &Path, config: &ModelConfig) -> Result<Result<RankLoader, NotRank>, LoadFailure> {
    let tried = wished(model, config)?;
    if let (Err(not), Precision::Bf16) = (&tried, config.precision) {
        let message = format!(
            "config.yaml: precision: bf16 is for the engine rank on a CPU, and {}; say precision: f32",
            not.reason
        );
        return Err(LoadFailure::permanent(Reason::ConfigInvalid, message));
    }
    Ok(tried)
}

fn wished(model: &Path, config: &ModelConfig) -> Result<Result<RankLoader, NotRank>, LoadFailure> {
    let not = |class, reason: &str| Ok(Err(NotRank::new(class, reason)));
    match (config.engine, config.device) {
        (EngineWish::OnnxRuntime, _) => not(Fallback::Configured, "config.yaml says engine: onnxruntime"),
        (EngineWish::Auto, Device::Gpu) => not(Fallback::Device, "the device is gpu, and rank runs on CPUs"),
        (EngineWish::Rank, Device::Gpu) => Err(LoadFailure::permanent(
            Reason::ConfigInvalid,
            "config.yaml: engine: rank runs on CPUs, and the device is gpu; say device: cpu, or engine: auto",
        )),
        (EngineWish::Rank, Device::Cpu) => match RankLoader::open(model, config)? {
            Ok(loader) => Ok(Ok(loader)),
            Err(not) if config.precision == Precision::Bf16 => Ok(Err(not)),
            Err(NotRank { reason, .. }) => Err(LoadFailure::permanent(
                Reason::ModelInvalid,
                format!(
                    "engine: rank does not take the model: {reason}; change the model, or say engine: auto for ONNX Runtime"
                ),
            )),
        },
        (EngineWish::Auto, Device::Cpu) => match RankLoader::open(model, config)? {
            Ok(loader) => match loader.plan().rows() {
                rank::pass::rows::Rows::Independent => match loader.plan().slow() {
                    Some(reason) => not(Fallback::Slow, &reason),
                    None => Ok(Ok(loader)),
                },
                rank::pass::rows::Rows::Listwise(reason) => {
                    not(Fallback::Listwise, &format!("the model is listwise: {reason}"))
                }
            },
            Err(reason) => Ok(Err(reason)),
        },
    }
}
