//! What is checked of a request alike over HTTP and gRPC.

use std::collections::HashMap;

use super::ApiError;
use super::request::WantedOutput;
use crate::engine::layout::{Place, Sent, Slot};
use crate::engine::{Batch, Data, Dim, Outputs, Tensor, TensorSpec, names};
use crate::model::ServedModel;
use crate::model::top_k::{Asked, Cut, Ranked, TopK};

/// Tensors of one request; no ranking model has as many.
pub const MAX_TENSORS: usize = 1024;

pub fn tensor_count(count: usize) -> Result<(), ApiError> {
    if count > MAX_TENSORS {
        return Err(ApiError::invalid(format!(
            "{count} tensors; at most {MAX_TENSORS} are taken"
        )));
    }
    Ok(())
}

/// Refuses tensors in shared memory.
pub fn served(what: &str, name: &str, shared_memory: bool) -> Result<(), ApiError> {
    if shared_memory {
        return Err(ApiError::invalid(format!(
            "{what} {name:?}: shared memory is not served; send the tensor"
        )));
    }
    Ok(())
}

pub fn classification(output: &str, count: u64) -> Result<(), ApiError> {
    if count > 0 {
        let message = format!("output {output:?}: the classification extension is not served");
        return Err(ApiError::invalid(message));
    }
    Ok(())
}

/// Outputs of an answer: the model's, and behind them what an answer of the best candidates adds.
pub fn output_count(model: &ServedModel, top_k: Option<usize>) -> usize {
    let added = top_k
        .and(model.top_k.as_ref())
        .map_or(0, |top_k| top_k.added().len());
    model.signature.outputs.len() + added
}

fn output_name(model: &ServedModel, index: usize) -> &str {
    let outputs = &model.signature.outputs;
    let added = || model.top_k.as_ref().map_or(&[][..], TopK::added);
    match outputs.get(index) {
        Some(spec) => &spec.name,
        None => added().get(index - outputs.len()).copied().unwrap_or_default(),
    }
}

/// The place of an output in the signature, or behind it for the ids, unless it is among the `wanted` already.
pub fn output(
    model: &ServedModel,
    name: &str,
    top_k: Option<usize>,
    wanted: &[WantedOutput],
) -> Result<usize, ApiError> {
    let count = output_count(model, top_k);
    let Some(index) = (0..count).find(|index| output_name(model, *index) == name) else {
        let known: Vec<&str> = (0..count).map(|index| output_name(model, index)).collect();
        let known = known.join(", ");
        let message = format!("output {name:?} is not one of the model's: {known}");
        return Err(ApiError::invalid(message));
    };
    if wanted.iter().any(|other| other.index == index) {
        return Err(ApiError::invalid(format!("output {name:?} is asked for twice")));
    }
    Ok(index)
}

/// An output of a run, if it may be answered.
pub fn computed<'a>(
    model: &'a ServedModel,
    index: usize,
    outputs: &'a Outputs,
) -> Result<(&'a str, &'a Tensor), ApiError> {
    let name = output_name(model, index);
    let tensor = outputs.tensors.get(index);
    let tensor = tensor.ok_or_else(|| ApiError::internal(format!("output {name:?} was not computed")))?;
    let refused = model.config.refuse_output(name, tensor);
    refused.map_err(ApiError::internal)?;
    Ok((name, tensor))
}

/// What a request for the `k` best needs, before its batch goes to the engine.
fn asked(
    model: &ServedModel,
    k: Option<usize>,
    batch: &Batch,
    item_ids: Option<Vec<i64>>,
) -> Result<Option<Asked>, ApiError> {
    let (Some(top_k), Some(k)) = (&model.top_k, k) else {
        return Ok(None);
    };
    // A model may leave it open whether its inputs have as many rows as one another.
    if let Some(slot) = top_k.slot()
        && batch.inputs[slot].shape.first() != Some(&batch.rows)
    {
        let name = &model.layout.slots[slot].spec.name;
        return Err(other_rows(name, &batch.inputs[slot], batch.rows, false));
    }
    let asked = top_k.asked(k, batch, item_ids.map(Data::I64));
    asked.map(Some).ok_or_else(|| {
        ApiError::invalid(format!(
            "the best candidates are told by the ids of the item table, and the request has none; send the input {:?} \
             instead of the items' values, or ask for all with top_k: 0",
            item_table_ids(model).unwrap_or_default()
        ))
    })
}

fn item_table_ids(model: &ServedModel) -> Option<&str> {
    model.items.as_ref().map(|items| items.ids().name.as_str())
}

/// Cuts the outputs down to what a request asked for; `None` when it asked for all. What may not be answered is refused
/// before, for every candidate, unless it only drops its own.
pub fn best(
    model: &ServedModel,
    asked: Option<&Asked>,
    outputs: &mut Outputs,
) -> Result<Option<Cut>, ApiError> {
    let (Some(top_k), Some(asked)) = (&model.top_k, asked) else {
        return Ok(None);
    };
    answerable(model, top_k, outputs)?;
    let cut = top_k.best(asked, outputs);
    cut.map(Some)
        .map_err(|error| ApiError::internal(format!("top_k: {error}")))
}

