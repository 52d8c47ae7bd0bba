//! Tables that rows are gathered from: each is in memory once for all steps that read it, or twice where some of them read it rounded.

use std::sync::Arc;

use super::compile::Compiler;
use super::step::Kind;
use crate::ir::ValueId;
use crate::kernel::{InstructionSet, Table};
use crate::tensor::Tensor;

#[derive(Default)]
pub(super) struct Tables {
    plain: Vec<(Arc<Tensor>, Arc<Table>)>,
    /// With the plain one.
    rounded: Vec<(Arc<Table>, Arc<Table>)>,
    in_lines: Vec<(Arc<Table>, Arc<Table>)>,
}

impl Tables {
    fn of(&mut self, tensor: &Arc<Tensor>) -> Option<Arc<Table>> {
        if let Some(table) = found(&self.plain, tensor) {
            return Some(table);
        }
        let table = Arc::new(Table::new(tensor)?);
        self.plain.push((Arc::clone(tensor), Arc::clone(&table)));
        Some(table)
    }

    pub fn rounded(&mut self, table: &Arc<Table>, set: InstructionSet) -> Arc<Table> {
        made(&mut self.rounded, table, || table.in_pairs(set))
    }

    fn in_lines(&mut self, table: &Arc<Table>) -> Arc<Table> {
        made(&mut self.in_lines, table, || table.in_lines())
    }
}

fn found<K, V>(all: &[(Arc<K>, Arc<V>)], key: &Arc<K>) -> Option<Arc<V>> {
    let one = all.iter().find(|(own, _)| Arc::ptr_eq(own, key));
    one.map(|(_, value)| Arc::clone(value))
}

fn made<K, V>(all: &mut Vec<(Arc<K>, Arc<V>)>, key: &Arc<K>, make: impl FnOnce() -> V) -> Arc<V> {
    found(all, key).unwrap_or_else(|| {
        let value = Arc::new(make());
        all.push((Arc::clone(key), Arc::clone(&value)));
        value
    })
}

impl Compiler<'_> {
    /// A constant of F32, by its first axis.
    pub(super) fn table(&mut self, id: ValueId) -> Option<Arc<Table>> {
        let tensor = self.plain_constant(id)?;
        self.tables.of(&tensor)
    }

    /// Puts what the model has into memory that suits gathering.
    pub(super) fn lay_out_tables(&mut self) {
        for step in &mut self.steps {
            if let Kind::Gather { table, .. } = &mut step.kind
                && !table.is_laid_out()
            {
                *table = self.tables.in_lines(table);
            }
        }
    }
}
