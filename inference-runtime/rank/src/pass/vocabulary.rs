//! How many ids a column of an input may have: its rows of the table that it is looked up in.
//!
//! Ids are followed from the inputs through steps that only move them, or add constants. What is looked up in a table of its own
//! may have as many ids as that has rows. Where columns share a table, each from an offset of its own on, a column's part
//! ends where the next one begins. Nothing is said of a column that is used otherwise too, other than to be compared
//! with ids from 0 on: a number, or an id below 0 that is masked afterwards, looks the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::interpret::{self, broadcast};
use crate::ir::{Binary, Graph, Node, Op, ValueId};
use crate::pass::rows::Rows;
use crate::tensor::{Element, Tensor};

/// Ids from 0 to below the size, for each element of a row of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    pub input: String,
    /// Flat, as a row's elements lie; `None` where nothing is proven.
    pub sizes: Vec<Option<u64>>,
}

/// The vocabularies of all inputs of which at least one column has a proven one.
pub fn infer(graph: &Graph, rows: &Rows) -> Vec<Vocabulary> {
    if *rows != Rows::Independent {
        return Vec::new();
    }
    let mut inputs = Vec::new();
    let mut ids = Ids::default();
    for input in &graph.inputs {
        if let Some(row) = row_of_ids(graph, *input) {
            let first = ids.add(*input, row);
            inputs.push((*input, first..ids.count));
        }
    }
    for node in &graph.nodes {
        ids.follow(graph, node);
    }
    graph.outputs.iter().for_each(|output| ids.used(*output));
    let sizes = ids.sizes();
    let vocabulary = |(input, range): (ValueId, std::ops::Range<usize>)| Vocabulary {
        input: graph.value(input).name.clone(),
        sizes: sizes[range].to_vec(),
    };
    inputs
        .into_iter()
        .map(vocabulary)
        .filter(|vocabulary| vocabulary.sizes.iter().any(Option::is_some))
        .collect()
}

/// The shape of one row, of integers that have rows in front.
fn row_of_ids(graph: &Graph, input: ValueId) -> Option<Vec<usize>> {
    let fact = graph.fact(input);
    let (rows, others) = fact.shape.split_first()?;
    let integers = matches!(fact.element, Element::I64 | Element::I32);
    if !integers || rows.per_row() != Some(1) {
        return None;
    }
    let others = others.iter().map(|extent| extent.as_fixed());
    std::iter::once(Some(1)).chain(others).collect()
}

/// A value of one row: which id each element is, and what was added to it.
#[derive(Clone)]
struct Trace {
    ids: Tensor,
    added: Tensor,
}

impl Trace {
    /// What comes out of a step that moves elements.
    fn moved(op: &Op, traces: &[&Trace], index: Option<&Tensor>) -> Option<Trace> {
        let part = |of: fn(&Trace) -> &Tensor| {
            let inputs: Vec<&Tensor> = traces.iter().map(|trace| of(trace)).chain(index).collect();
            interpret::eval(op, &inputs, 1).ok()?.pop()
        };
        Some(Trace {
            ids: part(|trace| &trace.ids)?,
            added: part(|trace| &trace.added)?,
        })
    }

    /// With a constant added, or subtracted.
    fn shifted(&self, op: Binary, constant: &Tensor) -> Option<Trace> {
        let added = interpret::eval(&Op::Binary(op), &[&self.added, constant], 1)
            .ok()?
            .pop()?;
        Some(Trace {
            ids: broadcast(&self.ids, &added.shape)?,
            added,
        })
    }

    fn uses(&self) -> Vec<(usize, i64)> {
        let pairs = self
            .ids
            .as_int()
            .into_iter()
            .flatten()
            .zip(self.added.as_int().into_iter().flatten());
        let used = |(id, added): (&i64, &i64)| Some((usize::try_from(*id).ok()?, *added));
        pairs.filter_map(used).collect()
    }
}

/// One step that looks ids up: which, and what was added to each.
type Lookup = Vec<(usize, i64)>;

#[derive(Default)]
struct Ids {
    /// Elements of a row of all inputs together.
    count: usize,
    traces: BTreeMap<ValueId, Trace>,
    /// Rows of each table, and the steps that look ids up in it.
    tables: BTreeMap<ValueId, (i64, Vec<Lookup>)>,
    /// What is used in another way.
    other: BTreeSet<usize>,
}

impl Ids {
    fn add(&mut self, input: ValueId, shape: Vec<usize>) -> usize {
        let (first, count) = (self.count, shape.iter().product::<usize>());
        self.count += count;
        let number = |id: usize| i64::try_from(id).unwrap_or(i64::MAX);
        let trace = Trace {
            ids: Tensor::i64(shape.clone(), (first..self.count).map(number).collect()),
            added: Tensor::i64(shape, vec![0; count]),
        };
        self.traces.insert(input, trace);
        first
    }

