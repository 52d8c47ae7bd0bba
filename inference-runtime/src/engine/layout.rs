//! How the inputs of a model reach its engine: what comes once a list, and what once a pair.
//!
//! A client may send what belongs to the request once, or repeat it for every pair as plain V2 has it: both become the
//! same batch, in which neighbouring pairs with the same user share one row. So a plain body has the saving too.

use std::ops::Range;

use rank::pass::hoist::{Columns, Once};

use super::{Batch, Dim, Signature, Tensor, TensorSpec};

/// An input as engines take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub spec: TensorSpec,
    /// One row a list; else one a pair.
    pub once: bool,
    /// Columns of the model's own input.
    columns: Vec<Range<usize>>,
}

impl Slot {
    fn whole(spec: &TensorSpec, once: bool) -> Self {
        let width = row_width(spec.dims.iter().map(|dim| match dim {
            Dim::Fixed(size) => *size,
            Dim::Named(_) | Dim::Any => 1,
        }));
        Self {
            spec: spec.clone(),
            once,
            columns: std::iter::once(0..width).collect(),
        }
    }

    fn part(spec: &TensorSpec, suffix: &str, columns: Vec<Range<usize>>) -> Self {
        let width = columns.iter().map(ExactSizeIterator::len).sum();
        let mut dims = spec.dims.clone();
        dims[1] = Dim::Fixed(width);
        let spec = TensorSpec {
            name: format!("{}.{suffix}", spec.name),
            datatype: spec.datatype,
            dims,
        };
        Self {
            spec,
            once: suffix == USER,
            columns,
        }
    }

    /// Each column's place in the model's own input.
    pub fn places(&self) -> Vec<usize> {
        self.columns.iter().cloned().flatten().collect()
    }
}

const USER: &str = "user";
const ITEM: &str = "item";

/// One of the model's inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A slot of its own.
    Whole(usize),
    /// Columns of it come once a list: two slots.
    Split { user: usize, item: usize },
}

/// A model's input as a client sent it.
#[derive(Clone, Debug, PartialEq)]
pub enum Sent {
    Whole(Tensor),
    Parts { user: Tensor, item: Tensor },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub slots: Vec<Slot>,
    /// For each of the model's inputs.
    pub places: Vec<Place>,
}

fn row_width(shape: impl Iterator<Item = usize>) -> usize {
    shape.skip(1).product()
}

impl Layout {
    /// `once` says what of the inputs belongs to the request. An error names the input and the remedy.
    pub fn new(signature: &Signature, once: &[(String, Once)]) -> Result<Self, String> {
        let mut layout = Self::default();
        for (name, _) in once {
            if signature.inputs.iter().all(|spec| spec.name != *name) {
                let known = super::names(&signature.inputs);
                return Err(format!("the model has no input {name:?}; it has {known}"));
            }
            if once.iter().filter(|(other, _)| other == name).count() > 1 {
                return Err(format!(
                    "input {name:?} is there twice; name all its columns at once"
                ));
            }
        }
        for spec in &signature.inputs {
            let declared = once.iter().find(|(name, _)| *name == spec.name);
            if declared.is_some() && !spec.batched() {
                return Err(format!("input {:?} has no rows: it comes once anyway", spec.name));
            }
            layout.add(spec, declared.map(|(_, once)| once))?;
        }
        for (index, slot) in layout.slots.iter().enumerate() {
            let twice = |other: &Slot| other.spec.name == slot.spec.name;
            if layout.slots[..index].iter().any(twice) {
                return Err(format!("the model has an input {:?} of its own", slot.spec.name));
            }
        }
        if !once.is_empty() && layout.slots.iter().all(|slot| slot.once) {
            return Err("all inputs are named; leave out those that differ between pairs".to_owned());
        }
        Ok(layout)
    }

