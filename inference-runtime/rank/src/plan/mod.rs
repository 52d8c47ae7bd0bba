//! A compiled model: what answers requests. Shared by all workers; each has a [`Scratch`] of its own.

mod isa;

pub use isa::InstructionSet;

use crate::Model;
use crate::interpret::{self, EvalError};
use crate::ir::Graph;
use crate::pass::domain::{self, Domain, Domains};
use crate::pass::hoist::{self, Once};
use crate::pass::rows::Rows;
use crate::tensor::{Element, Tensor};

/// What is asked of a plan.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Inputs, or columns of them, that come once a request ([`crate::parse_once`]).
    pub once: Vec<(String, Once)>,
    pub instruction_set: InstructionSet,
}

/// An input as the plan takes it; one whose columns are split is two, `NAME.user` and `NAME.item`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: String,
    pub element: Element,
    /// Comes with one row a request; else with one a pair.
    pub once: bool,
}

/// Immutable; `Send` and `Sync`.
#[derive(Debug)]
pub struct Plan {
    graph: Graph,
    domains: Domains,
    inputs: Vec<Input>,
    rows: Rows,
}

/// A worker's memory, used again from run to run.
#[derive(Debug, Default)]
pub struct Scratch {}

impl Plan {
    /// An error names the input or node, and the remedy.
    pub fn compile(model: &Model, options: &Options) -> Result<Self, String> {
        let (graph, request) = match &model.rows {
            Rows::Independent => {
                let hoisted = hoist::hoist(&model.graph, &options.once)?;
                (hoisted.graph, hoisted.request)
            }
            Rows::Listwise(reason) if !options.once.is_empty() => {
                return Err(format!("nothing can be sent once to a listwise model: {reason}"));
            }
            Rows::Listwise(_) => (model.graph.clone(), vec![]),
        };
        let domains = domain::domains(&graph, &request);
        let input = |id: &crate::ir::ValueId| Input {
            name: graph.value(*id).name.clone(),
            element: graph.fact(*id).element,
            once: domains.of(*id) == Domain::Request,
        };
        let inputs = graph.inputs.iter().map(input).collect();
        Ok(Self {
            inputs,
            domains,
            rows: model.rows.clone(),
            graph,
        })
    }

    /// In the order in which [`Plan::run`] takes them.
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Whether requests may share a run, and why not.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    pub fn scratch(&self) -> Scratch {
        Scratch::default()
    }

    /// Scores a batch. `segments[pair]` is the request that a pair belongs to: inputs that come once have one row a request,
    /// the others one a pair. `outputs` are in the order of the model's; their memory is used again.
    pub fn run(
        &self,
        inputs: &[Tensor],
        segments: &[usize],
        _scratch: &mut Scratch,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), EvalError> {
        *outputs = match self.rows {
            Rows::Independent => interpret::run_segmented(&self.graph, &self.domains, inputs, segments)?,
            Rows::Listwise(_) => interpret::run(&self.graph, inputs)?,
        };
        Ok(())
    }

    /// What `inspect` prints: a line a step.
    pub fn describe(&self) -> String {
        domain::describe(&self.graph, &self.domains)
    }
}