/// The best candidates, of outputs of which nothing else is answered.
pub fn ranked(model: &ServedModel, asked: Option<&Asked>, outputs: &Outputs) -> Result<Ranked, ApiError> {
    let (Some(top_k), Some(asked)) = (&model.top_k, asked) else {
        return Err(ApiError::internal("nothing ranks the candidates"));
    };
    answerable(model, top_k, outputs)?;
    let ranked = top_k.ranked(asked, outputs);
    ranked.map_err(|error| ApiError::internal(format!("top_k: {error}")))
}

fn answerable(model: &ServedModel, top_k: &TopK, outputs: &Outputs) -> Result<(), ApiError> {
    let mut kept = (0..model.signature.outputs.len()).filter(|index| !top_k.drops(*index));
    kept.try_for_each(|index| computed(model, index, outputs).map(|_| ()))
}

/// Puts the tensors in the model's order, and checks each against it; what the item table has is put there by id. `k`:
/// how many of the best are wanted.
pub fn batch(
    mut given: Vec<(String, Tensor)>,
    model: &ServedModel,
    k: Option<usize>,
) -> Result<(Batch, Option<Asked>), ApiError> {
    let limit = model.config.max_batch_size;
    let item_ids = match &model.items {
        Some(items) => items.resolve(&mut given, limit)?,
        None => None,
    };
    let mut sizes = HashMap::new();
    let mut sent = Vec::with_capacity(model.layout.places.len());
    for place in model.signature.inputs.iter().zip(&model.layout.places) {
        sent.push(input(&mut given, model, place, &mut sizes, item_ids.is_some())?);
    }
    if let Some((name, _)) = given.first() {
        return Err(left_over(name, model));
    }
    let rows = rows(&sent, model)?;
    if rows > limit {
        return Err(ApiError::too_many_rows(rows, limit));
    }
    let batch = model.layout.batch(sent, rows);
    let asked = asked(model, k, &batch, item_ids)?;
    Ok((batch, asked))
}

/// An input that the model has no place for.
fn left_over(name: &str, model: &ServedModel) -> ApiError {
    let specs = &model.signature.inputs;
    let slots = &model.layout.slots;
    let known = specs.iter().any(|spec| spec.name == name)
        || slots.iter().any(|slot| slot.spec.name == name)
        || item_table_ids(model) == Some(name);
    let message = if known {
        "is there twice, or whole and in parts".to_owned()
    } else {
        let ids = item_table_ids(model).map(|ids| format!(", {ids}"));
        format!("is not one of {}{}", names(specs), ids.unwrap_or_default())
    };
    ApiError::invalid(format!("input {name:?} {message}"))
}

/// One of the model's inputs, whole or in its two parts. `resolved`: the item table's are from there.
fn input<'a>(
    given: &mut Vec<(String, Tensor)>,
    model: &'a ServedModel,
    (spec, place): (&'a TensorSpec, &Place),
    sizes: &mut HashMap<&'a str, usize>,
    resolved: bool,
) -> Result<Sent, ApiError> {
    let mut take = |name: &str| {
        let index = given.iter().position(|(own, _)| own == name)?;
        Some(given.swap_remove(index).1)
    };
    let slots = &model.layout.slots;
    let has = |slot: &usize| model.items.as_ref().is_some_and(|items| items.has(*slot));
    let missing = |name: &str, slot: &usize, hint: &str| {
        let known = names(&model.signature.inputs);
        let ids = item_table_ids(model).filter(|_| has(slot));
        let ids = ids.map(|ids| format!(", or the items' ids as {ids:?}"));
        ApiError::invalid(format!(
            "input {name:?} is missing; the model takes {known}{hint}{}",
            ids.unwrap_or_default()
        ))
    };
    // What is in the table was checked when it came there, and is as the table keeps it.
    let values = |tensor: &mut Tensor, slot: &usize, sent: &TensorSpec| {
        if resolved && has(slot) {
            return Ok(());
        }
        of_type(sent, tensor)?;
        values(model, &spec.name, &sent.name, tensor).map_err(ApiError::invalid)
    };
    let whole = take(&spec.name);
    match (place, whole) {
        (Place::Whole(slot), Some(mut tensor)) => {
            fits(spec, &tensor, slots[*slot].once, sizes)?;
            values(&mut tensor, slot, spec)?;
            Ok(Sent::Whole(tensor))
        }
        (Place::Split { item, .. }, Some(mut tensor)) => {
            fits(spec, &tensor, false, sizes)?;
            values(&mut tensor, item, spec)?;
            Ok(Sent::Whole(tensor))
        }
        (Place::Whole(slot), None) => Err(missing(&spec.name, slot, "")),
        (Place::Split { user, item }, None) => {
            let mut part = |index: &usize| {
                let slot: &'a Slot = &slots[*index];
                let hint = format!(", {:?} whole or in its parts", spec.name);
                let tensor = take(&slot.spec.name);
                let mut tensor = tensor.ok_or_else(|| missing(&slot.spec.name, index, &hint))?;
                fits(&slot.spec, &tensor, slot.once, sizes)?;
                values(&mut tensor, index, &slot.spec)?;
                Ok(tensor)
            };
            let (user, item) = (part(user)?, part(item)?);
            Ok(Sent::Parts { user, item })
        }
    }
}

