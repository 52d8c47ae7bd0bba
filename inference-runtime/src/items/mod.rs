//! The item table: item-side inputs that requests name by the items' ids instead of sending them.
//!
//! `load` reads it from the model's folder, `delta` changes rows of it while it serves. A request takes the newest
//! snapshot once, so all its rows are of one state; which engine scores them does not matter.

mod bf16;
mod delta;
mod load;
pub mod metrics;
mod npy;
pub mod snapshot;
mod verify;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use serde::Deserialize;

pub use delta::Updated;
pub use load::{DELTAS, FOLDER, file};

use crate::engine::layout::{self, Slot};
use crate::engine::{Data, Datatype, Dim, Layout, Signature, Tensor, TensorSpec};
use crate::ids::IdRules;
use crate::protocol::ApiError;
use snapshot::{Place, RowType, Snapshot};

/// Items of which all rows are on the way from memory before the first is copied.
const TOGETHER: usize = 256;

/// `itemTable` of config.yaml.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ItemTableConfig {
    /// Name under which requests send the items' ids.
    pub ids: String,
    /// Inputs that the table has, as requests would send them.
    pub fills: Vec<String>,
    /// The item that stands in for ids that are not in the table; without it they are refused.
    pub default_id: Option<i64>,
    /// Name of the state that the folder holds.
    #[serde(default = "first")]
    pub revision: String,
    /// What FP32 is kept in.
    #[serde(default)]
    pub precision: Precision,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    #[default]
    F32,
    /// Half the memory; rows are rounded when they enter the table.
    Bf16,
}

fn first() -> String {
    "0".to_owned()
}

/// An input that the table fills.
#[derive(Clone, Debug)]
struct Fill {
    /// In the layout.
    index: usize,
    slot: Slot,
    /// The model's input that it is, or is a part of.
    input: String,
    row: RowType,
}

impl Fill {
    fn name(&self) -> &str {
        &self.slot.spec.name
    }
}

pub struct ItemTable {
    ids: TensorSpec,
    fills: Vec<Fill>,
    default_id: Option<i64>,
    rules: Arc<IdRules>,
    newest: ArcSwap<Snapshot>,
    /// Deltas come one after the other.
    updating: Mutex<()>,
    unknown: AtomicU64,
}

impl fmt::Debug for ItemTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemTable")
            .field("ids", &self.ids.name)
            .finish_non_exhaustive()
    }
}

/// The inputs that a configuration names. An error names the key and the remedy.
fn fills(config: &ItemTableConfig, signature: &Signature, layout: &Layout) -> Result<Vec<Fill>, String> {
    if !signature.batched() {
        return Err(": the model has inputs or outputs without rows in front".to_owned());
    }
    let of_model = signature.inputs.iter().map(|spec| &spec.name);
    let slots = layout.slots.iter().map(|slot| &slot.spec.name);
    if config.ids.is_empty() || of_model.chain(slots).any(|name| *name == config.ids) {
        return Err(format!(
            ".ids: the model has an input {:?}; give the items' ids another name, and fill that input if it is theirs",
            config.ids
        ));
    }
    if config.fills.is_empty() {
        return Err(".fills is empty; name the inputs that the table has".to_owned());
    }
    if config.revision.is_empty() {
        return Err(".revision is empty; leave it out, or name the state".to_owned());
    }
    let mut fills: Vec<Fill> = Vec::with_capacity(config.fills.len());
    for name in &config.fills {
        if fills.iter().any(|other| other.name() == name) {
            return Err(format!(".fills: {name:?} is there twice"));
        }
        fills.push(fill(name, signature, layout).map_err(|error| format!(".fills: {error}"))?);
    }
    for Fill { row, .. } in &mut fills {
        row.half = config.precision == Precision::Bf16 && row.datatype == Datatype::F32;
    }
    if config.precision == Precision::Bf16 && !fills.iter().any(|fill| fill.row.half) {
        return Err(
            ".precision: bf16 is for FP32, which none of the filled inputs is; leave it out".to_owned(),
        );
    }
    Ok(fills)
}

fn fill(name: &str, signature: &Signature, layout: &Layout) -> Result<Fill, String> {
    let Some(index) = layout.slots.iter().position(|slot| slot.spec.name == name) else {
        let known: Vec<&str> = layout.slots.iter().map(|slot| slot.spec.name.as_str()).collect();
        return Err(format!(
            "no input {name:?}; there are {}. Columns of an input are filled as NAME.item, with all others of it named in \
             requestInputs",
            known.join(", ")
        ));
    };
    let slot = layout.slots[index].clone();
    if slot.once {
        return Err(format!(
            "{name:?} comes once a request (requestInputs), a table has the items' inputs"
        ));
    }
    let sizes = slot.spec.dims[1..].iter().map(|dim| match dim {
        Dim::Fixed(size) if *size > 0 => Some(*size),
        Dim::Fixed(_) | Dim::Named(_) | Dim::Any => None,
    });
    let width = sizes.product::<Option<usize>>().ok_or_else(|| {
        let shape = slot.spec.protocol_shape();
        format!("{name:?} has shape {shape:?}; a table has inputs of fixed size")
    })?;
    let of_place = |place: &layout::Place| match place {
        layout::Place::Whole(slot) | layout::Place::Split { item: slot, .. } => *slot == index,
    };
    let input = layout.places.iter().position(of_place);
    let input = input.map_or(name, |input| signature.inputs[input].name.as_str());
    Ok(Fill {
        index,
        input: input.to_owned(),
        row: RowType {
            datatype: slot.spec.datatype,
            width,
            half: false,
        },
        slot,
    })
}

