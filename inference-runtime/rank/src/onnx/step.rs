//! One node on its way into the IR.

use super::attributes::Attributes;
use super::import::{Importer, node_name};
use super::proto::NodeProto;
use crate::ir::{Extent, Fact, Op, ValueId};
use crate::tensor::Tensor;

pub struct Step<'a, 'b> {
    pub importer: &'a mut Importer<'b>,
    pub node: &'a NodeProto,
    pub attributes: Attributes<'a>,
    pub inputs: &'a [Option<ValueId>],
}

impl Step<'_, '_> {
    pub fn name(&self) -> String {
        node_name(self.node).to_owned()
    }

    pub fn input(&self, at: usize) -> Result<ValueId, String> {
        self.optional(at).ok_or_else(|| format!("input {at} is missing"))
    }

    pub fn optional(&self, at: usize) -> Option<ValueId> {
        self.inputs.get(at).copied().flatten()
    }

    pub fn all(&self) -> Result<Vec<ValueId>, String> {
        (0..self.inputs.len()).map(|at| self.input(at)).collect()
    }

    pub fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, String> {
        let name = self.name();
        self.importer.graph.push_one(&name, op, inputs)
    }

    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = self.name();
        self.importer.graph.add_constant(&name, tensor)
    }

    pub fn fact(&self, id: ValueId) -> &Fact {
        self.importer.graph.fact(id)
    }

    pub fn shape(&self, id: ValueId) -> Vec<Extent> {
        self.fact(id).shape.clone()
    }

    pub fn rank(&self, id: ValueId) -> usize {
        self.fact(id).shape.len()
    }

    /// The tensor of an input that must be constant.
    pub fn known(&self, at: usize, what: &str) -> Result<Tensor, String> {
        let id = self.input(at)?;
        let tensor = self.importer.graph.constant(id);
        tensor.cloned().ok_or_else(|| {
            format!(
                "{what} ({:?}) must be constant",
                self.importer.graph.value(id).name
            )
        })
    }

    pub fn known_ints(&self, at: usize, what: &str) -> Result<Vec<i64>, String> {
        let tensor = self.known(at, what)?;
        tensor
            .as_int()
            .map(<[i64]>::to_vec)
            .ok_or_else(|| format!("{what} must be integers"))
    }

    /// Sizes given as an input: constants, or symbolic in the number of rows.
    pub fn known_sizes(&self, at: usize, what: &str) -> Result<Vec<Extent>, String> {
        let id = self.input(at)?;
        let sizes = self.fact(id).sizes.clone();
        sizes.ok_or_else(|| {
            format!(
                "{what} ({:?}) must follow from shapes and constants",
                self.importer.graph.value(id).name
            )
        })
    }

    /// An axis of an input, counted from the end when negative.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, String> {
        let position = if axis < 0 {
            axis + Extent::of(rank).fixed
        } else {
            axis
        };
        let position = usize::try_from(position).ok().filter(|position| *position < rank);
        position.ok_or_else(|| format!("axis {axis} is outside of {rank} axes"))
    }

    /// Axes from the attribute (older opsets) or an input.
    pub fn axes(&self, at: usize, rank: usize) -> Result<Option<Vec<usize>>, String> {
        let axes = match (self.attributes.ints("axes"), self.optional(at)) {
            (Some(axes), _) => axes.to_vec(),
            (None, Some(_)) => self.known_ints(at, "axes")?,
            (None, None) => return Ok(None),
        };
        let mut axes: Vec<usize> = axes
            .iter()
            .map(|axis| self.axis(*axis, rank))
            .collect::<Result<_, _>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(Some(axes))
    }

    pub fn reshape(&mut self, x: ValueId, shape: Vec<Extent>) -> Result<ValueId, String> {
        if self.fact(x).shape == shape {
            return Ok(x);
        }
        self.push(Op::Reshape { shape }, &[x])
    }

    pub fn transpose(&mut self, x: ValueId, perm: Vec<usize>) -> Result<ValueId, String> {
        if perm.iter().enumerate().all(|(at, axis)| at == *axis) {
            return Ok(x);
        }
        self.push(Op::Transpose { perm }, &[x])
    }
}
