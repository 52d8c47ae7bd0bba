//! From nodes to steps.
//!
//! ```text
//! nodes in order -> moved (no step) | fast step | interpreter's step -> places -> Program
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use super::Precision;
use super::layout::{self, Cells, Moved, Root};
use super::place::{self, Places};
use super::step::{Argument, Home, Kind, RootInfo, Stage, Step};
use super::tables::Tables;
use super::views::columns;
use crate::interpret;
use crate::ir::{Fact, Graph, Node, ValueId, display_shape};
use crate::kernel::InstructionSet;
use crate::pass::domain::{Domain, Domains};
use crate::pass::fold;
use crate::tensor::{Element, Tensor};

/// What a plan runs.
#[derive(Debug, Default)]
pub struct Program {
    pub steps: Vec<Step>,
    pub places: Places,
    pub outputs: Vec<(ValueId, Argument)>,
}

/// What is known of a value.
#[derive(Clone)]
pub(super) enum Known {
    /// Elements of each row.
    Cells(Cells),
    /// Constant, with one row where it has rows.
    Constant(Arc<Tensor>),
    /// An input without rows.
    Input(usize),
    /// A tensor that the interpreter makes.
    Slot(Stage),
}

pub(super) struct Compiler<'a> {
    pub graph: &'a Graph,
    pub domains: &'a Domains,
    pub precision: Precision,
    pub set: InstructionSet,
    pub roots: Vec<RootInfo>,
    pub steps: Vec<Step>,
    pub tables: Tables,
    known: HashMap<ValueId, Known>,
    /// Readers of each value, outputs of the graph included.
    uses: Vec<usize>,
    /// The value that a root was made for.
    made: HashMap<Root, ValueId>,
    /// Elements of the constants computed here.
    constants: usize,
}

pub fn compile(
    graph: &Graph,
    domains: &Domains,
    precision: Precision,
    set: InstructionSet,
) -> Result<Program, String> {
    let mut uses = vec![0; graph.values.len()];
    let read = graph
        .nodes
        .iter()
        .flat_map(|node| &node.inputs)
        .chain(&graph.outputs);
    read.for_each(|id| uses[id.index()] += 1);
    let mut compiler = Compiler {
        graph,
        domains,
        precision,
        set,
        roots: Vec::new(),
        steps: Vec::new(),
        tables: Tables::default(),
        known: HashMap::new(),
        uses,
        made: HashMap::new(),
        constants: 0,
    };
    for (at, id) in graph.inputs.iter().enumerate() {
        compiler.input(at, *id);
    }
    for node in &graph.nodes {
        compiler
            .node(node)
            .map_err(|reason| format!("node {:?} ({}): {reason}", node.name, node.op.name()))?;
    }
    let outputs: Vec<(ValueId, Argument)> = graph
        .outputs
        .iter()
        .map(|id| (*id, compiler.argument(*id)))
        .collect();
    let kept: Vec<Root> = outputs
        .iter()
        .flat_map(|(_, argument)| argument.reads())
        .collect();
    compiler.round_in_place(&kept);
    compiler.lay_out_tables();
    let places = place::assign(&compiler.roots, &compiler.steps, &kept);
    Ok(Program {
        steps: compiler.steps,
        places,
        outputs,
    })
}

