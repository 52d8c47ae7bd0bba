//! Runs a compiled plan: the request's steps over all requests, then the pairs' over blocks of rows that fit the cache.

use std::cell::RefCell;
use std::ops::Range;
use std::sync::Arc;

use super::compile::Program;
use super::layout::Root;
use super::step::{Kind, Memory, Operand, Place, Stage, Step, View};
use crate::interpret::EvalError;
use crate::ir::{Graph, ValueId};
use crate::kernel::{self, InstructionSet, Packed, Rows};
use crate::pass::domain::{Domain, Domains};
use crate::tensor::{Data, Tensor};

/// A worker's memory, used again from run to run.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Shared once the requests' steps have written it, by those who score pairs of the run.
    pub(super) request: Arc<Memories>,
    pub(super) pair: Memories,
    /// Inputs in bf16, widened: those of the request whole, of the pairs the block's rows.
    wide: Vec<Vec<f32>>,
    /// A matrix that is a value, as the kernel of products reads it.
    pub(super) packed: RefCell<Packed>,
    /// What a kernel keeps while it runs.
    pub(super) floats: RefCell<Vec<f32>>,
}

impl Scratch {
    /// What the steps of a stage write.
    pub(super) fn memories(&mut self, stage: Stage) -> &mut Memories {
        match stage {
            Stage::Request => Arc::make_mut(&mut self.request),
            Stage::Pair => &mut self.pair,
        }
    }
}

/// What the steps of a stage have written.
#[derive(Clone, Debug, Default)]
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
    /// Computes what belongs to the requests.
    pub fn requests(&self, scratch: &mut Scratch) -> Result<(), EvalError> {
        if Arc::get_mut(&mut scratch.request).is_none() {
            // Others still read what the run before wrote.
            scratch.request = Arc::default();
        }
        let (widths, slots) = (&self.program.places.request, self.graph.values.len());
        let memories = scratch.memories(Stage::Request);
        memories.prepare(widths, self.requests, slots);
        let request = Block {
            stage: Stage::Request,
            first: 0,
            rows: self.requests,
            owners: &[],
        };
        self.widen(&request, scratch);
        self.steps(&request, scratch)
    }

    /// Scores some of the pairs, `most` at a time; `scratch` has what belongs to their requests.
    pub fn pairs(
        &self,
        pairs: Range<usize>,
        most: usize,
        scratch: &mut Scratch,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), EvalError> {
        let most = most.min(pairs.len()).max(1);
        let (widths, slots) = (&self.program.places.pair, self.graph.values.len());
        scratch.pair.prepare(widths, most, slots);
        let (mut first, of) = (pairs.start, pairs.len());
        self.begin(of, outputs)?;
        for owners in self.segments[pairs].chunks(most) {
            let block = Block {
                stage: Stage::Pair,
                first,
                rows: owners.len(),
                owners,
            };
            self.widen(&block, scratch);
            self.steps(&block, scratch)?;
            self.append(&block, of, scratch, outputs)?;
            first += owners.len();
        }
        Ok(())
    }

    /// The block's rows of the inputs that are in bf16.
    fn widen(&self, block: &Block<'_>, scratch: &mut Scratch) {
        scratch
            .wide
            .resize_with(self.inputs.len().max(scratch.wide.len()), Vec::new);
        for ((tensor, id), wide) in self.inputs.iter().zip(&self.graph.inputs).zip(&mut scratch.wide) {
            let (rows, stage) = match self.domains.of(*id) {
                Domain::Request => (self.requests, Stage::Request),
                _ => (self.segments.len(), Stage::Pair),
            };
            let Data::Bf16(halves) = &tensor.data else {
                continue;
            };
            if stage != block.stage {
                continue;
            }
            let width = halves.len() / rows.max(1);
            let halves = &halves[block.first * width..][..block.rows * width];
            if wide.len() < halves.len() {
                wide.resize(halves.len(), 0.0);
            }
            kernel::widen(self.set, halves, wide);
        }
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
        // Taken out while it is written: a step never reads the buffer it writes, but for copies inside of it.
        let mut memory = std::mem::take(&mut scratch.memories(step.stage).buffers[buffer]);
        let result = self.compute(step, place, block, scratch, &mut memory);
        scratch.memories(step.stage).buffers[buffer] = memory;
        result
    }

    pub(super) fn place(&self, root: Root) -> &Place {
        &self.program.places.places[root.0]
    }

    /// Where the view's rows are, from the block's first on.
    pub(super) fn rows<'b>(&'b self, view: &View, block: &Block<'b>, scratch: &'b Scratch) -> Rows<'b> {
        let place = self.place(view.root);
        let data = match &place.memory {
            Memory::Input(input) => match &self.inputs[*input].data {
                Data::Bf16(_) => Some(scratch.wide[*input].as_slice()),
                _ => self.inputs[*input].as_f32(),
            },
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

    pub(super) fn operand<'b>(
        &'b self,
        operand: &'b Operand,
        block: &Block<'b>,
        scratch: &'b Scratch,
    ) -> Rows<'b> {
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
        let in_bf16 = |input: usize| matches!(self.inputs[input].data, Data::Bf16(_));
        let outside = matches!(place.memory, Memory::Input(input) if !in_bf16(input));
        (if outside { block.first * place.stride } else { 0 }, None)
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
}

pub(super) fn slot(scratch: &Scratch, id: ValueId, stage: Stage) -> Option<&Tensor> {
    let memories = match stage {
        Stage::Request => &scratch.request,
        Stage::Pair => &scratch.pair,
    };
    memories.slots.get(id.index())?.as_ref()
}
