//! A run whose pairs are scored in parts, by several threads at a time: the inputs are shared, and what belongs to the
//! requests is computed once.

use std::ops::Range;
use std::sync::Arc;

use super::Plan;
use super::run::{Memories, Run, Scratch};
use crate::interpret::{self, EvalError};
use crate::ir::ValueId;
use crate::pass::domain::Domain;
use crate::pass::rows::Rows;
use crate::tensor::Tensor;

/// A run that has begun. Immutable; `Send` and `Sync`.
#[derive(Debug)]
pub struct Begun {
    inputs: Vec<Tensor>,
    segments: Vec<usize>,
    requests: usize,
    /// What belongs to the requests.
    hoisted: Arc<Memories>,
}

impl Plan {
    /// Pairs that run at a time: a part of fewer reads the weights more often. `None` if pairs are not scored in parts,
    /// because the model is listwise.
    pub fn least_part(&self) -> Option<usize> {
        (self.rows == Rows::Independent).then_some(self.block)
    }

    /// Begins a run, as [`Plan::run`] takes it, of a plan that has parts.
    pub fn begin(
        &self,
        inputs: Vec<Tensor>,
        segments: Vec<usize>,
        scratch: &mut Scratch,
    ) -> Result<Begun, EvalError> {
        let requests = interpret::requests(&self.graph, &self.domains, &inputs, &segments)?;
        // Widened once: the memory for that is the thread's own.
        let wide = |(input, id): (Tensor, &ValueId)| match self.domains.of(*id) {
            Domain::Request => input.into_wide(),
            _ => input,
        };
        let inputs: Vec<Tensor> = inputs.into_iter().zip(&self.graph.inputs).map(wide).collect();
        self.of((&inputs, &segments), requests).requests(scratch)?;
        Ok(Begun {
            hoisted: Arc::clone(&scratch.request),
            inputs,
            segments,
            requests,
        })
    }

    /// Scores some of the pairs: `outputs` get the bits that these pairs have in the whole run.
    pub fn part(
        &self,
        begun: &Begun,
        pairs: Range<usize>,
        scratch: &mut Scratch,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), EvalError> {
        let run = self.of((&begun.inputs, &begun.segments), begun.requests);
        let own = std::mem::replace(&mut scratch.request, Arc::clone(&begun.hoisted));
        let scored = run.pairs(pairs, self.block, scratch, outputs);
        scratch.request = own;
        scored
    }

    pub(super) fn of<'a>(
        &'a self,
        (inputs, segments): (&'a [Tensor], &'a [usize]),
        requests: usize,
    ) -> Run<'a> {
        Run {
            graph: &self.graph,
            domains: &self.domains,
            program: &self.program,
            set: self.instruction_set,
            inputs,
            segments,
            requests,
        }
    }
}