    fn add(&mut self, spec: &TensorSpec, once: Option<&Once>) -> Result<(), String> {
        let next = self.slots.len();
        let Some(Once::Columns(ranges)) = once else {
            self.slots.push(Slot::whole(spec, once.is_some()));
            self.places.push(Place::Whole(next));
            return Ok(());
        };
        let [_, Dim::Fixed(count)] = spec.dims[..] else {
            return Err(format!(
                "input {:?} is not a table of columns ({:?}); name it whole",
                spec.name,
                spec.protocol_shape()
            ));
        };
        let user: Vec<Range<usize>> = ranges.iter().map(|range| range.start..range.end).collect();
        if !Columns::split(ranges, count) {
            let written: Vec<String> = user
                .iter()
                .map(|range| format!("{}:{}", range.start, range.end))
                .collect();
            return Err(format!(
                "{}[{}]: columns are ranges within 0:{count}, ascending and apart, and not all of them (name the input \
                 whole for that)",
                spec.name,
                written.join(",")
            ));
        }
        let starts = std::iter::once(0).chain(user.iter().map(|range| range.end));
        let ends = user.iter().map(|range| range.start).chain(std::iter::once(count));
        let item = starts.zip(ends).map(|(start, end)| start..end);
        let item = item.filter(|range| !range.is_empty()).collect();
        self.slots.push(Slot::part(spec, USER, user));
        self.slots.push(Slot::part(spec, ITEM, item));
        self.places.push(Place::Split {
            user: next,
            item: next + 1,
        });
        Ok(())
    }

    /// Whether anything comes once a list.
    pub fn has_lists(&self) -> bool {
        self.slots.iter().any(|slot| slot.once)
    }

    /// A batch of `rows` pairs from a request's inputs, in the model's order. What belongs to the request has one row, or
    /// `rows`; everything else has `rows`.
    pub fn batch(&self, sent: Vec<Sent>, rows: usize) -> Batch {
        if !self.has_lists() {
            let whole = |sent| match sent {
                Sent::Whole(tensor) => Some(tensor),
                Sent::Parts { .. } => None,
            };
            let inputs = sent.into_iter().filter_map(whole).collect();
            let lists = Vec::new();
            return Batch { inputs, rows, lists };
        }
        let starts = self.starts(&sent, rows);
        let mut inputs = Vec::with_capacity(self.slots.len());
        for (place, sent) in self.places.iter().zip(sent) {
            match (place, sent) {
                (Place::Whole(slot), Sent::Whole(tensor)) if self.slots[*slot].once => {
                    inputs.push(once_a_list(tensor, rows, &starts));
                }
                (Place::Split { user, item }, Sent::Whole(tensor)) => {
                    inputs.push(cut(&tensor, &starts, &self.slots[*user].columns));
                    let all: Vec<usize> = (0..rows).collect();
                    inputs.push(cut(&tensor, &all, &self.slots[*item].columns));
                }
                (_, Sent::Whole(tensor)) => inputs.push(tensor),
                (_, Sent::Parts { user, item }) => {
                    inputs.push(once_a_list(user, rows, &starts));
                    inputs.push(item);
                }
            }
        }
        let ends = starts.iter().skip(1).copied().chain(std::iter::once(rows));
        let lists = starts.iter().zip(ends).map(|(start, end)| end - start).collect();
        Batch { inputs, rows, lists }
    }

    /// Rows at which another user begins.
    fn starts(&self, sent: &[Sent], rows: usize) -> Vec<usize> {
        let mut compared: Vec<(&Tensor, &[Range<usize>])> = Vec::new();
        let whole = |tensor: &Tensor| std::iter::once(0..row_width(tensor.shape.iter().copied())).collect();
        let wholes: Vec<Vec<Range<usize>>> = sent
            .iter()
            .map(|sent| match sent {
                Sent::Whole(tensor) | Sent::Parts { user: tensor, .. } => whole(tensor),
            })
            .collect();
        for ((place, sent), whole) in self.places.iter().zip(sent).zip(&wholes) {
            match (place, sent) {
                (Place::Whole(slot), Sent::Whole(tensor)) if self.slots[*slot].once => {
                    compared.push((tensor, whole));
                }
                (Place::Split { user, .. }, Sent::Whole(tensor)) => {
                    compared.push((tensor, &self.slots[*user].columns));
                }
                (_, Sent::Parts { user, .. }) => compared.push((user, whole)),
                (Place::Whole(_), Sent::Whole(_)) => {}
            }
        }
        compared.retain(|(tensor, _)| tensor.shape.first() == Some(&rows));
        let differs = |row: &usize| {
            compared.iter().any(|(tensor, columns)| {
                let width = row_width(tensor.shape.iter().copied());
                !tensor.data.same(width, (row - 1, *row), columns)
            })
        };
        std::iter::once(0).chain((1..rows).filter(differs)).collect()
    }

