//! Runs a compiled plan: the request's steps over all requests, then the pairs' over blocks of rows that fit the cache.

use super::compile::Program;
use super::layout::Root;
use super::step::{Copy, IdGroup, Kind, Memory, Operand, Place, Stage, Start, Step, View};
use crate::interpret::EvalError;
use crate::ir::{Graph, ValueId};
use crate::kernel::{self, Ids, InstructionSet, Product, Rows, RowsMut};
use crate::pass::domain::Domains;
use crate::tensor::Tensor;

/// A worker's memory, used again from run to run.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(super) request: Memories,
    pub(super) pair: Memories,
}

/// What the steps of a stage have written.
#[derive(Debug, Default)]
pub(super) struct Memories {
    buffers: Vec<Vec<f32>>,
    pub slots: Vec<Option<Tensor>>,
}

impl Memories {
    fn prepare(&mut self, widths: &[usize], rows: usize, slots: usize) {
        self.buffers
            .resize_with(widths.len().max(self.buffers.len()), Vec::new);
        for (buffer, width) in self.buffers.iter_mut().zip(widths) {
            if buffer.len() < width * rows {
                buffer.resize(width * rows, 0.0);
            }
        }
        self.slots.resize(slots.max(self.slots.len()), None);
    }
}

/// One run.
pub(super) struct Run<'a> {
    pub graph: &'a Graph,
    pub domains: &'a Domains,
    pub program: &'a Program,
    pub set: InstructionSet,
    pub inputs: &'a [Tensor],
    pub segments: &'a [usize],
    pub requests: usize,
}

/// The rows at hand.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub stage: Stage,
    pub first: usize,
    pub rows: usize,
    /// The request of each pair.
    pub owners: &'a [usize],
}

