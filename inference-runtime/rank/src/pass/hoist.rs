//! Hoisting: work that depends on the request alone is done once a request.
//!
//! The graph is rebuilt node by node. A concatenation is kept as its parts for as long as operators can be applied to each
//! part alone; a product over the concatenated axis becomes a chain of products, the request's first, each starting
//! from the one before. So what belongs to the request separates from what belongs to the pair, and since an accumulator
//! is filled in the same order, not a bit changes between a user sent once and a user repeated.

mod parts;
mod rules;

use std::collections::HashMap;

use super::domain::Domain;
use super::prune;
use crate::ir::{Extent, Fact, Graph, Node, Op, ValueId};

/// Columns of an input's second axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    pub start: usize,
    pub end: usize,
}

impl Columns {
    /// At least 0, whatever was declared.
    pub fn width(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Whether ranges split `count` columns in two: ascending and apart, and neither none nor all of them.
    pub fn split(ranges: &[Self], count: usize) -> bool {
        let ordered = ranges.windows(2).all(|pair| pair[0].end < pair[1].start);
        let inside = ranges
            .iter()
            .all(|range| range.start < range.end && range.end <= count);
        let named: usize = ranges.iter().map(Self::width).sum();
        ordered && inside && named > 0 && named < count
    }
}

/// What of the inputs belongs to the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    Whole,
    /// Ascending, apart. The input arrives as two: `NAME.user` and `NAME.item`.
    Columns(Vec<Columns>),
}

#[derive(Clone, Debug)]
pub struct Hoisted {
    pub graph: Graph,
    /// Inputs that come once a request.
    pub request: Vec<ValueId>,
}

/// A value of the old graph in the new one.
#[derive(Clone, Debug)]
pub(crate) enum Mapped {
    One(ValueId),
    /// Two or more parts along an axis.
    Parts {
        axis: usize,
        parts: Vec<ValueId>,
    },
}

pub(crate) struct Rebuild<'a> {
    old: &'a Graph,
    pub(crate) new: Graph,
    domains: Vec<Domain>,
    mapped: HashMap<ValueId, Mapped>,
    joined: HashMap<(usize, Vec<ValueId>), ValueId>,
}

/// Rewrites a row-independent graph. `once` says for inputs by name what of them belongs to the request.
pub fn hoist(old: &Graph, once: &[(String, Once)]) -> Result<Hoisted, String> {
    let mut rebuild = Rebuild {
        old,
        new: Graph::default(),
        domains: Vec::new(),
        mapped: HashMap::new(),
        joined: HashMap::new(),
    };
    if let Some((name, _)) = once
        .iter()
        .find(|(name, _)| old.inputs.iter().all(|id| old.value(*id).name != *name))
    {
        return Err(format!("the model has no input {name:?}"));
    }
    let mut request = Vec::new();
    for id in &old.inputs {
        let declared = once.iter().find(|(name, _)| *name == old.value(*id).name);
        rebuild.input(*id, declared.map(|(_, once)| once), &mut request)?;
    }
    for node in &old.nodes {
        rebuild
            .node(node)
            .map_err(|reason| format!("node {:?} ({}): {reason}", node.name, node.op.name()))?;
    }
    for id in &old.outputs {
        let output = rebuild.one(*id)?;
        rebuild.new.values[output.index()]
            .name
            .clone_from(&old.value(*id).name);
        rebuild.new.outputs.push(output);
    }
    let mut graph = rebuild.new;
    prune::prune(&mut graph);
    Ok(Hoisted { graph, request })
}

