//! EmbeddingBag as PyTorch leaves it: a Loop over the bags, in ONNX Runtime 30 times slower than a gather and a sum.
//!
//! Both exporters write the loop from a fixed template. It is recognised by the operators of its body, in order, and by
//! offsets that are `0, L, 2L ...`: bags of equal size, as a two-dimensional input gives them. Anything else is refused.

use super::attributes::Attributes;
use super::import::Importer;
use super::proto::{GraphProto, NodeProto};
use crate::ir::{Binary, Extent, Op, Reduction, ValueId};

/// Bodies without their constants and casts; the reduction stands for itself.
const TORCHSCRIPT: &str = "Gather Gather Unsqueeze Unsqueeze Slice Gather REDUCE";
const TORCHSCRIPT_WEIGHTED: &str =
    "Gather Gather Unsqueeze Unsqueeze Slice Gather Slice Unsqueeze Mul REDUCE";
const DYNAMO: &str = "Reshape Add Slice Add Add Slice Equal If Slice REDUCE SequenceInsert Add Less";
/// The last bag's mean is a sum by its own length, which here is that of all others.
const DYNAMO_MEAN: &str = "Reshape Add Slice Add Add Slice Equal If Slice Sub Equal If ReduceSum Shape Sub Greater If Div \
                           Identity ReduceMean SequenceInsert Add Less";

/// Products of products between the ids and the loop are followed so far: PyTorch writes one.
const DEPTH: usize = 3;

/// The loop's outputs; `None` for its counter, which nothing reads.
pub fn lower(importer: &mut Importer<'_>, node: &NodeProto) -> Result<Vec<Option<ValueId>>, String> {
    let body = Attributes::of(node).graph("body").ok_or("has no body")?;
    let mut nodes = Vec::new();
    flatten(body, &mut nodes);
    let reduced = |name: &str| nodes.iter().any(|node| node.op_type == name);
    let (reduction, operator) = match (reduced("ReduceMean"), reduced("ReduceMax")) {
        (true, _) => (Reduction::Mean, "ReduceMean"),
        (_, true) => (Reduction::Max, "ReduceMax"),
        _ => (Reduction::Sum, "ReduceSum"),
    };
    let operators: Vec<&str> = nodes.iter().map(|node| node.op_type.as_str()).collect();
    let written = operators.join(" ");
    let is = |template: &str| written == template.replace("REDUCE", operator);
    let bag = Bag {
        importer,
        nodes: &nodes,
        name: node.output.first().map_or("", String::as_str),
        reduction,
    };
    if is(TORCHSCRIPT) || is(TORCHSCRIPT_WEIGHTED) {
        return bag.torchscript(operator).map(|id| vec![Some(id)]);
    }
    if is(DYNAMO) || is(DYNAMO_MEAN) {
        return bag.dynamo().map(|id| vec![None, Some(id)]);
    }
    Err("loops are not in rank's set, but for those of EmbeddingBag with bags of equal size".to_owned())
}

/// Nodes in order, those of branches after their If; constants and casts say nothing.
fn flatten<'a>(graph: &'a GraphProto, into: &mut Vec<&'a NodeProto>) {
    for node in graph
        .node
        .iter()
        .filter(|node| !matches!(node.op_type.as_str(), "Constant" | "Cast" | "CastLike"))
    {
        into.push(node);
        for branch in ["then_branch", "else_branch"] {
            if let Some(graph) = Attributes::of(node).graph(branch) {
                flatten(graph, into);
            }
        }
    }
}

struct Bag<'a, 'b> {
    importer: &'a mut Importer<'b>,
    nodes: &'a [&'a NodeProto],
    name: &'a str,
    reduction: Reduction,
}

impl Bag<'_, '_> {
    fn inside(&self, name: &str) -> Option<&NodeProto> {
        self.nodes
            .iter()
            .find(|node| node.output.iter().any(|output| output == name))
            .copied()
    }

    fn lookup(&self, name: &str) -> Result<ValueId, String> {
        let found = self
            .importer
            .lookup(name)
            .ok_or_else(|| format!("reads {name:?}, which is not made before it"))?;
        found.map_err(|refusal| refusal.to_string())
    }

    /// `L`, when the offsets are those of bags of L each and end with the number of all ids.
    fn bag_size(&self, offsets: &str, ids: Extent) -> Result<i64, String> {
        let producer = |name: &str, operator: &str| {
            self.importer
                .producer(name)
                .filter(|node| node.op_type == operator)
                .ok_or("its offsets are not those of bags of equal size")
        };
        let concat = producer(offsets, "Concat")?;
        let [range, total] = &concat.input[..] else {
            return Err("its offsets are not those of bags of equal size".to_owned());
        };
        let range = producer(range, "Range")?;
        let size = |name: &str| {
            let id = self.lookup(name)?;
            match self.importer.graph.fact(id).sizes.as_deref() {
                Some([size]) => Ok(*size),
                _ => Err("the offsets of its bags depend on the inputs".to_owned()),
            }
        };
        let [start, limit, delta] = &range.input[..] else {
            return Err("its range is damaged".to_owned());
        };
        let (start, limit, delta, total) = (size(start)?, size(limit)?, size(delta)?, size(total)?);
        let equal = Extent::N.checked_mul(delta) == Some(limit) && limit == total && total == ids;
        if start != Extent::fixed(0) || !delta.is_fixed() || delta.fixed < 1 || !equal {
            return Err("its bags are not one a row, of equal size".to_owned());
        }
        Ok(delta.fixed)
    }