impl ItemTable {
    /// The ids as requests send them.
    pub fn ids(&self) -> &TensorSpec {
        &self.ids
    }

    /// Whether the table has this slot of the layout.
    pub fn has(&self, slot: usize) -> bool {
        self.fills.iter().any(|fill| fill.index == slot)
    }

    /// Whether the table has an input of this name, or a part of it.
    pub fn fills(&self, name: &str) -> bool {
        self.fills
            .iter()
            .any(|fill| fill.name() == name || fill.input == name)
    }

    /// Names of the inputs that the table has.
    pub fn filled(&self) -> impl Iterator<Item = &str> {
        self.fills.iter().map(Fill::name)
    }

    pub fn newest(&self) -> Arc<Snapshot> {
        self.newest.load_full()
    }

    /// Ids of requests that were not in the table.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Ordering::Relaxed)
    }

    /// Takes the ids out of what a request has `given`, and puts the rows of the inputs there, all of one snapshot; at most
    /// `limit` rows. `None` when the request names no ids.
    pub fn resolve(
        &self,
        given: &mut Vec<(String, Tensor)>,
        limit: usize,
    ) -> Result<Option<Vec<i64>>, ApiError> {
        let name = &self.ids.name;
        let Some(index) = given.iter().position(|(own, _)| own == name) else {
            return Ok(None);
        };
        let invalid = |what: String| ApiError::invalid(format!("input {name:?}{what}"));
        let tensor = given.swap_remove(index).1;
        let ids = match (tensor.data, &tensor.shape[..]) {
            (Data::I64(ids), [_]) if !ids.is_empty() => ids,
            (data, shape) => {
                let datatype = data.datatype().name();
                return Err(invalid(format!(
                    " is {datatype} of shape {shape:?}; the items' ids are INT64 of shape [candidates], at least one"
                )));
            }
        };
        if ids.len() > limit {
            return Err(ApiError::too_many_rows(ids.len(), limit));
        }
        let twice = |fill: &&Fill| {
            given
                .iter()
                .any(|(own, _)| own == fill.name() || *own == fill.input)
        };
        if let Some(fill) = self.fills.iter().find(twice) {
            return Err(invalid(format!(
                ": the item table has {:?}, which the request sends too; send the ids, or the values",
                fill.name()
            )));
        }
        for (fill, data) in self.fills.iter().zip(self.rows(&ids).map_err(invalid)?) {
            let mut shape = vec![ids.len()];
            shape.extend(fill.slot.spec.dims[1..].iter().map(|dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Named(_) | Dim::Any => 1,
            }));
            given.push((fill.name().to_owned(), Tensor { shape, data }));
        }
        Ok(Some(ids))
    }

    /// For each filled input the rows of `ids`.
    fn rows(&self, ids: &[i64]) -> Result<Vec<Data>, String> {
        let snapshot = self.newest.load();
        let mut rows = snapshot.no_rows(ids.len());
        let mut places = Vec::with_capacity(ids.len().min(TOGETHER));
        for (block, own) in ids.chunks(TOGETHER).enumerate() {
            places.clear();
            for (index, place) in snapshot.find(own).enumerate() {
                let place = place.or_else(|| self.stand_in(&snapshot));
                places.push(place.ok_or_else(|| {
                    format!(
                        " has id {} at element {}, which is not in the item table (revision {:?}, {} items); add the \
                         item, or name one that stands in as itemTable.defaultId in config.yaml",
                        own[index],
                        block * TOGETHER + index,
                        snapshot.stamp.revision,
                        snapshot.count()
                    )
                })?);
            }
            snapshot.append(&places, &mut rows);
        }
        Ok(rows)
    }

    /// For an item that is not in the table.
    fn stand_in(&self, snapshot: &Snapshot) -> Option<Place> {
        self.unknown.fetch_add(1, Ordering::Relaxed);
        snapshot.place(self.default_id?)
    }
}

fn ids_spec(name: &str) -> TensorSpec {
    TensorSpec::new(name, Datatype::I64, vec![Dim::Any])
}

#[cfg(test)]
pub mod tests;