impl Rebuild<'_> {
    fn input(&mut self, id: ValueId, once: Option<&Once>, request: &mut Vec<ValueId>) -> Result<(), String> {
        let value = self.old.value(id);
        let (name, fact) = (value.name.as_str(), value.fact.clone());
        let fixed = fact.batch_axis().is_none();
        let mapped = match once {
            None => Mapped::One(self.add_input(name, fact, fixed, request)),
            Some(Once::Whole) => Mapped::One(self.add_input(name, fact, true, request)),
            Some(Once::Columns(ranges)) => self.split_input(name, &fact, ranges, request)?,
        };
        self.mapped.insert(id, mapped);
        Ok(())
    }

    fn add_input(&mut self, name: &str, fact: Fact, once: bool, request: &mut Vec<ValueId>) -> ValueId {
        let id = self.new.add_input(name, fact);
        if once {
            request.push(id);
        }
        self.set_domain(id, if once { Domain::Request } else { Domain::Item });
        id
    }

    /// Two inputs, cut and put in the order of the columns.
    fn split_input(
        &mut self,
        name: &str,
        fact: &Fact,
        ranges: &[Columns],
        request: &mut Vec<ValueId>,
    ) -> Result<Mapped, String> {
        let [rows, columns] = fact.shape[..] else {
            return Err(format!("input {name:?} has no columns"));
        };
        let count = columns.as_fixed().unwrap_or(0);
        if !Columns::split(ranges, count) {
            return Err(format!(
                "input {name:?}: columns must be ranges of {count}, ascending and apart, and not all of them"
            ));
        }
        let user: usize = ranges.iter().map(Columns::width).sum();
        let narrow = |width: usize| Fact::new(fact.element, vec![rows, Extent::of(width)]);
        let user_id = self.add_input(&format!("{name}.user"), narrow(user), true, request);
        let item_id = self.add_input(&format!("{name}.item"), narrow(count - user), false, request);
        let mut parts = Vec::new();
        let (mut at, mut from_user, mut from_item) = (0, 0, 0);
        let mut cut =
            |rebuild: &mut Self, from: ValueId, start: &mut usize, width: usize| -> Result<(), String> {
                if width > 0 {
                    parts.push(rebuild.slice(from, 1, *start, *start + width)?);
                    *start += width;
                }
                Ok(())
            };
        for range in ranges {
            cut(self, item_id, &mut from_item, range.start - at)?;
            cut(self, user_id, &mut from_user, range.end - range.start)?;
            at = range.end;
        }
        cut(self, item_id, &mut from_item, count - at)?;
        Ok(Mapped::Parts { axis: 1, parts })
    }

    fn set_domain(&mut self, id: ValueId, domain: Domain) {
        self.domains
            .resize(self.new.values.len().max(id.index() + 1), Domain::Const);
        self.domains[id.index()] = domain;
    }

    pub(crate) fn domain(&self, id: ValueId) -> Domain {
        self.domains.get(id.index()).copied().unwrap_or(Domain::Const)
    }

    pub(crate) fn push(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<Vec<ValueId>, String> {
        let domain = inputs
            .iter()
            .map(|id| self.domain(*id))
            .fold(Domain::Const, Domain::join);
        let outputs = self.new.push(name, op, inputs)?;
        outputs.iter().for_each(|id| self.set_domain(*id, domain));
        Ok(outputs)
    }

    pub(crate) fn push_one(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, String> {
        self.push(name, op, inputs).map(|outputs| outputs[0])
    }

    /// The value in the new graph, constants copied when first used.
    pub(crate) fn mapped(&mut self, id: ValueId) -> Mapped {
        if let Some(mapped) = self.mapped.get(&id) {
            return mapped.clone();
        }
        let value = self.old.value(id);
        let constant = value
            .constant
            .clone()
            .expect("a value without a node is an input or a constant");
        let mapped = Mapped::One(self.new.add_constant(&value.name, constant));
        self.mapped.insert(id, mapped.clone());
        mapped
    }

    fn one(&mut self, id: ValueId) -> Result<ValueId, String> {
        match self.mapped(id) {
            Mapped::One(id) => Ok(id),
            Mapped::Parts { axis, parts } => self.join(axis, parts),
        }
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        let inputs: Vec<Mapped> = node.inputs.iter().map(|id| self.mapped(*id)).collect();
        if let Some(mapped) = self.by_parts(node, &inputs)? {
            self.mapped.insert(node.outputs[0], mapped);
            return Ok(());
        }
        let inputs: Vec<ValueId> = node
            .inputs
            .iter()
            .map(|id| self.one(*id))
            .collect::<Result<_, _>>()?;
        let outputs = self.push(&node.name, node.op.clone(), &inputs)?;
        for (old, new) in node.outputs.iter().zip(outputs) {
            self.mapped.insert(*old, Mapped::One(new));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
