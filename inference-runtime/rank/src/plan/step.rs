//! Steps of a compiled plan.

use std::fmt;
use std::sync::Arc;

use super::layout::{Root, Run};
use crate::ir::{Binary, Op, Reduction, Unary, ValueId};
use crate::kernel::{Bf16Weights, Forest, Groups, Gru, Packed, Table};
use crate::tensor::Tensor;

/// How often a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Once a request: rows are requests.
    Request,
    /// Once a pair.
    Pair,
}

/// Part of a root's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub root: Root,
    pub from: usize,
}

/// Cells of a root that go to places of the result's row.
#[derive(Clone, Debug)]
pub struct Copy {
    pub root: Root,
    /// Of the root's row, what is read.
    pub width: usize,
    pub runs: Vec<Run>,
    /// From where and to where, one by one.
    pub cells: Vec<[usize; 2]>,
}

impl Copy {
    /// Runs of fewer cells are copied cell by cell.
    const LONG: usize = 4;

    pub fn new(root: Root) -> Self {
        Self {
            root,
            width: 0,
            runs: Vec::new(),
            cells: Vec::new(),
        }
    }

    pub fn push(&mut self, run: Run) {
        self.width = self.width.max(run.from + (run.len - 1) * run.step + 1);
        if run.len < Self::LONG {
            let cells = (0..run.len).map(|at| [run.from + at * run.step, run.to + at]);
            self.cells.extend(cells);
        } else {
            self.runs.push(run);
        }
    }

    fn pieces(&self) -> usize {
        self.runs.len() + self.cells.len()
    }
}

/// A column of ids: an element of a root of integers, and what is added.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub view: View,
    pub add: i64,
}

/// Neighbouring columns of ids that one root brings, and where their table rows go.
#[derive(Clone, Debug)]
pub struct IdGroup {
    pub root: Root,
    /// The element of the root's row, and what is added to it.
    pub columns: Vec<(usize, i64)>,
    /// Behind the rows of so many others.
    pub to: usize,
}

#[derive(Clone, Debug)]
pub enum Start {
    Zero,
    Row(Arc<Vec<f32>>),
    Rows(View),
}

#[derive(Clone, Debug)]
pub enum Operand {
    View(View),
    /// The same for every row.
    Row(Arc<Vec<f32>>),
}

/// What the interpreter is given for an input.
#[derive(Clone, Debug)]
pub enum Argument {
    Constant(Arc<Tensor>),
    /// Has one row, which all rows share.
    ConstantRow(Arc<Tensor>),
    /// An input of the model without rows.
    Input(usize),
    Floats(View),
    Integers(Arc<Vec<Column>>),
    Slot(ValueId, Stage),
}

/// A constant matrix, in the precision of its products.
#[derive(Clone, Debug)]
pub enum Weights {
    F32(Arc<Packed>),
    Bf16(Arc<Bf16Weights>),
}

impl Weights {
    pub fn bytes(&self) -> usize {
        match self {
            Weights::F32(weights) => weights.bytes(),
            Weights::Bf16(weights) => weights.bytes(),
        }
    }

    /// Columns of the result.
    pub fn n(&self) -> usize {
        match self {
            Weights::F32(weights) => weights.n(),
            Weights::Bf16(weights) => weights.n(),
        }
    }

    /// From a row of `a` to the next where they lie together: in floats, or pairs.
    pub fn stride(&self) -> usize {
        match self {
            Weights::F32(weights) => weights.k(),
            Weights::Bf16(weights) => weights.depth(),
        }
    }
}

/// Columns of a root that are rounded, and the pair of the result's row with which they begin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rounding {
    pub view: View,
    pub width: usize,
    pub to: usize,
}

impl Rounding {
    /// The pair behind it.
    pub fn end(&self) -> usize {
        self.to + self.width.div_ceil(2)
    }
}

/// Rows times a constant matrix: `parts` products for each row.
#[derive(Clone, Debug)]
pub struct Linear {
    /// Rounded where the weights are in bf16.
    pub a: View,
    pub parts: usize,
    pub weights: Weights,
    pub start: Start,
    pub relu: bool,
    /// Results are rounded too.
    pub rounded: bool,
}

/// Products `[matrices, m, k] x [matrices, k, n]` for each row.
#[derive(Clone, Debug)]
pub struct Batched {
    pub sizes: [usize; 4],
    pub a: Operand,
    /// From a matrix to the next, and from a row to the next; columns lie together.
    pub a_strides: [usize; 2],
    pub b: View,
    /// From a matrix, a row, a column to the next.
    pub b_strides: [usize; 3],
    pub start: Option<Operand>,
}

/// A recurrent unit over the steps of each row.
#[derive(Clone, Debug)]
pub struct Recurrent {
    pub unit: Gru,
    pub steps: usize,
    pub x: View,
    pub initial: Operand,
}

#[derive(Clone, Debug)]
pub enum Kind {
    /// Rows of a table.
    Gather {
        table: Arc<Table>,
        ids: Vec<IdGroup>,
    },
    /// To bf16: what products in it take. The result's rows are pairs, half as wide.
    Round(Vec<Rounding>),
    Product(Linear),
    Batched(Box<Batched>),
    Copy(Vec<Copy>),
    Unary(Unary, View),
    Binary(Binary, Operand, Operand),
    Reduce(Reduction, View, Groups),
    Softmax {
        x: View,
        groups: [usize; 2],
        log: bool,
    },
    LayerNorm {
        x: View,
        group: usize,
        epsilon: f32,
        scale: Arc<Vec<f32>>,
        bias: Option<Arc<Vec<f32>>>,
    },
    Gru(Box<Recurrent>),
    Trees {
        forest: Box<Forest>,
        x: View,
    },
    Interpret {
        op: Op,
        arguments: Vec<(ValueId, Argument)>,
        outputs: Vec<ValueId>,
    },
}

