//! Cascades: a light model scores all candidates of a request, and the best of them go to the heavy model, which answers.
//!
//! The answer is that of two requests: one to the light model for its `keep` best, and one to the heavy model with those
//! candidates in that order. A candidate is told by its place in the request, so the models need no inputs in common.
//! `inputs` says which model gets what of a request; `server::score` runs one after the other.

mod inputs;

use std::sync::Arc;

use http::StatusCode;
use serde::Deserialize;

pub use inputs::{Rest, nothing, split};

use crate::catalog::{Catalog, State};
use crate::engine::{Dim, TensorSpec};
use crate::failure::{LoadFailure, Reason};
use crate::ids::InputRules;
use crate::model::ServedModel;
use crate::model::config::ModelConfig;
use crate::protocol::ApiError;
use crate::ready::Ready;

/// `cascade` of the heavy model's config.yaml.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CascadeConfig {
    /// The light model: another model, or another version of this one.
    pub model: String,
    /// Candidates that it leaves, at most.
    pub keep: usize,
}

impl CascadeConfig {
    /// What is wrong with it as far as the heavy model's own configuration tells.
    pub fn check(&self, own: &ModelConfig) -> Result<(), String> {
        let (keep, largest) = (self.keep, own.max_batch_size);
        if self.model.is_empty() {
            return Err("cascade.model is empty; name the model that scores all candidates".to_owned());
        }
        if !(1..=largest).contains(&keep) {
            return Err(format!(
                "cascade.keep is {keep}; it is at least 1, and at most maxBatchSize, {largest}: what is kept is one request to \
                 this model"
            ));
        }
        if own.top_k.is_none() {
            return Err(
                "cascade needs topK: the best of what is kept are answered, with their ids; name these as topK.ids"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What a request may be for: a model, or a cascade of two.
#[derive(Clone, Copy)]
pub struct Models<'a> {
    /// The one that answers.
    pub model: &'a ServedModel,
    pub light: Option<&'a ServedModel>,
}

impl<'a> From<&'a ServedModel> for Models<'a> {
    fn from(model: &'a ServedModel) -> Self {
        Self { model, light: None }
    }
}

impl<'a> Models<'a> {
    /// What says how an input is hashed as it is read: in a cascade, both models do that alike.
    pub fn id_rules(&self, name: &str) -> Option<&'a InputRules> {
        let of = |model: &'a ServedModel| model.ids.of(name);
        of(self.model).or_else(|| self.light.and_then(of))
    }
}

/// The models of a request, each in the version that was served when it came.
pub struct Stages {
    /// The one that answers.
    pub ready: Arc<Ready>,
    /// What feeds it, in a cascade.
    pub light: Option<Arc<Ready>>,
}

impl Stages {
    /// Finds the light model of a cascade. 503 where it is not served, or does not fit.
    pub fn of(catalog: &Catalog, ready: Arc<Ready>) -> Result<Self, ApiError> {
        let light = light(catalog, &ready.model)?;
        Ok(Self { ready, light })
    }

    /// As far as they are there.
    pub fn known(catalog: &Catalog, ready: Arc<Ready>) -> Self {
        let light = light(catalog, &ready.model).ok().flatten();
        Self { ready, light }
    }

    pub fn models(&self) -> Models<'_> {
        Models {
            model: &self.ready.model,
            light: self.light.as_ref().map(|light| &light.model),
        }
    }
}

fn light(catalog: &Catalog, heavy: &ServedModel) -> Result<Option<Arc<Ready>>, ApiError> {
    let Some(config) = &heavy.config.cascade else {
        return Ok(None);
    };
    let fed = |what: String| {
        format!(
            "model {:?} is fed by {:?} (cascade.model), {what}",
            heavy.name, config.model
        )
    };
    let light = catalog
        .other(&heavy.name, &config.model)
        .map_err(|error| ApiError {
            retry_after: error.retry_after,
            ..unavailable(fed(format!("which does not answer: {}", error.message)))
        })?;
    match fits(config, heavy, &light.model) {
        Ok(()) => Ok(Some(light)),
        Err(error) => Err(unavailable(fed(format!("which does not fit: {error}")))),
    }
}

fn unavailable(message: String) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
}

/// An error of the light model, told to a client who asked the heavy one.
pub fn of_light(light: &ServedModel, error: ApiError) -> ApiError {
    let message = format!("light model {:?} of the cascade: {}", light.name, error.message);
    ApiError { message, ..error }
}

