//! A compiled model: what answers requests. Shared by all workers; each has a [`Scratch`] of its own.
//!
//! ```text
//! Model -> hoist -> domains -> compile (layout, fast, linear) -> rounding, tables -> place -> run: request's steps, then blocks of pairs
//! ```
//!
//! The result is that of the interpreter, bit by bit, on every instruction set; in bf16, that of an interpreter whose products with constant
//! matrices are as [`Precision`] says. A node without a kernel is run by the
//! interpreter, on the rows of a block.

mod batched;
mod compile;
mod compute;
mod fast;
mod layout;
mod linear;
mod parts;
mod place;
mod rounding;
mod run;
mod step;
mod tables;
mod tensors;
mod units;
mod views;

pub use crate::kernel::InstructionSet;
pub use parts::Begun;
pub use run::Scratch;

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::Model;
use crate::interpret::{self, EvalError};
use crate::ir::{Extent, Graph, ValueId};
use crate::pass::domain::{self, Domain, Domains};
use crate::pass::hoist::{self, Once};
use crate::pass::rows::Rows;
use crate::tensor::{Element, Tensor};
use compile::Program;
use step::{Kind, Stage, Step, Weights};

/// What products of rows with constant matrices are computed in; everything else is f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    #[default]
    F32,
    /// Factors rounded to bf16, sums in f32.
    Bf16,
}

impl FromStr for Precision {
    type Err = String;

    /// By the name that `Display` gives.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = [Self::F32, Self::Bf16]
            .into_iter()
            .find(|one| one.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is neither f32 nor bf16"))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        })
    }
}

/// What is asked of a plan.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Inputs, or columns of them, that come once a request ([`crate::parse_once`]).
    pub once: Vec<(String, Once)>,
    /// The best that the machine has, unless another is asked for.
    pub instruction_set: InstructionSet,
    pub precision: Precision,
}

/// An input as the plan takes it; one whose columns are split is two, `NAME.user` and `NAME.item`.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: String,
    pub element: Element,
    pub shape: Vec<Extent>,
    /// Comes with one row a request; else with one a pair.
    pub once: bool,
}

/// Floating-point operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    pub request: usize,
    pub pair: usize,
}

/// Immutable; `Send` and `Sync`.
#[derive(Debug)]
pub struct Plan {
    graph: Graph,
    domains: Domains,
    inputs: Vec<Input>,
    rows: Rows,
    instruction_set: InstructionSet,
    precision: Precision,
    program: Program,
    /// Rows of pairs that run at a time.
    block: usize,
}

/// What the rows of a block may take: half of a small second-level cache, so that weights pass through the other.
const BLOCK_BYTES: usize = 256 << 10;

/// What an element costs where the interpreter computes it, in floating-point operations of a kernel: some nanoseconds,
/// in which a core does as many.
const INTERPRETED: usize = 128;

/// Multiples of the rows that a product's kernel takes at once.
const BLOCK_ROWS: std::ops::RangeInclusive<usize> = 12..=240;

/// With more weights than this (a small second-level cache) every block reads them anew from further away: that is worth it
/// for so many rows only, even where these leave the cache too. DLRM-DCNv2 of full width, 64 MB of weights and 64 pairs, Zen 4:
/// blocks of 12, 48 and 96 rows took 406, 373 and 343 us a pair with AVX-512, and 795, 611 and 406 with AVX2.
const CACHED_WEIGHTS: usize = 512 << 10;
const ROWS_FOR_WEIGHTS: usize = 96;

/// Rows of pairs that run at a time.
fn block(program: &Program) -> usize {
    let weights = program.steps.iter().filter(|step| step.stage == Stage::Pair);
    let weights: usize = weights.map(Step::weight_bytes).sum();
    let row_bytes = program.places.pair.iter().sum::<usize>() * size_of::<f32>();
    let (least, most) = BLOCK_ROWS.into_inner();
    let least_here = if weights > CACHED_WEIGHTS {
        ROWS_FOR_WEIGHTS
    } else {
        least
    };
    (BLOCK_BYTES / row_bytes.max(1) / least * least).clamp(least_here, most)
}

