//! Cutting and joining values along an axis.

use super::{Domain, Mapped, Rebuild};
use crate::ir::{Extent, Op, ValueId};

impl Rebuild<'_> {
    pub(super) fn length(&self, id: ValueId, axis: usize) -> Result<usize, String> {
        self.new.shape(id)[axis]
            .as_fixed()
            .ok_or_else(|| "the parts grow with the rows".to_owned())
    }

    pub(super) fn slice(
        &mut self,
        id: ValueId,
        axis: usize,
        start: usize,
        end: usize,
    ) -> Result<ValueId, String> {
        if (start, end) == (0, self.length(id, axis)?) {
            return Ok(id);
        }
        let name = self.new.value(id).name.clone();
        let op = Op::Slice {
            axis,
            start: Extent::of(start).fixed,
            end: Extent::of(end).fixed,
            step: 1,
        };
        self.push_one(&name, op, &[id])
    }

    /// One value again; the same parts are joined only once.
    pub(super) fn join(&mut self, axis: usize, parts: Vec<ValueId>) -> Result<ValueId, String> {
        if let [only] = parts[..] {
            return Ok(only);
        }
        if let Some(id) = self.joined.get(&(axis, parts.clone())) {
            return Ok(*id);
        }
        let id = self.push_one("joined", Op::Concat { axis }, &parts)?;
        self.joined.insert((axis, parts), id);
        Ok(id)
    }

    pub(super) fn joint(&self, ids: &[ValueId]) -> Domain {
        ids.iter()
            .map(|id| self.domain(*id))
            .fold(Domain::Const, Domain::join)
    }

    /// Neighbours of one domain joined; one value where all are.
    pub(super) fn gather_parts(&mut self, axis: usize, parts: &[ValueId]) -> Result<Mapped, String> {
        let mut merged: Vec<ValueId> = Vec::new();
        for run in parts
            .chunk_by(|a, b| self.domain(*a) == self.domain(*b))
            .map(<[ValueId]>::to_vec)
            .collect::<Vec<_>>()
        {
            merged.push(self.join(axis, run)?);
        }
        Ok(match merged[..] {
            [only] => Mapped::One(only),
            _ => Mapped::Parts { axis, parts: merged },
        })
    }

    /// The value cut along `axis` into pieces of these lengths; a value that broadcasts along it is each piece itself.
    pub(super) fn cut(
        &mut self,
        value: &Mapped,
        axis: usize,
        rank: usize,
        lengths: &[usize],
    ) -> Result<Option<Vec<ValueId>>, String> {
        let id = match value {
            Mapped::Parts { axis: own, parts } if *own == axis && self.new.shape(parts[0]).len() == rank => {
                let own = parts
                    .iter()
                    .map(|part| self.length(*part, axis))
                    .collect::<Result<Vec<_>, _>>()?;
                return Ok((own == lengths).then(|| parts.clone()));
            }
            Mapped::Parts { axis: own, parts } => self.join(*own, parts.clone())?,
            Mapped::One(id) => *id,
        };
        let Some(own_axis) = (axis + self.new.shape(id).len()).checked_sub(rank) else {
            return Ok(Some(vec![id; lengths.len()]));
        };
        if self.new.shape(id)[own_axis] == Extent::ONE {
            return Ok(Some(vec![id; lengths.len()]));
        }
        let mut start = 0;
        let mut pieces = Vec::with_capacity(lengths.len());
        for length in lengths {
            pieces.push(self.slice(id, own_axis, start, start + length)?);
            start += length;
        }
        Ok(Some(pieces))
    }
}