#[derive(Clone, Debug)]
pub struct Step {
    /// Of the node, in messages.
    pub name: String,
    pub operator: String,
    /// As `inspect` prints it.
    pub shape: String,
    pub stage: Stage,
    pub kind: Kind,
    /// None for a step of the interpreter, whose results are slots.
    pub out: Option<Root>,
    /// Elements of a row of the result.
    pub width: usize,
    /// Floating-point operations a row.
    pub flop: usize,
}

impl Step {
    /// Of a constant matrix, which every block of rows reads anew.
    pub fn weight_bytes(&self) -> usize {
        match &self.kind {
            Kind::Product(linear) => linear.weights.bytes(),
            _ => 0,
        }
    }

    /// Roots whose rows the step reads.
    pub fn reads(&self) -> Vec<Root> {
        let operand = |operand: &Operand| match operand {
            Operand::View(view) => Some(view.root),
            Operand::Row(_) => None,
        };
        match &self.kind {
            Kind::Gather { ids, .. } => ids.iter().map(|group| group.root).collect(),
            Kind::Product(linear) => {
                let start = match linear.start {
                    Start::Rows(view) => Some(view.root),
                    _ => None,
                };
                start.into_iter().chain([linear.a.root]).collect()
            }
            Kind::Round(parts) => parts.iter().map(|part| part.view.root).collect(),
            Kind::Copy(copies) => copies.iter().map(|copy| copy.root).collect(),
            Kind::Batched(batched) => {
                let operands = [Some(&batched.a), batched.start.as_ref()];
                let roots = operands.into_iter().flatten().filter_map(operand);
                roots.chain([batched.b.root]).collect()
            }
            Kind::Unary(_, view) | Kind::Reduce(_, view, _) => vec![view.root],
            Kind::Softmax { x, .. } | Kind::LayerNorm { x, .. } | Kind::Trees { x, .. } => vec![x.root],
            Kind::Gru(recurrent) => {
                let initial = operand(&recurrent.initial);
                initial.into_iter().chain([recurrent.x.root]).collect()
            }
            Kind::Binary(_, a, b) => operand(a).into_iter().chain(operand(b)).collect(),
            Kind::Interpret { arguments, .. } => arguments
                .iter()
                .flat_map(|(_, argument)| argument.reads())
                .collect(),
        }
    }

    pub fn is_interpreted(&self) -> bool {
        matches!(self.kind, Kind::Interpret { .. })
    }

    /// What runs it, as `inspect` prints it.
    pub fn kernel(&self) -> String {
        let name = match &self.kind {
            Kind::Copy(copies) => {
                let pieces: usize = copies.iter().map(Copy::pieces).sum();
                return format!("copy {pieces}");
            }
            Kind::Round(parts) => return format!("round {}", parts.len()),
            Kind::Gather { table, .. } if table.is_rounded() => "gather bf16",
            Kind::Gather { .. } => "gather",
            Kind::Product(linear) => match (&linear.weights, linear.relu, linear.rounded) {
                (Weights::F32(_), false, _) => "product",
                (Weights::F32(_), true, _) => "product+relu",
                (Weights::Bf16(_), false, false) => "bf16",
                (Weights::Bf16(_), true, false) => "bf16+relu",
                (Weights::Bf16(_), false, true) => "bf16+round",
                (Weights::Bf16(_), true, true) => "bf16+relu+round",
            },
            Kind::Batched(_) => "products",
            Kind::Reduce(..) => "reduce",
            Kind::Softmax { .. } => "softmax",
            Kind::LayerNorm { .. } => "layer-norm",
            Kind::Unary(..) | Kind::Binary(..) => "elementwise",
            Kind::Gru(_) => "gru",
            Kind::Trees { .. } => "trees",
            Kind::Interpret { .. } => "interpreter",
        };
        name.to_owned()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} of {}", self.operator, self.name, self.shape)
    }
}

impl Argument {
    pub fn reads(&self) -> Vec<Root> {
        match self {
            Argument::Floats(view) => vec![view.root],
            Argument::Integers(columns) => columns.iter().map(|column| column.view.root).collect(),
            _ => Vec::new(),
        }
    }
}

/// Where a root's rows are.
#[derive(Clone, Debug)]
pub enum Home {
    Input(usize),
    Slot(ValueId),
    /// One row, which all rows share.
    Constant(Arc<Tensor>),
    /// Memory of its own, until [`super::place`] gives it a buffer.
    Own,
    /// Inside of another root's rows.
    Within(View),
}

#[derive(Clone, Debug)]
pub struct RootInfo {
    pub width: usize,
    pub stage: Stage,
    pub home: Home,
    /// A step needs its rows one right after the other.
    pub pinned: bool,
}

/// A root as a step finds it.
#[derive(Clone, Debug)]
pub struct Place {
    pub stage: Stage,
    pub memory: Memory,
    pub from: usize,
    pub stride: usize,
}

#[derive(Clone, Debug)]
pub enum Memory {
    Input(usize),
    Slot(ValueId),
    Constant(Arc<Tensor>),
    Buffer(usize),
}