impl Run<'_> {
    pub fn run(
        &self,
        most: usize,
        scratch: &mut Scratch,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), EvalError> {
        let places = &self.program.places;
        let most = most.min(self.segments.len()).max(1);
        let slots = self.graph.values.len();
        scratch.request.prepare(&places.request, self.requests, slots);
        scratch.pair.prepare(&places.pair, most, slots);
        let request = Block {
            stage: Stage::Request,
            first: 0,
            rows: self.requests,
            owners: &[],
        };
        self.steps(&request, scratch)?;
        self.begin(outputs)?;
        let mut first = 0;
        for owners in self.segments.chunks(most) {
            let block = Block {
                stage: Stage::Pair,
                first,
                rows: owners.len(),
                owners,
            };
            self.steps(&block, scratch)?;
            self.append(&block, scratch, outputs)?;
            first += owners.len();
        }
        Ok(())
    }

    fn steps(&self, block: &Block<'_>, scratch: &mut Scratch) -> Result<(), EvalError> {
        if block.rows == 0 {
            return Ok(());
        }
        let steps = self.program.steps.iter();
        for step in steps.filter(|step| step.stage == block.stage) {
            self.step(step, block, scratch)
                .map_err(|source| EvalError::Node {
                    node: step.name.clone(),
                    operator: step.operator.clone(),
                    source: Box::new(source),
                })?;
        }
        Ok(())
    }

    fn step(&self, step: &Step, block: &Block<'_>, scratch: &mut Scratch) -> Result<(), EvalError> {
        if let Kind::Interpret {
            op,
            arguments,
            outputs,
        } = &step.kind
        {
            return self.interpret(op, arguments, outputs, block, scratch);
        }
        let Some(root) = step.out else { return Ok(()) };
        let place = self.place(root);
        let Memory::Buffer(buffer) = place.memory else {
            return Ok(());
        };
        let memories = |scratch: &mut Scratch| match step.stage {
            Stage::Request => std::mem::take(&mut scratch.request.buffers[buffer]),
            Stage::Pair => std::mem::take(&mut scratch.pair.buffers[buffer]),
        };
        // Taken out while it is written: a step never reads the buffer it writes, but for copies inside of it.
        let mut memory = memories(scratch);
        let result = self.compute(step, place, block, scratch, &mut memory);
        match step.stage {
            Stage::Request => scratch.request.buffers[buffer] = memory,
            Stage::Pair => scratch.pair.buffers[buffer] = memory,
        }
        result
    }

    fn compute(
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
            self.copy(copies, place, block, scratch, memory);
            return Ok(());
        }
        let mut out = RowsMut {
            data: &mut memory[place.from..],
            stride: place.stride,
        };
        let view = |view: &View| self.rows(view, block, scratch);
        match &step.kind {
            Kind::Gather { table, width, ids } => {
                let table = (table.as_f32().unwrap_or(&[]), *width);
                self.gather(table, ids, block, scratch, &mut out)?;
            }
            Kind::Product {
                a,
                parts,
                weights,
                start,
                relu,
            } => {
                let mut a = view(a);
                let mut start = match start {
                    Start::Zero => kernel::Start::Zero,
                    Start::Row(row) => kernel::Start::Row(row),
                    Start::Rows(rows) => kernel::Start::Rows(view(rows)),
                };
                if *parts > 1 {
                    a.stride = weights.k();
                    out.stride = weights.n();
                    if let kernel::Start::Rows(rows) = &mut start {
                        rows.stride = weights.n();
                    }
                }
                let product = Product {
                    rows: rows * parts,
                    a,
                    weights,
                    start,
                    relu: *relu,
                };
                kernel::multiply(self.set, &product, &mut out);
            }
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
            Kind::Copy(_) | Kind::Interpret { .. } => {}
        }
        Ok(())
    }

    fn place(&self, root: Root) -> &Place {
        &self.program.places.places[root.0]
    }

    /// Where the view's rows are, from the block's first on.
    pub(super) fn rows<'b>(&'b self, view: &View, block: &Block<'b>, scratch: &'b Scratch) -> Rows<'b> {
        let place = self.place(view.root);
        let data = match &place.memory {
            Memory::Input(input) => self.inputs[*input].as_f32(),
            Memory::Slot(id) => slot(scratch, *id, place.stage).and_then(Tensor::as_f32),
            Memory::Constant(tensor) => tensor.as_f32(),
            Memory::Buffer(buffer) => Some(match place.stage {
                Stage::Request => scratch.request.buffers[*buffer].as_slice(),
                Stage::Pair => scratch.pair.buffers[*buffer].as_slice(),
            }),
        };
        let (skipped, index) = self.first(place, block);
        let data = data.unwrap_or(&[]);
        Rows {
            data: &data[(skipped + place.from + view.from).min(data.len())..],
            stride: place.stride,
            index,
        }
    }

    fn operand<'b>(&'b self, operand: &'b Operand, block: &Block<'b>, scratch: &'b Scratch) -> Rows<'b> {
        match operand {
            Operand::View(view) => self.rows(view, block, scratch),
            Operand::Row(row) => Rows::new(row, 0),
        }
    }

    /// What comes before the block's first row, and how rows are picked where those of the place are requests.
    fn first<'b>(&self, place: &Place, block: &Block<'b>) -> (usize, Option<&'b [usize]>) {
        let shared = matches!(place.memory, Memory::Constant(_));
        if !shared && place.stage == Stage::Request && block.stage == Stage::Pair {
            return (0, Some(block.owners));
        }
        let outside = matches!(place.memory, Memory::Input(_));
        (if outside { block.first * place.stride } else { 0 }, None)
    }

    fn gather(
        &self,
        (table, width): (&[f32], usize),
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
                data: &mut out.data[group.to..],
                stride: out.stride,
            };
            kernel::gather(table, width, &ids, block.rows, &mut out).map_err(|outside| EvalError::Index {
                index: outside.index,
                size: table.len() / width.max(1),
            })?;
        }
        Ok(())
    }

    pub(super) fn integers<'b>(
        &'b self,
        root: Root,
        block: &Block<'b>,
        scratch: &'b Scratch,
    ) -> (&'b [i64], usize, Option<&'b [usize]>) {
        let place = self.place(root);
        let tensor = match &place.memory {
            Memory::Input(input) => Some(&self.inputs[*input]),
            Memory::Slot(id) => slot(scratch, *id, place.stage),
            Memory::Constant(tensor) => Some(tensor.as_ref()),
            Memory::Buffer(_) => None,
        };
        let data = tensor.and_then(Tensor::as_int).unwrap_or(&[]);
        let (skipped, index) = self.first(place, block);
        (&data[skipped.min(data.len())..], place.stride, index)
    }

    fn copy(&self, copies: &[Copy], to: &Place, block: &Block<'_>, scratch: &Scratch, memory: &mut [f32]) {
        for copy in copies {
            let from = self.place(copy.view.root);
            let inside = matches!((&from.memory, &to.memory), (Memory::Buffer(a), Memory::Buffer(b)) if a == b)
                && from.stage == to.stage;
            let at = |row: usize| to.from + copy.to + row * to.stride;
            if inside {
                let source = |row: usize| from.from + copy.view.from + row * from.stride;
                for row in 0..block.rows {
                    if copy.step == 0 {
                        let value = memory[source(row)];
                        memory[at(row)..at(row) + copy.len].fill(value);
                    } else {
                        memory.copy_within(source(row)..source(row) + copy.len, at(row));
                    }
                }
                continue;
            }
            let rows = self.rows(&copy.view, block, scratch);
            for row in 0..block.rows {
                let target = &mut memory[at(row)..at(row) + copy.len];
                if copy.step == 0 {
                    target.fill(rows.row(row, 1)[0]);
                } else {
                    target.copy_from_slice(rows.row(row, copy.len));
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

pub(super) fn slot(scratch: &Scratch, id: ValueId, stage: Stage) -> Option<&Tensor> {
    let memories = match stage {
        Stage::Request => &scratch.request,
        Stage::Pair => &scratch.pair,
    };
    memories.slots.get(id.index())?.as_ref()
}
