//! ModelProto to the IR.

use std::collections::HashMap;

use super::attributes::Attributes;
use super::proto::{GraphProto, ModelProto, NodeProto, ValueInfoProto, tensor_shape_proto, type_proto};
use super::step::Step;
use super::{ExternalData, Refusal, bags, constant, lower};
use crate::ir::{Extent, Fact, Graph, ValueId};
use crate::pass::prune;
use crate::pass::shape::{LARGEST_ROW, check_size};
use crate::tensor::Tensor;

/// Opsets of the default domain whose meaning this import knows.
const OPSETS: std::ops::RangeInclusive<i64> = 13..=23;

/// Operators that mean the same in every older opset: converters of trees declare the oldest that will do.
const SINCE_THE_BEGINNING: [&str; 5] = ["Cast", "Identity", "Mul", "Neg", "Sigmoid"];

/// The whole model in the IR, constants folded and dead nodes gone, or the reason why not.
pub fn import(model: &ModelProto, external: &dyn ExternalData) -> Result<Graph, Refusal> {
    let proto = model
        .graph
        .as_ref()
        .ok_or_else(|| Refusal::Format("it has no graph".to_owned()))?;
    check_opset(model, proto)?;
    if let Some(function) = model.functions.first() {
        return Err(Refusal::Model(format!(
            "has local functions ({:?}); export it with them inlined",
            function.name
        )));
    }
    let producers = proto
        .node
        .iter()
        .flat_map(|node| node.output.iter().map(move |name| (name.as_str(), node)));
    let mut importer = Importer {
        graph: Graph::default(),
        names: HashMap::new(),
        producers: producers.collect(),
        external,
    };
    importer.constants(proto)?;
    importer.inputs(proto)?;
    for (position, node) in proto.node.iter().enumerate() {
        importer.node(node, position);
    }
    for output in &proto.output {
        let missing = |reason: String| Refusal::Value {
            what: "output",
            name: output.name.clone(),
            reason,
        };
        let id = importer
            .lookup(&output.name)
            .ok_or_else(|| missing("is made by no node".to_owned()))??;
        importer.output(&output.name, id)?;
    }
    let mut graph = importer.graph;
    prune::prune(&mut graph);
    Ok(graph)
}

fn check_opset(model: &ModelProto, graph: &GraphProto) -> Result<(), Refusal> {
    let is_default = |domain: &str| matches!(domain, "" | "ai.onnx");
    let opset = model.opset_import.iter().find(|set| is_default(&set.domain));
    let opset = opset.map_or(0, |set| set.version);
    let timeless =
        |node: &NodeProto| !is_default(&node.domain) || SINCE_THE_BEGINNING.contains(&node.op_type.as_str());
    let (oldest, newest) = (OPSETS.start(), OPSETS.end());
    if OPSETS.contains(&opset) || (opset < *oldest && graph.node.iter().all(timeless)) {
        return Ok(());
    }
    Err(Refusal::Model(format!(
        "is of opset {opset}; export it with opset {oldest} to {newest}"
    )))
}

/// Unnamed nodes are named after what they make.
pub fn node_name(node: &NodeProto) -> &str {
    if node.name.is_empty() {
        node.output.first().map_or("", String::as_str)
    } else {
        &node.name
    }
}

fn refuse(node: &NodeProto, position: usize, reason: String) -> Refusal {
    let name = match node_name(node) {
        "" => format!("#{position}"),
        name => name.to_owned(),
    };
    Refusal::Node {
        node: name,
        operator: node.op_type.clone(),
        reason,
    }
}

pub struct Importer<'a> {
    pub graph: Graph,
    /// A node that is not taken refuses the model only when an output needs it: what a rewrite replaces is dead code.
    names: HashMap<String, Result<ValueId, Refusal>>,
    producers: HashMap<&'a str, &'a NodeProto>,
    pub external: &'a dyn ExternalData,
}

impl<'a> Importer<'a> {
    fn constants(&mut self, proto: &GraphProto) -> Result<(), Refusal> {
        for initializer in &proto.initializer {
            let tensor = constant::decode(initializer, self.external).map_err(|reason| Refusal::Value {
                what: "initializer",
                name: initializer.name.clone(),
                reason,
            })?;
            let id = self.graph.add_constant(&initializer.name, tensor);
            self.names.insert(initializer.name.clone(), Ok(id));
        }
        Ok(())
    }

    fn inputs(&mut self, proto: &GraphProto) -> Result<(), Refusal> {
        let mut batch: Option<String> = None;
        // Old files list initializers among the inputs.
        for input in proto
            .input
            .iter()
            .filter(|input| !self.names.contains_key(&input.name))
            .collect::<Vec<_>>()
        {
            let checked = |fact: Fact| check_size(&fact, LARGEST_ROW).map(|()| fact);
            let fact = input_fact(input, &mut batch)
                .and_then(checked)
                .map_err(|reason| Refusal::Value {
                    what: "input",
                    name: input.name.clone(),
                    reason,
                })?;
            let id = self.graph.add_input(&input.name, fact);
            self.names.insert(input.name.clone(), Ok(id));
        }
        Ok(())
    }

