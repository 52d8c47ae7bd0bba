//! How many candidates a request wants, and what its models get of it.

use super::{ApiError, check};
use crate::cascade::{self, Models, Rest};
use crate::engine::{Batch, Tensor};
use crate::model::top_k::Asked;

/// Parameters of a request, as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parameters {
    pub top_k: Option<u64>,
    pub keep: Option<u64>,
}

/// What a request wants of its candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How many of the best are answered; `None` means all, as they are.
    pub k: Option<usize>,
    /// How many a cascade's light model leaves.
    pub keep: Option<usize>,
}

/// What is to be run for a request.
#[derive(Debug)]
pub struct Work {
    /// Of a cascade the light model's, as is `top_k`.
    pub batch: Batch,
    /// Only the best candidates are wanted.
    pub top_k: Option<Asked>,
    /// Of a cascade: what the heavy model gets.
    pub rest: Option<Rest>,
}

/// What a request wants, by its parameters or else by the configuration.
pub fn wanted(models: Models<'_>, asked: Parameters) -> Result<Wanted, ApiError> {
    let keep = keep(models, asked.keep)?;
    let k = match (&models.model.top_k, asked.top_k) {
        (None, Some(1..)) => {
            return Err(ApiError::invalid(
                "parameter \"top_k\": which input has the ids is not known; name it in config.yaml as topK.ids",
            ));
        }
        (Some(_), Some(0)) if keep.is_some() => {
            return Err(ApiError::invalid(
                "parameter \"top_k\" is 0, for all candidates; a cascade answers those that its light model leaves: leave \
                 top_k out for all of these, or say how many",
            ));
        }
        (None, _) => None,
        (Some(top_k), None) => top_k.k.or(keep),
        (Some(_), Some(k)) => Some(usize::try_from(k).unwrap_or(usize::MAX)),
    };
    let k = k.filter(|k| *k > 0);
    Ok(Wanted { k, keep })
}

/// How many the light model leaves; `None` where there is none. (A sample in a model's folder is for that model alone.)
fn keep(models: Models<'_>, asked: Option<u64>) -> Result<Option<usize>, ApiError> {
    let keep = match (&models.model.config.cascade, asked) {
        (Some(cascade), None) => Some(cascade.keep),
        (Some(cascade), Some(own)) => {
            let own = usize::try_from(own).unwrap_or(usize::MAX);
            if !(1..=cascade.keep).contains(&own) {
                return Err(ApiError::invalid(format!(
                    "parameter \"keep\" is {own}; it is at least 1, and at most {} (cascade.keep in config.yaml)",
                    cascade.keep
                )));
            }
            Some(own)
        }
        (None, Some(_)) => {
            return Err(ApiError::invalid(
                "parameter \"keep\": the model has no cascade; leave it out",
            ));
        }
        (None, None) => None,
    };
    Ok(models.light.and(keep))
}

/// Checks a request's tensors against the models.
pub fn work(given: Vec<(String, Tensor)>, models: Models<'_>, wanted: Wanted) -> Result<Work, ApiError> {
    let Wanted { k, keep } = wanted;
    let Some(light) = models.light else {
        let (batch, top_k) = check::batch(given, models.model, k)?;
        return Ok(Work {
            batch,
            top_k,
            rest: None,
        });
    };
    let (batch, top_k, rest) = cascade::split(given, (models.model, light), (keep, k))?;
    Ok(Work {
        batch,
        top_k,
        rest: Some(rest),
    })
}