impl Plan {
    /// An error names the input or node, and the remedy.
    pub fn compile(model: &Model, options: &Options) -> Result<Self, String> {
        let instruction_set = options.instruction_set.here()?;
        let (mut graph, request) = match &model.rows {
            Rows::Independent => {
                let hoisted = hoist::hoist(&model.graph, &options.once)?;
                (hoisted.graph, hoisted.request)
            }
            Rows::Listwise(reason) if !options.once.is_empty() => {
                return Err(format!("nothing can be sent once to a listwise model: {reason}"));
            }
            Rows::Listwise(reason) if options.precision == Precision::Bf16 => {
                return Err(format!(
                    "a listwise model has no plan in bf16, it runs whole: {reason}"
                ));
            }
            Rows::Listwise(_) => (model.graph.clone(), vec![]),
        };
        let domains = domain::domains(&graph, &request);
        let input = |id: &ValueId| Input {
            name: graph.value(*id).name.clone(),
            element: graph.fact(*id).element,
            shape: graph.shape(*id).to_vec(),
            once: domains.of(*id) == Domain::Request,
        };
        let inputs = graph.inputs.iter().map(input).collect();
        let program = match model.rows {
            Rows::Independent => compile::compile(&graph, &domains, options.precision, instruction_set)?,
            Rows::Listwise(_) => Program::default(),
        };
        let in_bf16 = |step: &step::Step| matches!(&step.kind, Kind::Product(linear) if matches!(linear.weights, Weights::Bf16(_)));
        if options.precision == Precision::Bf16 && !program.steps.iter().any(in_bf16) {
            return Err(
                "nothing in it can be in bf16: it has no product of rows with a constant matrix".to_owned(),
            );
        }
        if model.rows == Rows::Independent {
            // Steps hold what they need: weights are not kept a second time.
            graph.values.iter_mut().for_each(|value| value.constant = None);
        }
        let block = block(&program);
        Ok(Self {
            inputs,
            domains,
            rows: model.rows.clone(),
            graph,
            instruction_set,
            precision: options.precision,
            program,
            block,
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

    pub fn instruction_set(&self) -> InstructionSet {
        self.instruction_set
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn scratch(&self) -> Scratch {
        Scratch::default()
    }

    /// Scores a batch. `segments[pair]` is the request that a pair belongs to: inputs that come once have one row a request,
    /// the others one a pair. Of F32 may be [`Tensor::bf16`]. `outputs` are in the order of the model's; their memory is used again.
    pub fn run(
        &self,
        inputs: &[Tensor],
        segments: &[usize],
        scratch: &mut Scratch,
        outputs: &mut Vec<Tensor>,
    ) -> Result<(), EvalError> {
        if let Rows::Listwise(_) = self.rows {
            let inputs: Vec<Tensor> = inputs.iter().cloned().map(Tensor::into_wide).collect();
            *outputs = interpret::run(&self.graph, &inputs)?;
            return Ok(());
        }
        let requests = interpret::requests(&self.graph, &self.domains, inputs, segments)?;
        let run = self.of((inputs, segments), requests);
        run.requests(scratch)?;
        run.pairs(0..segments.len(), self.block, scratch, outputs)
    }

    /// What a request and each of its pairs cost; 0 where the model runs whole.
    pub fn cost(&self) -> Cost {
        let of = |stage: Stage| {
            let steps = self.program.steps.iter().filter(|step| step.stage == stage);
            steps.map(|step| step.flop).sum()
        };
        Cost {
            request: of(Stage::Request),
            pair: of(Stage::Pair),
        }
    }

    /// Why another engine would be faster: most of a pair's cost is in steps that have no kernel.
    pub fn slow(&self) -> Option<String> {
        let (steps, share) = self.interpreted()?;
        let reason = || {
            let steps: Vec<String> = steps.iter().map(|step| step.to_string()).collect();
            format!(
                "{share} % of a pair's cost is in steps that have no kernel: {}",
                steps.join(", ")
            )
        };
        (share > 50).then(reason)
    }

    /// Steps that have no kernel, and their share of what a pair costs, about, in percent.
    fn interpreted(&self) -> Option<(Vec<&Step>, usize)> {
        let pair = |step: &&Step| step.stage == Stage::Pair;
        let steps = self.program.steps.iter().filter(pair);
        let (own, kernels): (Vec<&Step>, Vec<&Step>) = steps.partition(|step| step.is_interpreted());
        let flop = |steps: &[&Step]| steps.iter().map(|step| step.flop).sum::<usize>();
        let interpreted = INTERPRETED * flop(&own);
        let share = (100 * interpreted).checked_div(interpreted + flop(&kernels));
        (!own.is_empty()).then(|| (own, share.unwrap_or(0)))
    }

    /// What `inspect` prints: a line a step, and what it costs.
    pub fn describe(&self) -> String {
        if let Rows::Listwise(_) = self.rows {
            return domain::describe(&self.graph, &self.domains);
        }
        let mut text = String::new();
        for step in &self.program.steps {
            let stage = format!("{:?}", step.stage);
            let (operator, shape, flop) = (&step.operator, &step.shape, step.flop);
            let _ = writeln!(
                text,
                "{stage:8} {operator:16} {shape:16} {:15} {flop:>6} {}",
                step.kernel(),
                step.name
            );
        }
        let Cost { request, pair } = self.cost();
        let _ = writeln!(
            text,
            "{}, {}: {request} floating-point operations a request, {pair} a pair, {} pairs at a time",
            self.instruction_set, self.precision, self.block
        );
        if let Some((steps, share)) = self.interpreted() {
            let _ = writeln!(
                text,
                "{} of a pair's steps have no kernel: about {share} % of its cost",
                steps.len()
            );
        }
        text
    }
}
