//! `inspect MODEL`: how a model would be served, without serving it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use rank::pass::vocabulary::Vocabulary;

use crate::args::Inspect;
use crate::engine::choice::{self, NotRank};
use crate::engine::rank::RankLoader;
use crate::engine::{Layout, Loader, Signature};
use crate::ids::IdRules;
use crate::model::config::{Device, ModelConfig, RequestInputs};

pub fn inspect(args: &Inspect) -> anyhow::Result<String> {
    let (model, config) = read(args)?;
    let mut text = String::new();
    match choice::try_rank(&model, &config)? {
        Ok(loader) => {
            writeln!(text, "engine: rank")?;
            describe(&mut text, &loader, &config, loader.vocabularies())?;
        }
        Err(NotRank { class, reason }) => {
            writeln!(text, "engine: onnxruntime ({}: {reason})", class.as_str())?;
            // Of a model that is not for a CPU, or not to be, the plan is still of interest.
            match RankLoader::open(&model, &config)? {
                Ok(loader) => {
                    writeln!(text, "rank would run it so:")?;
                    describe(&mut text, &loader, &config, &[])?;
                }
                Err(NotRank { reason: other, .. }) if other != reason => {
                    writeln!(text, "rank does not take the model: {other}")?;
                }
                Err(_) => {}
            }
        }
    }
    Ok(text)
}

/// The model's file, and its configuration as the command line changes it.
fn read(args: &Inspect) -> anyhow::Result<(PathBuf, ModelConfig)> {
    let folder = args.model.is_dir();
    let (model, mut config) = if folder {
        (args.model.join("model.onnx"), config_of(&args.model)?)
    } else {
        let device = Device::Cpu;
        let config = ModelConfig {
            device,
            ..ModelConfig::default()
        };
        (args.model.clone(), config)
    };
    config.device = args.device.unwrap_or(config.device);
    if !args.once.is_empty() {
        let once = RequestInputs::parse(args.once.clone());
        config.request_inputs = once.map_err(|error| anyhow!("--once: {error}"))?;
    }
    Ok((model, config))
}

fn config_of(folder: &Path) -> anyhow::Result<ModelConfig> {
    let path = folder.join(ModelConfig::FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    Ok(ModelConfig::parse(&text)?)
}

/// `proven`: what the engine that serves the model knows of its vocabularies.
fn describe(
    text: &mut String,
    loader: &RankLoader,
    config: &ModelConfig,
    proven: &[Vocabulary],
) -> anyhow::Result<()> {
    let signature = loader.signature();
    config.check(signature)?;
    let layout = config.layout(signature)?;
    let filled = config.item_table.as_ref().map_or(&[][..], |table| &table.fills);
    tensors(text, (signature, &layout), filled)?;
    ids(text, &IdRules::new(config, (signature, &layout), proven)?)?;
    let rows = match loader.plan().rows() {
        rank::pass::rows::Rows::Independent => "independent: requests may share a run".to_owned(),
        rank::pass::rows::Rows::Listwise(reason) => format!("seen together: {reason}"),
    };
    writeln!(text, "rows: {rows}")?;
    if let Some(cascade) = &config.cascade {
        writeln!(
            text,
            "cascade: scores the {} best candidates of {}, which needs its own inputs",
            cascade.keep, cascade.model
        )?;
    }
    writeln!(text, "precision: {}", loader.plan().precision())?;
    writeln!(text, "plan:")?;
    for line in loader.plan().describe().lines() {
        writeln!(text, "  {line}")?;
    }
    Ok(())
}

/// What is known of the ids of each input, neighbouring columns together.
fn ids(text: &mut String, rules: &IdRules) -> std::fmt::Result {
    for (index, input) in rules.whole().enumerate() {
        if index == 0 {
            writeln!(text, "ids:")?;
        }
        let columns = input.columns();
        let mut start = 0;
        for same in columns.chunk_by(|one, other| one == other) {
            let end = start + same.len();
            let name = format!("{}[{start}:{end}]", input.name());
            match same[0].vocabulary {
                Some((size, source)) => {
                    writeln!(text, "  {name:24} {size} ({source}), {}", same[0].policy)?;
                }
                None => writeln!(text, "  {name:24} any")?,
            }
            start = end;
        }
    }
    Ok(())
}

/// `filled`: what the item table has.
fn tensors(
    text: &mut String,
    (signature, layout): (&Signature, &Layout),
    filled: &[String],
) -> std::fmt::Result {
    writeln!(text, "inputs:")?;
    for slot in &layout.slots {
        let spec = &slot.spec;
        let comes = if slot.once {
            "once a request"
        } else if filled.contains(&spec.name) {
            "from the item table"
        } else {
            "once a pair"
        };
        let shape = format!("{:?}", spec.protocol_shape());
        writeln!(
            text,
            "  {:24} {:6} {shape:16} {comes}",
            spec.name,
            spec.datatype.name()
        )?;
    }
    writeln!(text, "outputs:")?;
    for spec in &signature.outputs {
        writeln!(
            text,
            "  {:24} {:6} {:?}",
            spec.name,
            spec.datatype.name(),
            spec.protocol_shape()
        )?;
    }
    Ok(())
}
