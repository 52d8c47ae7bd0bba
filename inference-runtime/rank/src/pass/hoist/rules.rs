//! How each operator is applied to the parts of a concatenation.

use super::{Domain, Mapped, Rebuild};
use crate::ir::{Extent, Node, Op, Reduction, ValueId};
use crate::tensor::Tensor;

/// `None`: join the parts, and apply the operator whole.
type ByParts = Result<Option<Mapped>, String>;

impl Rebuild<'_> {
    pub(super) fn by_parts(&mut self, node: &Node, inputs: &[Mapped]) -> ByParts {
        if let Op::Concat { axis } = node.op {
            return self.concat(axis, inputs).map(Some);
        }
        let Some((at, axis, parts)) = inputs.iter().enumerate().find_map(|(at, input)| match input {
            Mapped::Parts { axis, parts } => Some((at, *axis, parts.clone())),
            Mapped::One(_) => None,
        }) else {
            return Ok(None);
        };
        match &node.op {
            Op::Unary(_) | Op::Cast(_) => self.each(node, axis, &parts, node.op.clone()),
            Op::Binary(_) | Op::Where => self.elementwise(node, inputs, axis, at),
            Op::Gather { axis: over } => self.gather(node, inputs, *over),
            Op::Slice {
                axis: over,
                start,
                end,
                step: 1,
            } if *over == axis => self.slice_parts(axis, &parts, *start, *end),
            Op::Slice { axis: over, .. } if *over != axis => self.each(node, axis, &parts, node.op.clone()),
            Op::Reshape { shape } => self.reshape(node, axis, &parts, shape),
            Op::Transpose { perm } => {
                let moved = perm
                    .iter()
                    .position(|from| *from == axis)
                    .ok_or("perm lacks an axis")?;
                self.each(node, moved, &parts, node.op.clone())
            }
            Op::Reduce {
                reduction,
                axes,
                keep,
            } => self.reduce(node, axis, &parts, (*reduction, axes, *keep)),
            Op::MatMul if at == 0 => self.matmul(node, inputs, axis, &parts),
            _ => Ok(None),
        }
    }

    /// Whether some part can be had for less often than the whole.
    fn worthwhile(&self, parts: &[ValueId], others: Domain) -> bool {
        let whole = self.joint(parts).join(others);
        parts.iter().any(|part| self.domain(*part).join(others) != whole)
    }

    fn concat(&mut self, axis: usize, inputs: &[Mapped]) -> Result<Mapped, String> {
        let mut parts = Vec::new();
        for input in inputs {
            match input {
                Mapped::Parts {
                    axis: own,
                    parts: own_parts,
                } if *own == axis => parts.extend(own_parts),
                Mapped::Parts {
                    axis: own,
                    parts: own_parts,
                } => parts.push(self.join(*own, own_parts.clone())?),
                Mapped::One(id) => parts.push(*id),
            }
        }
        self.gather_parts(axis, &parts)
    }

    fn each(&mut self, node: &Node, axis: usize, parts: &[ValueId], op: Op) -> ByParts {
        let mut results = Vec::with_capacity(parts.len());
        for part in parts {
            results.push(self.push_one(&node.name, op.clone(), &[*part])?);
        }
        self.gather_parts(axis, &results).map(Some)
    }

    fn elementwise(&mut self, node: &Node, inputs: &[Mapped], axis: usize, at: usize) -> ByParts {
        let Mapped::Parts { parts, .. } = &inputs[at] else {
            return Ok(None);
        };
        let rank = self.old.shape(node.outputs[0]).len();
        // Only where the split input has the result's rank does its axis mean the result's.
        if self.new.shape(parts[0]).len() != rank {
            return Ok(None);
        }
        let lengths = parts
            .iter()
            .map(|part| self.length(*part, axis))
            .collect::<Result<Vec<_>, _>>()?;
        let mut others = Domain::Const;
        for (position, input) in inputs.iter().enumerate().filter(|(position, _)| *position != at) {
            match input {
                Mapped::One(id) => others = others.join(self.domain(*id)),
                Mapped::Parts { .. } if position == at => {}
                Mapped::Parts {
                    axis: own,
                    parts: own_parts,
                } => {
                    let own_lengths = own_parts
                        .iter()
                        .map(|part| self.length(*part, *own))
                        .collect::<Result<Vec<_>, _>>()?;
                    if *own != axis || own_lengths != lengths {
                        return Ok(None);
                    }
                }
            }
        }
        if !self.worthwhile(parts, others) {
            return Ok(None);
        }
        let mut columns = Vec::with_capacity(inputs.len());
        for input in inputs {
            match self.cut(input, axis, rank, &lengths)? {
                Some(pieces) => columns.push(pieces),
                None => return Ok(None),
            }
        }
        let mut results = Vec::with_capacity(lengths.len());
        for piece in 0..lengths.len() {
            let arguments: Vec<ValueId> = columns.iter().map(|pieces| pieces[piece]).collect();
            results.push(self.push_one(&node.name, node.op.clone(), &arguments)?);
        }
        self.gather_parts(axis, &results).map(Some)
    }

    fn gather(&mut self, node: &Node, inputs: &[Mapped], over: usize) -> ByParts {
        match (&inputs[0], &inputs[1]) {
            // Rows of one table for each part of the indices.
            (Mapped::One(table), Mapped::Parts { axis, parts }) => {
                let mut results = Vec::with_capacity(parts.len());
                for part in parts {
                    results.push(self.push_one(&node.name, node.op.clone(), &[*table, *part])?);
                }
                self.gather_parts(over + axis, &results).map(Some)
            }
            (Mapped::Parts { axis, parts }, Mapped::One(indices)) if *axis == over => {
                let Some(tensor) = self.new.constant(*indices).cloned() else {
                    return Ok(None);
                };
                self.pick(node, *axis, parts, &tensor)
            }
            (Mapped::Parts { axis, parts }, Mapped::One(indices)) => {
                let (indices, axis) = (*indices, *axis);
                let rank = self.new.shape(indices).len();
                let moved = if axis < over { axis } else { axis + rank - 1 };
                if self.new.constant(indices).is_none() {
                    return Ok(None);
                }
                let mut results = Vec::with_capacity(parts.len());
                for part in parts {
                    results.push(self.push_one(&node.name, node.op.clone(), &[*part, indices])?);
                }
                self.gather_parts(moved, &results).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Constant positions along the parts' own axis: a piece for each run inside one part.
    fn pick(&mut self, node: &Node, axis: usize, parts: &[ValueId], indices: &Tensor) -> ByParts {
        let lengths = parts
            .iter()
            .map(|part| self.length(*part, axis))
            .collect::<Result<Vec<_>, _>>()?;
        let total: usize = lengths.iter().sum();
        let locate = |index: &i64| -> Option<(usize, i64)> {
            let mut at = usize::try_from(if *index < 0 {
                *index + Extent::of(total).fixed
            } else {
                *index
            })
            .ok()?;
            for (part, length) in lengths.iter().enumerate() {
                match at.checked_sub(*length) {
                    Some(rest) => at = rest,
                    None => return Some((part, Extent::of(at).fixed)),
                }
            }
            None
        };
        let Some(places) = indices
            .as_int()
            .and_then(|all| all.iter().map(locate).collect::<Option<Vec<_>>>())
        else {
            return Err("an index is outside of its axis".to_owned());
        };
        if let ([], [(part, at)]) = (&indices.shape[..], &places[..]) {
            let index = self
                .new
                .add_constant("column", Tensor::i64(Vec::new(), vec![*at]));
            return Ok(Some(Mapped::One(self.push_one(
                &node.name,
                Op::Gather { axis },
                &[parts[*part], index],
            )?)));
        }
        if indices.shape.len() != 1 {
            return Ok(None);
        }
        let mut results = Vec::new();
        for run in places.chunk_by(|a, b| a.0 == b.0) {
            let positions = run.iter().map(|(_, at)| *at).collect();
            let index = self
                .new
                .add_constant("columns", Tensor::i64(vec![run.len()], positions));
            results.push(self.push_one(&node.name, Op::Gather { axis }, &[parts[run[0].0], index])?);
        }
        self.gather_parts(axis, &results).map(Some)
    }

    fn slice_parts(&mut self, axis: usize, parts: &[ValueId], start: i64, end: i64) -> ByParts {
        let (Ok(start), Ok(end)) = (usize::try_from(start), usize::try_from(end)) else {
            return Ok(None);
        };
        let mut at = 0;
        let mut kept = Vec::new();
        for part in parts {
            let length = self.length(*part, axis)?;
            let (from, to) = (start.clamp(at, at + length) - at, end.clamp(at, at + length) - at);
            if from < to {
                kept.push(self.slice(*part, axis, from, to)?);
            }
            at += length;
        }
        if kept.is_empty() {
            Ok(None)
        } else {
            self.gather_parts(axis, &kept).map(Some)
        }
    }

    /// The split axis may merge with the ones behind it, or fall apart, where parts stay whole.
    fn reshape(&mut self, node: &Node, axis: usize, parts: &[ValueId], shape: &[Extent]) -> ByParts {
        let own = self.new.shape(parts[0]).to_vec();
        let before = Extent::product(&own[..axis]);
        let Some(moved) = (0..shape.len()).find(|at| {
            before.is_some() && Extent::product(&shape[..*at]) == before && shape[*at] != Extent::ONE
        }) else {
            return Ok(None);
        };
        let inner = |shape: &[Extent]| {
            Extent::product(shape)
                .and_then(Extent::as_fixed)
                .filter(|size| *size > 0)
        };
        let (Some(from), Some(to)) = (inner(&own[axis + 1..]), inner(&shape[moved + 1..])) else {
            return Ok(None);
        };
        let mut results = Vec::with_capacity(parts.len());
        let mut targets = Vec::with_capacity(parts.len());
        for part in parts {
            let elements = self.length(*part, axis)? * from;
            if elements % to != 0 {
                return Ok(None);
            }
            let mut target = shape.to_vec();
            target[moved] = Extent::of(elements / to);
            targets.push(target);
        }
        for (part, shape) in parts.iter().zip(targets) {
            results.push(self.push_one(&node.name, Op::Reshape { shape }, &[*part])?);
        }
        self.gather_parts(moved, &results).map(Some)
    }

    fn reduce(
        &mut self,
        node: &Node,
        axis: usize,
        parts: &[ValueId],
        how: (Reduction, &[usize], bool),
    ) -> ByParts {
        let (reduction, axes, keep) = how;
        if !axes.contains(&axis) {
            let moved = if keep {
                axis
            } else {
                axis - axes.iter().filter(|reduced| **reduced < axis).count()
            };
            return self.each(node, moved, parts, node.op.clone());
        }
        let binary = match reduction {
            Reduction::Sum | Reduction::SumSquare => crate::ir::Binary::Add,
            Reduction::Max => crate::ir::Binary::Max,
            Reduction::Min => crate::ir::Binary::Min,
            _ => return Ok(None),
        };
        let mut total: Option<ValueId> = None;
        for part in self.request_first(parts) {
            let reduced = self.push_one(&node.name, node.op.clone(), &[part])?;
            total = Some(match total {
                None => reduced,
                Some(total) => self.push_one(&node.name, Op::Binary(binary), &[total, reduced])?,
            });
        }
        Ok(total.map(Mapped::One))
    }

    fn request_first(&self, parts: &[ValueId]) -> Vec<ValueId> {
        let mut ordered = parts.to_vec();
        ordered.sort_by_key(|part| match self.domain(*part) {
            Domain::Const => 0,
            Domain::Request => 1,
            Domain::Item => 2,
            Domain::Pair => 3,
        });
        ordered
    }

    fn matmul(&mut self, node: &Node, inputs: &[Mapped], axis: usize, parts: &[ValueId]) -> ByParts {
        let Mapped::One(weights) = inputs[1] else {
            return Ok(None);
        };
        let rank = self.new.shape(parts[0]).len();
        let weights_rank = self.new.shape(weights).len();
        if axis + 1 != rank {
            // Rows of the product: each part by itself, where nothing is started from.
            let plain = inputs.len() == 2 && axis + 2 == rank && weights_rank <= rank;
            if !plain || !self.worthwhile(parts, self.domain(weights)) {
                return Ok(None);
            }
            let mut results = Vec::with_capacity(parts.len());
            for part in parts {
                results.push(self.push_one(&node.name, Op::MatMul, &[*part, weights])?);
            }
            return self.gather_parts(rank - 2, &results).map(Some);
        }
        let mut start = match inputs.get(2) {
            Some(Mapped::Parts { .. }) => return Ok(None),
            Some(Mapped::One(id)) => Some(*id),
            None => None,
        };
        let mut offsets = std::collections::HashMap::new();
        let mut offset = 0;
        for part in parts {
            let length = self.length(*part, axis)?;
            offsets
                .entry(*part)
                .or_insert_with(Vec::new)
                .push((offset, offset + length));
            offset += length;
        }
        for part in self.request_first(parts) {
            let Some((from, to)) = offsets.get_mut(&part).and_then(Vec::pop) else {
                return Ok(None);
            };
            let rows = self.slice(weights, weights_rank - 2, from, to)?;
            let arguments: Vec<ValueId> = [part, rows].into_iter().chain(start).collect();
            start = Some(self.push_one(&node.name, Op::MatMul, &arguments)?);
        }
        Ok(start.map(Mapped::One))
    }
}
