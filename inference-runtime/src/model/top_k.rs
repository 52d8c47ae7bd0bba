//! The best of a list: the ids of the candidates with the highest scores, and their scores.
//!
//! Ranked by score in total order (0 above -0), a NaN below everything; then by id, then by place in the request. So
//! the order is the same on every replica, and however the candidates were sent.

use std::cmp::Ordering;

use serde::Deserialize;

use super::config::{ModelConfig, NonFiniteOutput};
use super::utility::{Utility, UtilityConfig};
use crate::engine::layout::Place;
use crate::engine::{Batch, Data, Datatype, Dim, Layout, Outputs, Signature, Tensor, TensorSpec, names};
use crate::failure::{LoadFailure, Reason};

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TopKConfig {
    /// Input whose values are the candidates' ids: `NAME`, or `NAME[COLUMN]` for one column, or the item table's ids.
    pub ids: String,
    /// Output that ranks; may be left out when there is one.
    pub score: Option<String>,
    /// What ranks instead, of several outputs.
    pub utility: Option<UtilityConfig>,
    /// How many are answered when a request does not say.
    pub k: Option<usize>,
}

/// Where ids and scores are.
#[derive(Clone, Debug, PartialEq)]
pub struct TopK {
    ids: Ids,
    by: By,
    /// Outputs, in the signature, in which NaN or infinity drops the candidate.
    drops: Vec<usize>,
    pub k: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ids {
    Slot { slot: usize, column: usize },
    ItemTable,
}

/// What ranks.
#[derive(Clone, Debug, PartialEq)]
enum By {
    /// An output, by its place in the signature.
    Score(usize),
    Utility(Utility),
}

/// What a request asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    pub k: usize,
    /// One a pair.
    pub ids: Data,
}

/// What became of a list that was cut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Candidates answered.
    pub items: usize,
    /// Candidates left out for NaN or infinity.
    pub dropped: usize,
}

/// The best of a list.
#[derive(Debug)]
pub struct Ranked {
    /// In the request, the best first.
    pub places: Vec<usize>,
    /// Candidates left out for NaN or infinity.
    pub dropped: usize,
    /// Of every candidate, where that ranks.
    utility: Option<Vec<f64>>,
}

/// Name of the output with the ids.
pub const IDS: &str = "ids";
/// Name of the output with what a configured utility made of the others.
pub const UTILITY: &str = "utility";

impl TopK {
    /// Finds what the configuration names.
    pub fn of(
        config: &ModelConfig,
        signature: &Signature,
        layout: &Layout,
    ) -> Result<Option<Self>, LoadFailure> {
        let Some(own) = &config.top_k else {
            return Ok(None);
        };
        let drops = |spec: &TensorSpec| {
            let output = config.outputs.get(&spec.name);
            output.is_some_and(|output| output.non_finite == NonFiniteOutput::DropCandidate)
        };
        let table = config.item_table.as_ref().map(|table| table.ids.as_str());
        let found = Self::find(own, table, signature, layout).map(|found| Self {
            drops: (0..signature.outputs.len())
                .filter(|index| drops(&signature.outputs[*index]))
                .collect(),
            ..found
        });
        let invalid =
            |error| LoadFailure::permanent(Reason::ConfigInvalid, format!("config.yaml: topK{error}"));
        found.map(Some).map_err(invalid)
    }

    fn find(
        config: &TopKConfig,
        table: Option<&str>,
        signature: &Signature,
        layout: &Layout,
    ) -> Result<Self, String> {
        if config.k == Some(0) {
            return Err(".k is 0; it is at least 1, or left out".to_owned());
        }
        if !signature.batched() {
            return Err(": the model has inputs or outputs without rows in front".to_owned());
        }
        let ids = if table == Some(config.ids.as_str()) {
            Ids::ItemTable
        } else {
            let found = ids(&config.ids, signature, layout);
            let (slot, column) = found.map_err(|error| format!(".ids: {error}"))?;
            Ids::Slot { slot, column }
        };
        let by = match (&config.score, &config.utility) {
            (Some(_), Some(_)) => return Err(": both score and utility rank; leave one out".to_owned()),
            (None, Some(utility)) => {
                let found = Utility::of(utility, &signature.outputs);
                By::Utility(found.map_err(|error| format!(".utility{error}"))?)
            }
            (name, None) => {
                let found = score(name.as_deref(), &signature.outputs);
                By::Score(found.map_err(|error| format!(".score: {error}"))?)
            }
        };
        let found = Self {
            ids,
            by,
            drops: Vec::new(),
            k: config.k,
        };
        let added = found
            .added()
            .iter()
            .find(|name| signature.outputs.iter().any(|spec| spec.name == **name));
        match added {
            Some(name) => Err(format!(
                ": the model has an output {name:?} of its own; rename it in the graph"
            )),
            None => Ok(found),
        }
    }