    fn follow(&mut self, graph: &Graph, node: &Node) {
        if node.inputs.iter().all(|input| !self.traces.contains_key(input)) {
            return;
        }
        if let (Op::Gather { axis: 0 }, [table, indices]) = (&node.op, &node.inputs[..])
            && let (Some(rows), Some(trace)) = (graph.constant(*table), self.traces.get(indices))
        {
            let rows = rows.shape.first().and_then(|rows| i64::try_from(*rows).ok());
            let (_, lookups) = self
                .tables
                .entry(*table)
                .or_insert((rows.unwrap_or(0), Vec::new()));
            lookups.push(trace.uses());
            return;
        }
        if self.marks(graph, node) {
            return;
        }
        match self.step(graph, node) {
            Some(trace) => {
                self.traces.insert(node.outputs[0], trace);
            }
            None => node.inputs.iter().for_each(|input| self.used(*input)),
        }
    }

    /// Whether a step only tells where ids are some that there may be, as paddings by a row of their own.
    fn marks(&self, graph: &Graph, node: &Node) -> bool {
        let (Op::Binary(Binary::Equal), [one, other]) = (&node.op, &node.inputs[..]) else {
            return false;
        };
        let (ids, constant) = match self.traces.get(one) {
            Some(trace) => (trace, graph.constant(*other)),
            None => (&self.traces[other], graph.constant(*one)),
        };
        let from_0 = |tensor: &Tensor| {
            tensor
                .as_int()
                .is_some_and(|values| values.iter().all(|value| *value >= 0))
        };
        let unchanged = ids
            .added
            .as_int()
            .is_some_and(|added| added.iter().all(|added| *added == 0));
        unchanged && constant.is_some_and(from_0)
    }

    /// What a step makes of ids; `None` when it may be more than moving them or adding to them.
    fn step(&self, graph: &Graph, node: &Node) -> Option<Trace> {
        let traces: Vec<Option<&Trace>> = node.inputs.iter().map(|input| self.traces.get(input)).collect();
        match (&node.op, &traces[..]) {
            (Op::Cast(Element::I64 | Element::I32), [Some(trace)]) => Some((*trace).clone()),
            (
                Op::Slice { .. } | Op::Reshape { .. } | Op::Transpose { .. } | Op::Expand { .. },
                [Some(trace)],
            ) => Trace::moved(&node.op, &[trace], None),
            (Op::Gather { .. }, [Some(trace), None]) => {
                Trace::moved(&node.op, &[trace], Some(graph.constant(node.inputs[1])?))
            }
            (Op::Concat { .. }, traces) => {
                let all: Vec<&Trace> = traces.iter().copied().collect::<Option<_>>()?;
                Trace::moved(&node.op, &all, None)
            }
            (Op::Binary(op @ (Binary::Add | Binary::Sub)), [Some(trace), None]) => {
                trace.shifted(*op, graph.constant(node.inputs[1])?)
            }
            (Op::Binary(Binary::Add), [None, Some(trace)]) => {
                trace.shifted(Binary::Add, graph.constant(node.inputs[0])?)
            }
            _ => None,
        }
    }

    fn used(&mut self, value: ValueId) {
        if let Some(trace) = self.traces.get(&value) {
            self.other.extend(trace.uses().into_iter().map(|(id, _)| id));
        }
    }

    fn sizes(&self) -> Vec<Option<u64>> {
        let mut sizes: Vec<Option<u64>> = vec![None; self.count];
        let mut unknown = self.other.clone();
        for (rows, lookups) in self.tables.values() {
            let parts = parts(*rows, lookups);
            for (id, added) in lookups.iter().flatten() {
                match parts.as_ref().and_then(|parts| parts.get(added)) {
                    Some(size) => sizes[*id] = Some(sizes[*id].unwrap_or(u64::MAX).min(*size)),
                    None => {
                        unknown.insert(*id);
                    }
                }
            }
        }
        unknown.into_iter().for_each(|id| sizes[id] = None);
        sizes
    }
}

/// Rows of a table's parts by where they begin; `None` when it is not proven that these are parts.
///
/// Either nothing is added anywhere, or every step adds several offsets, which begin at 0 together, and the same id always
/// has the same one: a single constant would be a shift, as of ids from -1 on.
fn parts(rows: i64, lookups: &[Lookup]) -> Option<BTreeMap<i64, u64>> {
    let offsets = |lookup: &Lookup| lookup.iter().map(|(_, added)| *added).collect::<BTreeSet<i64>>();
    let whole = lookups
        .iter()
        .all(|lookup| offsets(lookup) == BTreeSet::from([0]));
    if !whole && lookups.iter().any(|lookup| offsets(lookup).len() < 2) {
        return None;
    }
    let mut by_id = BTreeMap::new();
    for (id, added) in lookups.iter().flatten() {
        if *by_id.entry(*id).or_insert(*added) != *added {
            return None;
        }
    }
    let starts: BTreeSet<i64> = by_id.into_values().collect();
    let ends = starts.iter().skip(1).copied().chain([rows]);
    if starts.first() != Some(&0) {
        return None;
    }
    let part =
        |(start, end): (&i64, i64)| Some((*start, u64::try_from(end - start).ok().filter(|size| *size > 0)?));
    starts.iter().zip(ends).map(part).collect()
}

#[cfg(test)]
#[path = "vocabulary_tests.rs"]
mod tests;