impl Compiler<'_> {
    fn input(&mut self, at: usize, id: ValueId) {
        let fact = self.graph.fact(id);
        let known = if fact.batch_axis().is_none() {
            Known::Input(at)
        } else {
            match (layout::row_width(&fact.shape), fact.element) {
                (Some(width), Element::F32 | Element::I64 | Element::I32) => {
                    let root = self.root(width, self.stage(id), Home::Input(at));
                    Known::Cells(layout::whole(root, width))
                }
                // Booleans as inputs: the rows are cut out for the interpreter.
                _ => Known::Input(at),
            }
        };
        self.known.insert(id, known);
    }

    pub fn stage(&self, id: ValueId) -> Stage {
        match self.domains.of(id) {
            Domain::Const | Domain::Request => Stage::Request,
            Domain::Item | Domain::Pair => Stage::Pair,
        }
    }

    pub fn root(&mut self, width: usize, stage: Stage, home: Home) -> Root {
        self.roots.push(RootInfo {
            width,
            stage,
            home,
            pinned: false,
        });
        Root(self.roots.len() - 1)
    }

    pub fn constant(&self, id: ValueId) -> Option<Arc<Tensor>> {
        match self.known.get(&id) {
            Some(Known::Constant(tensor)) => Some(tensor.clone()),
            Some(_) => None,
            None => self.graph.value(id).constant.clone(),
        }
    }

    /// A constant that is the same whatever the number of rows.
    pub fn plain_constant(&self, id: ValueId) -> Option<Arc<Tensor>> {
        let fixed = self.graph.fact(id).batch_axis().is_none();
        self.constant(id).filter(|_| fixed)
    }

    /// Elements of the value's rows; of a constant with rows too.
    pub fn cells(&mut self, id: ValueId) -> Option<Cells> {
        match self.known.get(&id) {
            Some(Known::Cells(cells)) => Some(cells.clone()),
            Some(Known::Constant(tensor)) => {
                let fact = self.graph.fact(id);
                let width = layout::row_width(&fact.shape)?;
                if fact.element == Element::Bool {
                    return None;
                }
                let tensor = tensor.clone();
                let root = self.root(width, Stage::Pair, Home::Constant(tensor));
                Some(layout::whole(root, width))
            }
            _ => None,
        }
    }

    pub fn set_cells(&mut self, id: ValueId, cells: Cells) {
        self.known.insert(id, Known::Cells(cells));
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        if self.domains.of(node.outputs[0]) == Domain::Const {
            return self.constant_node(node);
        }
        if self.moved(node) || self.fast(node) {
            return Ok(());
        }
        self.interpreted(node);
        Ok(())
    }

    /// What depends on no input is computed now, for one row.
    fn constant_node(&mut self, node: &Node) -> Result<(), String> {
        let inputs: Option<Vec<Arc<Tensor>>> = node.inputs.iter().map(|id| self.constant(*id)).collect();
        let inputs = inputs.ok_or("a constant depends on an input")?;
        let more = fold::elements(node.outputs.iter().map(|id| self.graph.fact(*id)));
        fold::check_room(self.graph, self.constants, more)?;
        self.constants = self.constants.saturating_add(more);
        let arguments: Vec<&Tensor> = inputs.iter().map(AsRef::as_ref).collect();
        let results = interpret::eval(&node.op, &arguments, 1).map_err(|error| error.to_string())?;
        for (id, tensor) in node.outputs.iter().zip(results) {
            self.known.insert(*id, Known::Constant(Arc::new(tensor)));
        }
        Ok(())
    }

    fn moved(&mut self, node: &Node) -> bool {
        let out = node.outputs[0];
        let fact = self.graph.fact(out);
        if !layout::only_moves(&node.op) || layout::row_width(&fact.shape).is_none() {
            return false;
        }
        let mut cells = Vec::with_capacity(node.inputs.len());
        for (at, id) in node.inputs.iter().enumerate() {
            let indices = at > 0 && !matches!(node.op, crate::ir::Op::Concat { .. });
            let constant = self.constant(*id).filter(|_| indices);
            let own = if constant.is_some() { None } else { self.cells(*id) };
            let shape = layout::row_shape(self.graph.shape(*id));
            match (constant, own, shape) {
                (Some(tensor), ..) => cells.push((None, Some(tensor), Vec::new())),
                (None, Some(own), Some(shape)) if !indices => cells.push((Some(own), None, shape)),
                _ => return false,
            }
        }
        let inputs: Vec<Moved<'_>> = cells
            .iter()
            .filter_map(|(own, constant, shape)| match (own, constant) {
                (Some(own), _) => Some(Moved::Cells(own, shape.clone())),
                (None, constant) => constant.as_deref().map(Moved::Constant),
            })
            .collect();
        let Some(moved) = layout::moved(&node.op, &inputs) else {
            return false;
        };
        self.set_cells(out, moved);
        true
    }

    pub fn push(&mut self, node: &Node, kind: Kind, out: Option<Root>, flop: usize) {
        let id = node.outputs[0];
        self.steps.push(Step {
            name: node.name.clone(),
            operator: node.op.name(),
            shape: display_shape(self.graph.shape(id)),
            stage: self.stage(id),
            kind,
            width: out.map_or(0, |root| self.roots[root.0].width),
            out,
            flop,
        });
    }

    /// A step before that of a node, which prepares the value `id` for it.
    pub fn prepare(&mut self, id: ValueId, operator: &str, kind: Kind, (out, stage): (Root, Stage)) {
        self.steps.push(Step {
            name: self.graph.value(id).name.clone(),
            operator: operator.to_owned(),
            shape: display_shape(self.graph.shape(id)),
            stage,
            kind,
            width: self.roots[out.0].width,
            out: Some(out),
            flop: 0,
        });
    }

    /// A new root for the only output of a node.
    pub fn output(&mut self, node: &Node) -> Option<Root> {
        let id = node.outputs[0];
        let width = layout::row_width(self.graph.shape(id))?;
        let root = self.root(width, self.stage(id), Home::Own);
        self.set_cells(id, layout::whole(root, width));
        self.made.insert(root, id);
        Some(root)
    }

    /// The root whose only reader ever is the reader of this value.
    pub fn sole(&self, id: ValueId) -> Option<Root> {
        let Some(Known::Cells(cells)) = self.known.get(&id) else {
            return None;
        };
        let root = cells.first()?.root;
        (self.uses[id.index()] == 1 && self.made.get(&root) == Some(&id)).then_some(root)
    }

    fn interpreted(&mut self, node: &Node) {
        let arguments = node.inputs.iter().map(|id| (*id, self.argument(*id))).collect();
        let kind = Kind::Interpret {
            op: node.op.clone(),
            arguments,
            outputs: node.outputs.clone(),
        };
        let elements = layout::row_shape(self.graph.shape(node.outputs[0]));
        let flop = elements.map_or(0, |shape| shape.iter().product());
        self.push(node, kind, None, flop);
        for id in &node.outputs {
            let stage = self.stage(*id);
            let Fact { element, shape, .. } = self.graph.fact(*id);
            let known = match (layout::row_width(shape), element) {
                (None, _) | (_, Element::Bool) => Known::Slot(stage),
                (Some(width), _) => {
                    let root = self.root(width, stage, Home::Slot(*id));
                    Known::Cells(layout::whole(root, width))
                }
            };
            self.known.insert(*id, known);
        }
    }

    fn argument(&mut self, id: ValueId) -> Argument {
        match self.known.get(&id).cloned() {
            Some(Known::Cells(cells)) if self.graph.fact(id).element == Element::F32 => {
                Argument::Floats(self.view(id, &cells))
            }
            Some(Known::Cells(cells)) => Argument::Integers(Arc::new(columns(&cells))),
            Some(Known::Input(input)) => Argument::Input(input),
            Some(Known::Slot(stage)) => Argument::Slot(id, stage),
            Some(Known::Constant(tensor)) => Argument::ConstantRow(tensor),
            None => Argument::Constant(self.graph.value(id).constant.clone().unwrap_or_else(|| {
                // Only constants are known before any node is.
                Arc::new(Tensor::scalar(f32::NAN))
            })),
        }
    }
}