    /// Outputs that an answer of the best has behind the model's.
    pub fn added(&self) -> &'static [&'static str] {
        match self.by {
            By::Score(_) => &[IDS],
            By::Utility(_) => &[IDS, UTILITY],
        }
    }

    /// The slot of a batch that has the ids; `None` when they are the item table's.
    pub fn slot(&self) -> Option<usize> {
        match self.ids {
            Ids::Slot { slot, .. } => Some(slot),
            Ids::ItemTable => None,
        }
    }

    /// What a request for the `k` best needs once its inputs have gone to the engine; `item_ids` are those that it sent for the
    /// item table. `None` when it should have sent them.
    pub fn asked(&self, k: usize, batch: &Batch, item_ids: Option<Data>) -> Option<Asked> {
        let ids = match self.ids {
            Ids::ItemTable => item_ids?,
            Ids::Slot { slot, column } => {
                let tensor = &batch.inputs[slot];
                let width = tensor.shape.get(1).copied().unwrap_or(1);
                let rows: Vec<usize> = (0..batch.rows).collect();
                let column = column..column + 1;
                tensor.data.cut(width, &rows, std::slice::from_ref(&column))
            }
        };
        Some(Asked {
            k: k.min(batch.rows),
            ids,
        })
    }

    /// What ranks each of `rows` candidates, of outputs that were not cut down.
    pub fn ranks(&self, outputs: &Outputs, rows: usize) -> Option<Vec<f64>> {
        match &self.by {
            By::Score(score) => outputs.tensors.get(*score)?.data.floats(),
            By::Utility(own) => own.values(outputs, rows, &(0..rows).collect::<Vec<_>>()).ok(),
        }
    }

    /// Whether NaN or infinity in an output drops the candidate.
    pub fn drops(&self, output: usize) -> bool {
        self.drops.contains(&output)
    }

    /// Cuts each output down to the best rows, best first, and adds their ids. The error is the model's, or the configuration's.
    pub fn best(&self, asked: &Asked, outputs: &mut Outputs) -> Result<Cut, String> {
        let ranked = self.ranked(asked, outputs)?;
        let places = ranked.places;
        let column = |data| Tensor {
            shape: vec![asked.ids.count()],
            data,
        };
        outputs.tensors.push(column(asked.ids.clone()));
        outputs
            .tensors
            .extend(ranked.utility.map(|values| column(Data::F64(values))));
        for tensor in &mut outputs.tensors {
            *tensor = tensor.rows(&places);
        }
        Ok(Cut {
            items: places.len(),
            dropped: ranked.dropped,
        })
    }

    /// The places of the best candidates. The error is the model's, or the configuration's.
    pub fn ranked(&self, asked: &Asked, outputs: &Outputs) -> Result<Ranked, String> {
        const OTHER_ROWS: &str = "an output has not one row a candidate";
        let rows = asked.ids.count();
        if outputs
            .tensors
            .iter()
            .any(|tensor| tensor.shape.first() != Some(&rows))
        {
            return Err(OTHER_ROWS.to_owned());
        }
        let kept = self.kept(rows, outputs).ok_or(OTHER_ROWS)?;
        let dropped = rows - kept.len();
        let mut utility = None;
        let places = match &self.by {
            By::Score(score) => match &outputs.tensors.get(*score).ok_or(OTHER_ROWS)?.data {
                Data::F32(scores) => order(scores.iter().map(|score| f64::from(*score)), kept, asked),
                Data::F64(scores) => order(scores.iter().copied(), kept, asked),
                _ => return Err("the output that ranks is not of floats".to_owned()),
            },
            By::Utility(own) => {
                let values = own.values(outputs, rows, &kept)?;
                let order = order(values.iter().copied(), kept, asked);
                utility = Some(values);
                order
            }
        };
        Ok(Ranked {
            places,
            dropped,
            utility,
        })
    }

    /// Places of the candidates that are not dropped.
    fn kept(&self, rows: usize, outputs: &Outputs) -> Option<Vec<usize>> {
        let mut finite = vec![true; rows];
        for index in &self.drops {
            let data = &outputs.tensors.get(*index)?.data;
            if data.first_non_finite().is_some() {
                let width = data.count() / rows;
                let of = |row: usize| data.copy_range(row * width..(row + 1) * width);
                for (row, finite) in finite.iter_mut().enumerate() {
                    *finite &= of(row)?.first_non_finite().is_none();
                }
            }
        }
        Some((0..rows).filter(|row| finite[*row]).collect())
    }
}