    fn output(&mut self, name: &str, id: ValueId) -> Result<(), Refusal> {
        let value = self.graph.value(id);
        let refused = |reason: &str| Refusal::Value {
            what: "output",
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        if value.constant.is_some() || value.fact.sizes.is_some() {
            return Err(refused("does not depend on the inputs"));
        }
        self.graph.outputs.push(id);
        // A result keeps its name in what is emitted; an input that goes straight out keeps its own.
        if !self.graph.inputs.contains(&id) {
            self.graph.values[id.index()].name = name.to_owned();
        }
        Ok(())
    }

    pub fn lookup(&self, name: &str) -> Option<Result<ValueId, Refusal>> {
        self.names.get(name).cloned()
    }

    /// The node of the main graph that makes a value.
    pub fn producer(&self, name: &str) -> Option<&'a NodeProto> {
        self.producers.get(name).copied()
    }

    fn node(&mut self, node: &NodeProto, position: usize) {
        let outputs = self.outputs(node, position);
        for (at, name) in node
            .output
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
        {
            let result = match &outputs {
                Ok(ids) => ids
                    .get(at)
                    .copied()
                    .flatten()
                    .ok_or_else(|| refuse(node, position, format!("its output {name:?} is not taken"))),
                Err(refusal) => Err(refusal.clone()),
            };
            self.names.insert(name.clone(), result);
        }
    }

    fn outputs(&mut self, node: &NodeProto, position: usize) -> Result<Vec<Option<ValueId>>, Refusal> {
        let refused = |reason: String| refuse(node, position, reason);
        if !matches!(node.domain.as_str(), "" | "ai.onnx" | "ai.onnx.ml") {
            return Err(refused(format!(
                "operators of the domain {:?} are not in rank's set",
                node.domain
            )));
        }
        match node.op_type.as_str() {
            "Loop" => return bags::lower(self, node).map_err(refused),
            "If" => return self.branch(node, position),
            _ => {}
        }
        let mut inputs = Vec::with_capacity(node.input.len());
        for name in &node.input {
            let missing = || refused(format!("its input {name:?} is not made by any node before it"));
            inputs.push(if name.is_empty() {
                None
            } else {
                Some(self.lookup(name).ok_or_else(missing)??)
            });
        }
        let mut step = Step {
            importer: self,
            node,
            attributes: Attributes::of(node),
            inputs: &inputs,
        };
        let outputs = lower::lower(&mut step).map_err(refused)?;
        Ok(outputs.into_iter().map(Some).collect())
    }

    /// A branch whose condition is known is its body.
    fn branch(&mut self, node: &NodeProto, position: usize) -> Result<Vec<Option<ValueId>>, Refusal> {
        let refused = |reason: &str| refuse(node, position, reason.to_owned());
        let condition = node
            .input
            .first()
            .and_then(|name| self.lookup(name))
            .ok_or_else(|| refused("has no condition"))??;
        let known = self
            .graph
            .constant(condition)
            .and_then(Tensor::as_bool)
            .and_then(|flags| flags.first().copied());
        let taken = known.ok_or_else(|| refused("its condition depends on the inputs"))?;
        let body = Attributes::of(node).graph(if taken { "then_branch" } else { "else_branch" });
        let body = body.ok_or_else(|| refused("has no body"))?;
        self.constants(body)?;
        for (position, node) in body.node.iter().enumerate() {
            self.node(node, position);
        }
        let output = |name: &str| {
            self.lookup(name)
                .ok_or_else(|| refused("its body does not make its outputs"))?
        };
        body.output
            .iter()
            .map(|value| output(&value.name).map(Some))
            .collect()
    }
}

fn input_fact(input: &ValueInfoProto, batch: &mut Option<String>) -> Result<Fact, String> {
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    else {
        return Err("is not a tensor".to_owned());
    };
    let element = constant::element(tensor.elem_type)?;
    let shape = tensor.shape.as_ref().ok_or("has no shape; export it with one")?;
    let mut extents = Vec::with_capacity(shape.dim.len());
    for (axis, dim) in shape.dim.iter().enumerate() {
        let name = match &dim.value {
            Some(tensor_shape_proto::dimension::Value::DimValue(size)) => {
                if *size < 0 {
                    return Err(format!("axis {axis} has the size {size}"));
                }
                extents.push(Extent::fixed(*size));
                continue;
            }
            Some(tensor_shape_proto::dimension::Value::DimParam(name)) => name.clone(),
            None => String::new(),
        };
        let known = batch.get_or_insert_with(|| name.clone());
        // Names of the first axis are not compared: exporters name each input's batch by itself.
        if axis != 0 {
            return Err(format!(
                "axis {axis} has no fixed size ({name:?}); only the first (here {known:?}) may vary"
            ));
        }
        extents.push(Extent::N);
    }
    Ok(Fact::new(element, extents))
}

#[cfg(test)]
mod tests;
