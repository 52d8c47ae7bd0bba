//! Which model of a cascade gets what of a request: an input of a name that both have is both's.

use super::{Models, of_light};
use crate::engine::{Batch, Data, Outputs, Tensor};
use crate::model::top_k::Asked;
use crate::model::{ServedModel, warmup};
use crate::protocol::{ApiError, check, metadata};

/// A request's tensors by name.
type Given = Vec<(String, Tensor)>;

/// What the heavy model gets of a request, while it is not known which candidates are kept.
#[derive(Debug)]
pub struct Rest {
    given: Given,
    /// Candidates of the request.
    rows: usize,
    k: Option<usize>,
}

/// The light model's batch of a request for a cascade, with what ranks it for the `keep` best; and what is left for the heavy
/// model, of which `k` are answered.
pub fn split(
    given: Given,
    (heavy, light): (&ServedModel, &ServedModel),
    (keep, k): (Option<usize>, Option<usize>),
) -> Result<(Batch, Option<Asked>, Rest), ApiError> {
    let (own, given) = divide(given, heavy, light)?;
    let lights = check::batch(own, light, keep).map_err(|error| of_light(light, error));
    let (batch, asked) = lights?;
    let rows = batch.rows;
    for (name, tensor) in &given {
        let once = heavy.is_once(name);
        if tensor.shape.first() != Some(&rows) && !(once && tensor.shape.first() == Some(&1)) {
            return Err(check::other_rows(name, tensor, rows, once));
        }
    }
    Ok((batch, asked, Rest { given, rows, k }))
}

/// The light model's tensors, and the heavy one's. Where a request names items, the inputs that the table has are the other
/// model's alone.
fn divide(given: Given, heavy: &ServedModel, light: &ServedModel) -> Result<(Given, Given), ApiError> {
    let by_id = |model: &ServedModel| {
        let ids = model.items.as_ref().map(|items| items.ids().name.as_str());
        ids.is_some_and(|ids| given.iter().any(|(name, _)| name == ids))
    };
    let (light_by_id, heavy_by_id) = (by_id(light), by_id(heavy));
    let (mut own, mut rest) = (Vec::new(), Vec::new());
    for (name, tensor) in given {
        let (for_light, for_heavy) = (light.accepts(&name), heavy.accepts(&name));
        let light_has = light_by_id && light.fills(&name);
        let heavy_has = heavy_by_id && heavy.fills(&name);
        match (for_light, for_heavy) {
            (true, true) if light_has == heavy_has => {
                own.push((name.clone(), tensor.clone()));
                rest.push((name, tensor));
            }
            (true, true) if heavy_has => own.push((name, tensor)),
            (true, false) => own.push((name, tensor)),
            (_, true) => rest.push((name, tensor)),
            (false, false) => return Err(unknown(&name, heavy, light)),
        }
    }
    Ok((own, rest))
}

fn unknown(name: &str, heavy: &ServedModel, light: &ServedModel) -> ApiError {
    let models = Models {
        model: heavy,
        light: Some(light),
    };
    let known: Vec<&str> = metadata::inputs(models)
        .iter()
        .map(|spec| spec.name.as_str())
        .collect();
    ApiError::invalid(format!(
        "input {name:?} is not one of the cascade's: {}",
        known.join(", ")
    ))
}

impl Rest {
    /// The heavy model's batch: the candidates at `places`, in that order.
    pub fn kept(self, heavy: &ServedModel, places: &[usize]) -> Result<(Batch, Option<Asked>), ApiError> {
        if places.is_empty() {
            let batch = warmup::zeros(heavy, 0);
            let none = Some(Data::I64(Vec::new()));
            let asked = heavy
                .top_k
                .as_ref()
                .and_then(|top_k| top_k.asked(0, &batch, none));
            return Ok((batch, asked));
        }
        let rows = self.rows;
        let cut = |(name, tensor): (String, Tensor)| match tensor.shape.first() {
            Some(own) if *own == rows => (name, tensor.rows(places)),
            _ => (name, tensor),
        };
        let kept = self.given.into_iter().map(cut).collect();
        check::batch(kept, heavy, self.k).map_err(|error| ApiError {
            message: format!(
                "of the {} candidates that the light model left, in its order: {}",
                places.len(),
                error.message
            ),
            ..error
        })
    }
}

/// The outputs of a model for no candidates.
pub fn nothing(model: &ServedModel) -> Outputs {
    let outputs = model.signature.outputs.iter();
    Outputs {
        tensors: outputs.map(|spec| warmup::zero_tensor(spec, 0)).collect(),
    }
}