/// Which of the candidates in `places` are the best, best first.
fn order(scores: impl Iterator<Item = f64>, places: Vec<usize>, asked: &Asked) -> Vec<usize> {
    let scores: Vec<f64> = scores.collect();
    let id = |place: usize| match &asked.ids {
        Data::I64(ids) => ids.get(place).copied(),
        Data::I32(ids) => ids.get(place).copied().map(i64::from),
        _ => None,
    };
    let compare = |a: &usize, b: &usize| {
        by_score(scores[*a], scores[*b])
            .then_with(|| id(*a).cmp(&id(*b)))
            .then_with(|| a.cmp(b))
    };
    let mut order = places;
    let k = asked.k.min(order.len());
    if k < order.len() && k > 0 {
        order.select_nth_unstable_by(k - 1, compare);
    }
    order.truncate(k);
    order.sort_unstable_by(compare);
    order
}

fn by_score(a: f64, b: f64) -> Ordering {
    match (a.is_nan(), b.is_nan()) {
        (false, false) => b.total_cmp(&a),
        (a, b) => a.cmp(&b),
    }
}

/// Finds `NAME`, or `NAME[COLUMN]`, among the model's inputs or outputs (`side` says which): the tensor, and its column.
/// Its elements are of `types`; `else_said` goes behind what they are instead.
pub fn named_column(
    side: &str,
    written: &str,
    specs: &[TensorSpec],
    (types, else_said): (&[Datatype], &str),
) -> Result<(usize, usize), String> {
    let (name, column) = match written.split_once('[') {
        None => (written, None),
        Some((name, rest)) => {
            let column = rest.strip_suffix(']').and_then(|column| column.parse().ok());
            let column = column.ok_or_else(|| format!("{written:?} is neither NAME nor NAME[COLUMN]"))?;
            (name, Some(column))
        }
    };
    let index = specs.iter().position(|spec| spec.name == name);
    let index = index.ok_or_else(|| format!("the model has no {side} {name:?}; it has {}", names(specs)))?;
    let spec = &specs[index];
    if !types.contains(&spec.datatype) {
        let own = spec.datatype.name();
        return Err(format!("{side} {name:?} is {own}{else_said}"));
    }
    let column = match (&spec.dims[1..], column) {
        ([], None | Some(0)) | ([Dim::Fixed(1)], None) => 0,
        ([Dim::Fixed(width)], Some(column)) if column < *width => column,
        _ => {
            let shape = spec.protocol_shape();
            return Err(format!(
                "{side} {name:?} has shape {shape:?}; name one of its columns, as {name}[0]"
            ));
        }
    };
    Ok((index, column))
}

/// The slot and column that hold the ids.
fn ids(written: &str, signature: &Signature, layout: &Layout) -> Result<(usize, usize), String> {
    let types = (&[Datatype::I64, Datatype::I32][..], ", ids are INT64 or INT32");
    let (input, column) = named_column("input", written, &signature.inputs, types)?;
    let once = || format!("{written} comes once a request (requestInputs), ids are the pairs'");
    match &layout.places[input] {
        Place::Whole(slot) if layout.slots[*slot].once => Err(once()),
        Place::Whole(slot) => Ok((*slot, column)),
        Place::Split { item, .. } => {
            let places = layout.slots[*item].places();
            let own = places.iter().position(|place| *place == column);
            own.map(|own| (*item, own)).ok_or_else(once)
        }
    }
}

fn score(name: Option<&str>, outputs: &[TensorSpec]) -> Result<usize, String> {
    let index = match name {
        None if outputs.len() == 1 => 0,
        None => return Err(format!("name the output that ranks: one of {}", names(outputs))),
        Some(name) => {
            let index = outputs.iter().position(|spec| spec.name == name);
            index.ok_or_else(|| format!("the model has no output {name:?}; it has {}", names(outputs)))?
        }
    };
    let spec = &outputs[index];
    let one_a_pair = matches!(spec.dims[1..], [] | [Dim::Fixed(1)]);
    if !one_a_pair || !matches!(spec.datatype, Datatype::F32 | Datatype::F64) {
        return Err(format!(
            "output {:?} is {} {:?}; it ranks with one FP32 or FP64 a pair",
            spec.name,
            spec.datatype.name(),
            spec.protocol_shape()
        ));
    }
    Ok(index)
}

#[cfg(test)]
#[path = "top_k_tests.rs"]
mod tests;