/// Refuses values that may not go to the model, or replaces them by its rules. `name`: of the `input`, or a part of it.
fn values(model: &ServedModel, input: &str, name: &str, tensor: &mut Tensor) -> Result<(), String> {
    if let Some((_, message)) = model.config.not_finite(input, name, tensor) {
        return Err(message);
    }
    if let Some(rules) = model.ids.of(name) {
        let replaced = rules.admit(&mut tensor.data).map_err(|(_, message)| message)?;
        rules.count(replaced);
    }
    Ok(())
}

/// Pairs of a request: what comes once a list has one row, or as many.
fn rows(sent: &[Sent], model: &ServedModel) -> Result<usize, ApiError> {
    let slots = &model.layout.slots;
    let first = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(1);
    if !model.layout.has_lists() {
        let batched = model.signature.inputs.first().is_some_and(TensorSpec::batched);
        return Ok(match sent.first() {
            Some(Sent::Whole(tensor)) if batched => first(tensor),
            _ => 1,
        });
    }
    // The tensor, its name, and whether it may have one row.
    let mut counted = Vec::with_capacity(slots.len());
    for (place, sent) in model.layout.places.iter().zip(sent) {
        match (place, sent) {
            (Place::Whole(slot), Sent::Whole(tensor)) => {
                counted.push((tensor, &slots[*slot].spec, slots[*slot].once))
            }
            (Place::Split { item, .. }, Sent::Whole(tensor)) => {
                counted.push((tensor, &slots[*item].spec, false))
            }
            (
                Place::Split { user, item },
                Sent::Parts {
                    user: user_part,
                    item: item_part,
                },
            ) => {
                counted.push((user_part, &slots[*user].spec, true));
                counted.push((item_part, &slots[*item].spec, false));
            }
            (Place::Whole(_), Sent::Parts { .. }) => {}
        }
    }
    counted.retain(|(_, spec, _)| spec.batched());
    let rows = counted
        .iter()
        .find(|(_, _, once)| !once)
        .map_or(1, |(tensor, ..)| first(tensor));
    for (tensor, spec, once) in counted {
        let own = first(tensor);
        if own != rows && !(once && own == 1) {
            return Err(other_rows(&spec.name, tensor, rows, once));
        }
    }
    Ok(rows)
}

/// An input has not the `rows` of the others; or one, where it may come `once`.
pub fn other_rows(name: &str, tensor: &Tensor, rows: usize, once: bool) -> ApiError {
    let may = if once { "1, or " } else { "" };
    ApiError::invalid(format!(
        "input {name:?}: shape is {:?}; its first dimension is {may}{rows}, as in the other inputs",
        tensor.shape
    ))
}

fn of_type(spec: &TensorSpec, tensor: &Tensor) -> Result<(), ApiError> {
    let (datatype, name) = (tensor.data.datatype(), &spec.name);
    if datatype == spec.datatype {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "input {name:?}: datatype is {}, the model takes {}",
        datatype.name(),
        spec.datatype.name()
    )))
}

/// Whether a tensor has the shape that `spec` says; the rows of what may come `once` are compared later.
fn fits<'a>(
    spec: &'a TensorSpec,
    tensor: &Tensor,
    once: bool,
    sizes: &mut HashMap<&'a str, usize>,
) -> Result<(), ApiError> {
    let name = &spec.name;
    let invalid = |what: String| Err(ApiError::invalid(format!("input {name:?}: {what}")));
    let expected = spec.protocol_shape();
    if tensor.shape.len() != spec.dims.len() {
        return invalid(format!(
            "shape is {:?}, the model takes {expected:?}",
            tensor.shape
        ));
    }
    for (axis, (size, dim)) in tensor.shape.iter().zip(&spec.dims).enumerate() {
        let fixed = match dim {
            Dim::Fixed(fixed) => *fixed,
            Dim::Named(_) if once && axis == 0 => *size,
            Dim::Named(symbol) => *sizes.entry(symbol).or_insert(*size),
            Dim::Any => *size,
        };
        if *size != fixed {
            return invalid(match dim {
                Dim::Named(symbol) => {
                    format!(
                        "shape is {:?}: {symbol:?} is {size} here and {fixed} in another input",
                        tensor.shape
                    )
                }
                _ => format!("shape is {:?}, the model takes {expected:?}", tensor.shape),
            });
        }
        if *size == 0 {
            return invalid(format!(
                "shape is {:?}; every dimension is at least 1",
                tensor.shape
            ));
        }
    }
    Ok(())
}
