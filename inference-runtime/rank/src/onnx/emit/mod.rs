//! The IR as ONNX again, for any server: opset 20, plain operators.
//!
//! Values of the request's domain, and constants spread over the rows, have one row. Where they meet values with a row a
//! pair, broadcasting does the rest; operators that do not broadcast get an `Expand`.

mod operators;

use super::constant;
use super::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use crate::ir::{Extent, Fact, Graph, Node, Op, ValueId};
use crate::pass::domain::{self, Domain, Domains};
use crate::tensor::Tensor;

const OPSET: i64 = 20;
/// The file format of ONNX 1.15, which first had opset 20.
const IR_VERSION: i64 = 9;

/// `request` are the inputs that come with one row a request.
pub fn emit(graph: &Graph, request: &[ValueId]) -> Result<ModelProto, String> {
    let domains = domain::domains(graph, request);
    let mut emitter = Emitter {
        graph,
        domains: &domains,
        proto: GraphProto::default(),
        made: 0,
    };
    emitter.constants();
    for node in &graph.nodes {
        emitter
            .node(node)
            .map_err(|reason| format!("node {:?} ({}): {reason}", node.name, node.op.name()))?;
    }
    for id in &graph.outputs {
        let wide = emitter.widened(*id, Domain::Pair)?;
        let name = graph.value(*id).name.clone();
        emitter.push("Identity", vec![wide], vec![name]);
    }
    let mut proto = emitter.proto;
    proto.name = "rank".to_owned();
    let info = |id: &ValueId, rows: &str| value_info(&graph.value(*id).name, graph.fact(*id), rows);
    let once = |id: &ValueId| {
        if domains.of(*id) == Domain::Request {
            "request"
        } else {
            "pairs"
        }
    };
    proto.input = graph.inputs.iter().map(|id| info(id, once(id))).collect();
    proto.output = graph.outputs.iter().map(|id| info(id, "pairs")).collect();
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: "pinnace".to_owned(),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: OPSET,
        }],
        graph: Some(proto),
        ..ModelProto::default()
    })
}

/// A request's input has 1 as its first dimension.
fn value_info(name: &str, fact: &Fact, rows: &str) -> ValueInfoProto {
    let dim = |extent: &Extent| {
        let value = match (extent.as_fixed(), rows) {
            (Some(_), _) => dimension::Value::DimValue(extent.fixed),
            (None, "request") => dimension::Value::DimValue(1),
            (None, rows) => dimension::Value::DimParam(rows.to_owned()),
        };
        Dimension { value: Some(value) }
    };
    let tensor = type_proto::Tensor {
        elem_type: constant::datatype_of(fact.element),
        shape: Some(TensorShapeProto {
            dim: fact.shape.iter().map(dim).collect(),
        }),
    };
    ValueInfoProto {
        name: name.to_owned(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
        }),
    }
}

pub(super) struct Emitter<'a> {
    pub graph: &'a Graph,
    domains: &'a Domains,
    proto: GraphProto,
    /// Names made so far that belong to no value.
    made: usize,
}

impl Emitter<'_> {
    fn constants(&mut self) {
        let mut read: Vec<ValueId> = self
            .graph
            .nodes
            .iter()
            .flat_map(|node| node.inputs.iter().copied())
            .collect();
        read.sort_unstable();
        read.dedup();
        for id in read {
            if let Some(tensor) = self.graph.constant(id) {
                self.proto
                    .initializer
                    .push(constant::encode(&self.name(id), tensor));
            }
        }
    }

    /// Inputs keep their name, all else is numbered.
    pub fn name(&self, id: ValueId) -> String {
        let value = self.graph.value(id);
        if self.graph.inputs.contains(&id) {
            value.name.clone()
        } else {
            format!("{}#{}", value.name, id.index())
        }
    }

    pub fn fresh(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}##{}", self.made)
    }

    pub fn push(&mut self, operator: &str, inputs: Vec<String>, outputs: Vec<String>) -> &mut NodeProto {
        let name = outputs.first().cloned().unwrap_or_default();
        self.proto.node.push(NodeProto {
            name,
            op_type: operator.to_owned(),
            input: inputs,
            output: outputs,
            ..NodeProto::default()
        });
        self.proto.node.last_mut().expect("a node was just added")
    }

    pub fn integers(&mut self, values: Vec<i64>) -> String {
        let name = self.fresh("sizes");
        self.proto
            .initializer
            .push(constant::encode(&name, &Tensor::i64(vec![values.len()], values)));
        name
    }

    pub fn tensor(&mut self, tensor: &Tensor) -> String {
        let name = self.fresh("constant");
        self.proto.initializer.push(constant::encode(&name, tensor));
        name
    }

    /// Whether the value has one row where a consumer in `to` has many.
    fn is_narrow(&self, id: ValueId, to: Domain) -> bool {
        let narrow = matches!(self.domains.of(id), Domain::Const | Domain::Request);
        narrow && matches!(to, Domain::Item | Domain::Pair) && self.graph.fact(id).batch_axis().is_some()
    }

    /// The name of the value with a row for each row of the consumer.
    pub fn widened(&mut self, id: ValueId, to: Domain) -> Result<String, String> {
        let name = self.name(id);
        let Some(axis) = self
            .graph
            .fact(id)
            .batch_axis()
            .filter(|_| self.is_narrow(id, to))
        else {
            return Ok(name);
        };
        self.one_a_row(id)?;
        let wide = |input: &&ValueId| matches!(self.domains.of(**input), Domain::Item | Domain::Pair);
        let Some(counted) = self.graph.inputs.iter().find(wide).map(|id| self.name(*id)) else {
            return Ok(name);
        };
        let rows = self.fresh("rows");
        let shape = self.push("Shape", vec![counted], vec![rows.clone()]);
        shape
            .attribute
            .extend([operators::int("start", 0), operators::int("end", 1)]);
        let rank = self.graph.shape(id).len();
        let before = self.integers(vec![1; axis]);
        let after = self.integers(vec![1; rank - axis - 1]);
        let target = self.fresh("shape");
        let concat = self.push("Concat", vec![before, rows, after], vec![target.clone()]);
        concat.attribute.push(operators::int("axis", 0));
        let expanded = self.fresh("wide");
        self.push("Expand", vec![name, target], vec![expanded.clone()]);
        Ok(expanded)
    }

    fn one_a_row(&self, id: ValueId) -> Result<(), String> {
        let fact = self.graph.fact(id);
        match fact.batch_axis().map(|axis| fact.shape[axis]) {
            None | Some(Extent { rows: 1, fixed: 0 }) => Ok(()),
            Some(extent) => Err(format!(
                "{:?} has {extent} entries for the rows, which does not broadcast",
                self.graph.value(id).name
            )),
        }
    }

    fn node(&mut self, node: &Node) -> Result<(), String> {
        let domain = self.domains.of(node.outputs[0]);
        let broadcasts = matches!(node.op, Op::Binary(_) | Op::Where | Op::MatMul);
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            if broadcasts && self.is_narrow(*id, domain) {
                self.one_a_row(*id)?;
                inputs.push(self.name(*id));
            } else {
                inputs.push(self.widened(*id, domain)?);
            }
        }
        let outputs = node.outputs.iter().map(|id| self.name(*id)).collect();
        self.operator(node, inputs, outputs)
    }
}