    /// The model's own inputs: what came once a list is repeated for each of its pairs.
    pub fn repeated(&self, batch: Batch) -> Vec<Tensor> {
        if !self.has_lists() {
            return batch.inputs;
        }
        let segments = batch.segments();
        let mut inputs: Vec<Option<Tensor>> = batch.inputs.into_iter().map(Some).collect();
        let mut take = |slot: usize| inputs.get_mut(slot).and_then(Option::take);
        let mut whole = Vec::with_capacity(self.places.len());
        for place in &self.places {
            whole.extend(match place {
                Place::Whole(slot) if self.slots[*slot].once => {
                    take(*slot).map(|tensor| repeat(&tensor, &segments))
                }
                Place::Whole(slot) => take(*slot),
                Place::Split { user, item } => take(*user).zip(take(*item)).map(|(user_part, item_part)| {
                    let parts = [
                        (&self.slots[*user], &repeat(&user_part, &segments)),
                        (&self.slots[*item], &item_part),
                    ];
                    woven(parts, segments.len())
                }),
            });
        }
        whole
    }
}

/// `starts` of a tensor with a row a pair, or the one row again for each.
fn once_a_list(tensor: Tensor, rows: usize, starts: &[usize]) -> Tensor {
    let own = tensor.shape.first().copied().unwrap_or(1);
    if own == starts.len() {
        return tensor;
    }
    let width = row_width(tensor.shape.iter().copied());
    let rows = if own == rows {
        starts.to_vec()
    } else {
        vec![0; starts.len()]
    };
    let mut cut = cut(&tensor, &rows, std::slice::from_ref(&(0..width)));
    cut.shape.truncate(1);
    cut.shape.extend_from_slice(&tensor.shape[1..]);
    cut
}

/// Columns of some rows.
fn cut(tensor: &Tensor, rows: &[usize], columns: &[Range<usize>]) -> Tensor {
    let width = row_width(tensor.shape.iter().copied());
    Tensor {
        shape: vec![rows.len(), columns.iter().map(ExactSizeIterator::len).sum()],
        data: tensor.data.cut(width, rows, columns),
    }
}

fn repeat(tensor: &Tensor, segments: &[usize]) -> Tensor {
    let width = row_width(tensor.shape.iter().copied());
    let mut shape = tensor.shape.clone();
    shape[0] = segments.len();
    let data = tensor
        .data
        .cut(width, segments, std::slice::from_ref(&(0..width)));
    Tensor { shape, data }
}

/// Two parts with a row a pair, their columns in the order of the model's input.
fn woven(parts: [(&Slot, &Tensor); 2], rows: usize) -> Tensor {
    let mut pieces: Vec<(usize, Range<usize>, &Tensor)> = Vec::new();
    for (slot, tensor) in parts {
        let mut at = 0;
        for range in &slot.columns {
            pieces.push((range.start, at..at + range.len(), tensor));
            at += range.len();
        }
    }
    pieces.sort_by_key(|(start, ..)| *start);
    let width = pieces.iter().map(|(_, own, _)| own.len()).sum::<usize>();
    let mut data = parts[0].1.data.datatype().with_capacity(rows * width);
    for row in 0..rows {
        for (_, own, tensor) in &pieces {
            let start = row * tensor.shape[1];
            data.append_range(&tensor.data, start + own.start..start + own.end);
        }
    }
    Tensor {
        shape: vec![rows, width],
        data,
    }
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