/// Whether one model can feed the other. The error says what of them differs, and what to do.
fn fits(config: &CascadeConfig, heavy: &ServedModel, light: &ServedModel) -> Result<(), String> {
    let name = &light.name;
    if (name, &light.version) == (&heavy.name, &heavy.version) {
        return Err("it is the model itself; name another model, or another version".to_owned());
    }
    if light.config.cascade.is_some() {
        return Err(format!(
            "{name:?} has a cascade itself; name the model that feeds it"
        ));
    }
    if light.top_k.is_none() {
        return Err(format!(
            "{name:?} does not say what ranks its candidates; add topK to its config.yaml"
        ));
    }
    let largest = light.config.max_batch_size;
    if config.keep >= largest {
        return Err(format!(
            "cascade.keep is {}, and {name:?} takes {largest} candidates at most (maxBatchSize), so all would be kept; keep \
             fewer",
            config.keep
        ));
    }
    for own in heavy.accepted().filter(|spec| !heavy.fills(&spec.name)) {
        let same = |other: &&TensorSpec| other.name == own.name && !light.fills(&other.name);
        if let Some(other) = light.accepted().find(same)
            && (!alike(own, other) || heavy.columns(&own.name) != light.columns(&own.name))
        {
            return Err(format!(
                "input {:?} is {} here and {} in {name:?}; an input of the same name is sent to both, so rename it in one of \
                 the models",
                own.name,
                written(heavy, own),
                written(light, other)
            ));
        }
    }
    let both = heavy.accepted().map(|spec| spec.name.as_str());
    for input in both.filter(|input| light.accepts(input)) {
        if !InputRules::hash_alike(heavy.ids.of(input), light.ids.of(input)) {
            return Err(format!(
                "input {input:?} is hashed in another way in {name:?} (inputs.{input}.policies); an input of the same name is \
                 sent to both, so hash it alike, or rename it in one of the models"
            ));
        }
    }
    Ok(())
}

/// Whether one tensor can be both.
fn alike(one: &TensorSpec, other: &TensorSpec) -> bool {
    let same = |(one, other): (&Dim, &Dim)| match (one, other) {
        (Dim::Fixed(one), Dim::Fixed(other)) => one == other,
        _ => true,
    };
    one.datatype == other.datatype
        && one.dims.len() == other.dims.len()
        && one.dims.iter().zip(&other.dims).all(same)
}

fn written(model: &ServedModel, spec: &TensorSpec) -> String {
    let columns = model.columns(&spec.name);
    let columns = columns.map(|columns| format!(", columns {columns:?}"));
    format!(
        "{} {:?}{}",
        spec.datatype.name(),
        spec.protocol_shape(),
        columns.unwrap_or_default()
    )
}

/// Checks a model that was loaded against what is served: the one that feeds it, and those that it feeds. One that would end
/// a cascade that works is refused; one whose light model is yet to come is not.
pub fn check(catalog: &Catalog, new: &ServedModel) -> Result<(), LoadFailure> {
    let invalid = |message: String| LoadFailure::permanent(Reason::ConfigInvalid, message);
    if let Some(config) = &new.config.cascade {
        let failed =
            |error: String| invalid(format!("config.yaml: cascade.model {:?}: {error}", config.model));
        if [&new.name, &new.version].contains(&&config.model) {
            return Err(failed(
                "it is the model itself; name another model, or another version".to_owned(),
            ));
        }
        if let Ok(light) = catalog.other(&new.name, &config.model) {
            fits(config, new, &light.model).map_err(failed)?;
        }
    }
    for heavy in catalog.ready(None) {
        let (Some(config), Ok(Some(light))) = (&heavy.model.config.cascade, light(catalog, &heavy.model))
        else {
            continue;
        };
        let replaced = config.model == new.name || light.model.version == new.version;
        if light.model.name == new.name && replaced {
            fits(config, &heavy.model, new).map_err(|error| {
                invalid(format!(
                    "the model feeds {:?} (cascade), and this version of it does not fit: {error}; or give it another name, or \
                     unload {0:?} first",
                    heavy.model.name
                ))
            })?;
        }
    }
    Ok(())
}

/// Whether what feeds these models is there, but for what was taken out by hand.
pub fn all_fed(catalog: &Catalog, models: &[String]) -> bool {
    let fed = |ready: &Arc<Ready>| {
        let by_hand = |config: &CascadeConfig| {
            let entry = catalog.get(&config.model);
            entry.is_some_and(|entry| entry.state == State::Unloaded)
        };
        ready.model.config.cascade.as_ref().is_some_and(by_hand) || light(catalog, &ready.model).is_ok()
    };
    let newest = |name: &String| catalog.get(name)?.ready.last().cloned();
    models.iter().filter_map(newest).all(|ready| fed(&ready))
}

#[cfg(test)]
mod tests;