    fn first(&self, id: ValueId) -> Extent {
        self.importer
            .graph
            .shape(id)
            .first()
            .copied()
            .unwrap_or(Extent::ONE)
    }

    fn push(&mut self, op: Op, inputs: &[ValueId]) -> Result<ValueId, String> {
        self.importer.graph.push_one(self.name, op, inputs)
    }

    fn reduce(&mut self, rows: ValueId) -> Result<ValueId, String> {
        let op = Op::Reduce {
            reduction: self.reduction,
            axes: vec![1],
            keep: false,
        };
        self.push(op, &[rows])
    }

    /// Rows of the table are gathered inside of the loop, and weighted there.
    fn torchscript(mut self, operator: &str) -> Result<ValueId, String> {
        let template = "its body is not as PyTorch writes it";
        let input = |node: &NodeProto, at: usize| node.input.get(at).cloned().ok_or(template);
        let reduce = self
            .nodes
            .iter()
            .find(|node| node.op_type == operator)
            .ok_or(template)?;
        let mut rows = self.inside(&input(reduce, 0)?).ok_or(template)?;
        let mut weights = None;
        if rows.op_type == "Mul" {
            let column = self.inside(&input(rows, 1)?).ok_or(template)?;
            let slice = self.inside(&input(column, 0)?).ok_or(template)?;
            weights = Some(self.lookup(&input(slice, 0)?)?);
            rows = self.inside(&input(rows, 0)?).ok_or(template)?;
        }
        let (table, slice) = (input(rows, 0)?, self.inside(&input(rows, 1)?).ok_or(template)?);
        let start = self.inside(&input(slice, 1)?).ok_or(template)?;
        let start = self.inside(&input(start, 0)?).ok_or(template)?;
        let (table, ids) = (self.lookup(&table)?, self.lookup(&input(slice, 0)?)?);
        let size = self.bag_size(&input(start, 0)?, self.first(ids))?;
        let bags = vec![Extent::N, Extent::fixed(size)];
        let ids = self.push(Op::Reshape { shape: bags.clone() }, &[ids])?;
        let mut rows = self.push(Op::Gather { axis: 0 }, &[table, ids])?;
        if let Some(weights) = weights {
            let shape = [bags, vec![Extent::ONE]].concat();
            let weights = self.push(Op::Reshape { shape }, &[weights])?;
            rows = self.push(Op::Binary(Binary::Mul), &[rows, weights])?;
        }
        self.reduce(rows)
    }

    /// All rows are there before the loop, which sums slices of them.
    fn dynamo(mut self) -> Result<ValueId, String> {
        let slices: Vec<&NodeProto> = self
            .nodes
            .iter()
            .filter(|node| node.op_type == "Slice")
            .copied()
            .collect();
        let [start, _, rows] = slices[..] else {
            return Err("its body is not as PyTorch writes it".to_owned());
        };
        let first = |node: &NodeProto| node.input.first().cloned().ok_or("its slices have no input");
        let (offsets, rows) = (first(start)?, self.lookup(&first(rows)?)?);
        let size = self.bag_size(&offsets, self.first(rows))?;
        let rows = self.by_bag(rows, size, 0)?;
        self.reduce(rows)
    }
    /// `[N * L, ...]` as `[N, L, ...]`, the axes opened where the ids come from: a row of ids then stays one axis, and the
    /// user's ids can be told from the pairs'.
    fn by_bag(&mut self, id: ValueId, size: i64, depth: usize) -> Result<ValueId, String> {
        let graph = &self.importer.graph;
        let flat = graph.shape(id).to_vec();
        let shape = [vec![Extent::N, Extent::fixed(size)], flat[1..].to_vec()].concat();
        let made = graph
            .nodes
            .iter()
            .find(|node| node.outputs.contains(&id))
            .cloned();
        let same =
            |input: &ValueId| graph.shape(*input).len() == flat.len() && graph.shape(*input)[0] == flat[0];
        match made.as_ref().map(|node| (&node.op, node.inputs.as_slice())) {
            Some((Op::Binary(binary), [a, b])) if depth < DEPTH && same(a) && same(b) => {
                let (a, b) = (
                    self.by_bag(*a, size, depth + 1)?,
                    self.by_bag(*b, size, depth + 1)?,
                );
                self.push(Op::Binary(*binary), &[a, b])
            }
            Some((Op::Gather { axis: 0 }, [table, ids])) if graph.constant(*table).is_some() => {
                let ids = self.by_bag(*ids, size, depth + 1)?;
                self.push(Op::Gather { axis: 0 }, &[*table, ids])
            }
            Some((Op::Reshape { .. }, [from])) => self.push(Op::Reshape { shape }, &[*from]),
            _ => self.push(Op::Reshape { shape }, &[id]),
        }
    }
}
