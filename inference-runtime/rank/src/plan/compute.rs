//! What each step's kernel is given.

use super::run::{Block, Run, Scratch};
use super::step::{
    Batched, Copy, IdGroup, Kind, Linear, Memory, Place, Recurrent, Start, Step, View, Weights,
};
use crate::interpret::EvalError;
use crate::kernel::{self, Columns, Ids, Norm, PairRows, Product, Rows, RowsMut, Sequence, Table};

impl Run<'_> {
    pub(super) fn compute(
        &self,
        step: &Step,
        place: &Place,
        block: &Block<'_>,
        scratch: &Scratch,
        memory: &mut [f32],
    ) -> Result<(), EvalError> {
        let rows = block.rows;
        let width = step.width;
        if let Kind::Copy(copies) = &step.kind {
            self.copy(copies, (place, width), block, scratch, memory);
            return Ok(());
        }
        let mut out = RowsMut {
            data: &mut memory[place.from..],
            stride: place.stride,
        };
        let view = |view: &View| self.rows(view, block, scratch);
        match &step.kind {
            Kind::Gather { table, ids } => self.gather(table, ids, block, scratch, &mut out)?,
            Kind::Round(parts) => {
                let pairs = kernel::pairs_mut(out.data);
                for part in parts {
                    let to = Columns {
                        at: part.to,
                        depth: out.stride,
                    };
                    kernel::round(self.set, view(&part.view), [rows, part.width], to, pairs);
                }
            }
            Kind::Product(linear) => self.product(linear, block, scratch, &mut out),
            Kind::Unary(unary, x) => {
                let x = view(x);
                let flat = flat(&[&x], &out, width);
                let (rows, width) = if flat { (1, rows * width) } else { (rows, width) };
                kernel::unary(self.set, *unary, x, rows, width, &mut out);
            }
            Kind::Binary(binary, a, b) => {
                let (a, b) = (self.operand(a, block, scratch), self.operand(b, block, scratch));
                let flat = flat(&[&a, &b], &out, width);
                let (rows, width) = if flat { (1, rows * width) } else { (rows, width) };
                kernel::binary(self.set, *binary, [a, b], rows, width, &mut out);
            }
            Kind::Batched(batched) => self.batched(batched, block, scratch, &mut out),
            Kind::Reduce(reduction, x, groups) => {
                kernel::reduce(self.set, *reduction, view(x), rows, *groups, &mut out);
            }
            Kind::Softmax { x, groups, log } => {
                kernel::softmax(self.set, view(x), rows, *groups, *log, &mut out);
            }
            Kind::LayerNorm {
                x,
                group,
                epsilon,
                scale,
                bias,
            } => {
                let norm = Norm {
                    group: *group,
                    epsilon: *epsilon,
                    scale,
                    bias: bias.as_ref().map(|bias| bias.as_slice()),
                };
                kernel::layer_norm(self.set, view(x), rows, norm, &mut out);
            }
            Kind::Gru(recurrent) => self.recurrent(recurrent, block, scratch, &mut out),
            Kind::Trees { forest, x } => {
                let prepared = &mut scratch.floats.borrow_mut();
                kernel::trees(self.set, forest, view(x), rows, prepared, &mut out);
            }
            Kind::Copy(_) | Kind::Interpret { .. } => {}
        }
        Ok(())
    }

    fn product(&self, linear: &Linear, block: &Block<'_>, scratch: &Scratch, out: &mut RowsMut<'_>) {
        let mut start = match &linear.start {
            Start::Zero => kernel::Start::Zero,
            Start::Row(row) => kernel::Start::Row(row),
            Start::Rows(view) => kernel::Start::Rows(self.rows(view, block, scratch)),
        };
        let mut a = self.rows(&linear.a, block, scratch);
        // Of a row with several parts everything lies together.
        if linear.parts > 1 {
            let n = linear.weights.n();
            out.stride = n;
            a.stride = linear.weights.stride();
            if let kernel::Start::Rows(rows) = &mut start {
                rows.stride = n;
            }
        }
        let (rows, relu) = (block.rows * linear.parts, linear.relu);
        match &linear.weights {
            Weights::F32(weights) => {
                let product = Product {
                    rows,
                    a,
                    weights: weights.as_ref(),
                    start,
                    relu,
                };
                kernel::multiply(self.set, &product, out);
            }
            Weights::Bf16(weights) => {
                let product = Product {
                    rows,
                    a: PairRows {
                        pairs: kernel::pairs(a.data),
                        stride: a.stride,
                    },
                    weights: weights.as_ref(),
                    start,
                    relu,
                };
                if linear.rounded {
                    kernel::multiply_and_round(self.set, &product, out);
                } else {
                    kernel::multiply_bf16(self.set, &product, out);
                }
            }
        }
    }

    fn gather(
        &self,
        table: &Table,
        groups: &[IdGroup],
        block: &Block<'_>,
        scratch: &Scratch,
        out: &mut RowsMut<'_>,
    ) -> Result<(), EvalError> {
        for group in groups {
            let (data, stride, index) = self.integers(group.root, block, scratch);
            let ids = Ids {
                data,
                stride,
                index,
                columns: &group.columns,
            };
            let mut out = RowsMut {
                data: &mut out.data[group.to * table.width()..],
                stride: out.stride,
            };
            kernel::gather(table, &ids, block.rows, &mut out).map_err(|outside| EvalError::Index {
                index: outside.index,
                size: table.size(),
            })?;
        }
        Ok(())
    }

    fn batched(&self, batched: &Batched, block: &Block<'_>, scratch: &Scratch, out: &mut RowsMut<'_>) {
        let [matrices, m, k, n] = batched.sizes;
        let a = self.operand(&batched.a, block, scratch);
        let b = self.rows(&batched.b, block, scratch);
        let start = batched
            .start
            .as_ref()
            .map(|start| self.operand(start, block, scratch));
        let [a_matrix, a_row] = batched.a_strides;
        let [b_matrix, b_row, b_column] = batched.b_strides;
        let span = |sizes: [usize; 3], strides: [usize; 3]| {
            let last = sizes
                .into_iter()
                .zip(strides)
                .map(|(size, stride)| (size.max(1) - 1) * stride);
            last.sum::<usize>() + 1
        };
        let a_width = span([matrices, m, k], [a_matrix, a_row, 1]);
        let b_width = span([matrices, k, n], batched.b_strides);
        let mut packed = scratch.packed.borrow_mut();
        for row in 0..block.rows {
            let (a, b) = (a.row(row, a_width), b.row(row, b_width));
            let start = start.map(|start| start.row(row, matrices * m * n));
            let out = out.row(row, matrices * m * n);
            for matrix in 0..matrices {
                if matrix == 0 || b_matrix > 0 {
                    let b = &b[matrix * b_matrix..];
                    packed.fill(b, [k, n], [b_row, b_column]);
                }
                let product = Product {
                    rows: m,
                    a: Rows::new(&a[matrix * a_matrix..], a_row),
                    weights: &*packed,
                    start: start.map_or(kernel::Start::Zero, |start| {
                        kernel::Start::Rows(Rows::new(&start[matrix * m * n..], n))
                    }),
                    relu: false,
                };
                let mut out = RowsMut {
                    data: &mut out[matrix * m * n..],
                    stride: n,
                };
                kernel::multiply(self.set, &product, &mut out);
            }
        }
    }

    fn recurrent(&self, unit: &Recurrent, block: &Block<'_>, scratch: &Scratch, out: &mut RowsMut<'_>) {
        let sequence = Sequence {
            steps: unit.steps,
            x: self.rows(&unit.x, block, scratch),
            initial: self.operand(&unit.initial, block, scratch),
        };
        let memory = &mut scratch.floats.borrow_mut();
        kernel::gru(self.set, &unit.unit, &sequence, block.rows, memory, out);
    }

    fn copy(
        &self,
        copies: &[Copy],
        (to, width): (&Place, usize),
        block: &Block<'_>,
        scratch: &Scratch,
        memory: &mut [f32],
    ) {
        for copy in copies {
            let from = self.place(copy.root);
            let inside = matches!((&from.memory, &to.memory), (Memory::Buffer(a), Memory::Buffer(b)) if a == b)
                && from.stage == to.stage;
            if inside {
                for row in 0..block.rows {
                    let (source, target) = (from.from + row * from.stride, to.from + row * to.stride);
                    for run in &copy.runs {
                        let (source, target) = (source + run.from, target + run.to);
                        if run.step == 0 {
                            let value = memory[source];
                            memory[target..target + run.len].fill(value);
                        } else {
                            memory.copy_within(source..source + run.len, target);
                        }
                    }
                    for [from, to] in &copy.cells {
                        memory[target + to] = memory[source + from];
                    }
                }
                continue;
            }
            let view = View {
                root: copy.root,
                from: 0,
            };
            let rows = self.rows(&view, block, scratch);
            for row in 0..block.rows {
                let source = rows.row(row, copy.width);
                let target = &mut memory[to.from + row * to.stride..][..width];
                for run in &copy.runs {
                    let target = &mut target[run.to..run.to + run.len];
                    if run.step == 0 {
                        target.fill(source[run.from]);
                    } else {
                        kernel::copy(&source[run.from..run.from + run.len], target);
                    }
                }
                for [from, to] in &copy.cells {
                    target[*to] = source[*from];
                }
            }
        }
    }
}

/// Whether all rows lie one right after the other everywhere.
fn flat(operands: &[&Rows<'_>], out: &RowsMut<'_>, width: usize) -> bool {
    let together = |rows: &&Rows<'_>| rows.stride == width && rows.index.is_none();
    out.stride == width && operands.iter().all(together)
}
