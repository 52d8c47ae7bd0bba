//! One operator of the IR as ONNX nodes.

use super::Emitter;
use crate::ir::{Binary, Extent, Node, Op, Unary};
use crate::onnx::constant;
use crate::onnx::proto::AttributeProto;
use crate::tensor::Tensor;

// AttributeProto.AttributeType
const FLOAT: i32 = 1;
const INT: i32 = 2;
const STRING: i32 = 3;
const INTS: i32 = 7;

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        i: Some(value),
        r#type: Some(INT),
        ..AttributeProto::default()
    }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        f: Some(value),
        r#type: Some(FLOAT),
        ..AttributeProto::default()
    }
}

fn size(value: usize) -> i64 {
    Extent::of(value).fixed
}

impl Emitter<'_> {
    pub(super) fn operator(
        &mut self,
        node: &Node,
        mut inputs: Vec<String>,
        outputs: Vec<String>,
    ) -> Result<(), String> {
        match &node.op {
            Op::Unary(unary) => self.unary(*unary, inputs, outputs),
            Op::Binary(Binary::Fmod) => self.with("Mod", inputs, outputs, vec![int("fmod", 1)]),
            Op::Binary(binary) => self.with(&format!("{binary:?}"), inputs, outputs, vec![]),
            Op::Where => self.with("Where", inputs, outputs, vec![]),
            Op::Cast(to) => {
                let to = int("to", i64::from(constant::datatype_of(*to)));
                self.with("Cast", inputs, outputs, vec![to]);
            }
            Op::MatMul => self.matmul(node, inputs, outputs),
            Op::Reduce {
                reduction,
                axes,
                keep,
            } => {
                inputs.push(self.integers(axes.iter().map(|axis| size(*axis)).collect()));
                let keep = int("keepdims", i64::from(*keep));
                self.with(&format!("Reduce{reduction:?}"), inputs, outputs, vec![keep]);
            }
            Op::Softmax { axis, log } => {
                let operator = if *log { "LogSoftmax" } else { "Softmax" };
                self.with(operator, inputs, outputs, vec![int("axis", size(*axis))]);
            }
            Op::LayerNorm { axis, epsilon } => {
                let attributes = vec![int("axis", size(*axis)), float("epsilon", *epsilon)];
                self.with("LayerNormalization", inputs, outputs, attributes);
            }
            Op::TopK { axis, k, largest } => {
                inputs.push(self.integers(vec![size(*k)]));
                let attributes = vec![int("axis", size(*axis)), int("largest", i64::from(*largest))];
                self.with("TopK", inputs, outputs, attributes);
            }
            Op::CumSum { axis } => {
                inputs.push(self.tensor(&Tensor::i64(Vec::new(), vec![size(*axis)])));
                self.with("CumSum", inputs, outputs, vec![]);
            }
            Op::Gru {
                hidden,
                linear_before_reset,
            } => {
                self.gru(node, inputs, outputs, (*hidden, *linear_before_reset))?;
            }
            Op::Range { .. } | Op::Trees(_) => return Err("is not written as ONNX".to_owned()),
            _ => self.layout(node, inputs, outputs)?,
        }
        Ok(())
    }

    fn with(
        &mut self,
        operator: &str,
        inputs: Vec<String>,
        outputs: Vec<String>,
        attributes: Vec<AttributeProto>,
    ) {
        self.push(operator, inputs, outputs).attribute = attributes;
    }

    /// Operators that move elements.
    fn layout(&mut self, node: &Node, mut inputs: Vec<String>, outputs: Vec<String>) -> Result<(), String> {
        let along = |axis: &usize| vec![int("axis", size(*axis))];
        match &node.op {
            Op::Gather { axis } => self.with("Gather", inputs, outputs, along(axis)),
            Op::GatherElements { axis } => self.with("GatherElements", inputs, outputs, along(axis)),
            Op::GatherNd { batch_dims } => {
                self.with(
                    "GatherND",
                    inputs,
                    outputs,
                    vec![int("batch_dims", size(*batch_dims))],
                );
            }
            Op::Concat { axis } => self.with("Concat", inputs, outputs, along(axis)),
            Op::Slice {
                axis,
                start,
                end,
                step,
            } => {
                // Below the first element: ONNX would count -1 from the end.
                let end = if *step < 0 && *end < 0 { i64::MIN } else { *end };
                for value in [*start, end, size(*axis), *step] {
                    inputs.push(self.integers(vec![value]));
                }
                self.with("Slice", inputs, outputs, vec![]);
            }
            Op::Reshape { shape } => {
                inputs.push(self.reshape_target(shape)?);
                self.with("Reshape", inputs, outputs, vec![]);
            }
            Op::Transpose { perm } => {
                let perm = AttributeProto {
                    name: "perm".to_owned(),
                    ints: perm.iter().map(|axis| size(*axis)).collect(),
                    r#type: Some(INTS),
                    ..AttributeProto::default()
                };
                self.with("Transpose", inputs, outputs, vec![perm]);
            }
            Op::Expand { shape } => {
                // A growing axis that the input has keeps its length, a new one begins with a single row.
                let own = self.graph.shape(node.inputs[0]);
                let grows = |axis: usize| {
                    (axis + own.len())
                        .checked_sub(shape.len())
                        .is_some_and(|axis| !own[axis].is_fixed())
                };
                let size = |(axis, extent): (usize, &Extent)| {
                    if grows(axis) {
                        1
                    } else {
                        extent.rows + extent.fixed
                    }
                };
                let target = shape.iter().enumerate().map(size).collect();
                inputs.push(self.integers(target));
                self.with("Expand", inputs, outputs, vec![]);
            }
            other => return Err(format!("{} is not written as ONNX", other.name())),
        }
        Ok(())
    }

    fn unary(&mut self, unary: Unary, inputs: Vec<String>, outputs: Vec<String>) {
        let attributes = match unary {
            Unary::Elu { alpha } | Unary::LeakyRelu { alpha } => vec![float("alpha", alpha)],
            Unary::HardSigmoid { alpha, beta } => vec![float("alpha", alpha), float("beta", beta)],
            Unary::Gelu { tanh } => vec![AttributeProto {
                name: "approximate".to_owned(),
                s: Some(if tanh { "tanh" } else { "none" }.into()),
                r#type: Some(STRING),
                ..AttributeProto::default()
            }],
            _ => Vec::new(),
        };
        let operator = Op::Unary(unary).name().replace("IsNan", "IsNaN");
        self.push(&operator, inputs, outputs).attribute.extend(attributes);
    }

    /// With a start value: Gemm where it can be, else MatMul and Add.
    fn matmul(&mut self, node: &Node, inputs: Vec<String>, outputs: Vec<String>) {
        let rank = |at: usize| node.inputs.get(at).map_or(0, |id| self.graph.shape(*id).len());
        match inputs.len() {
            3 if rank(0) == 2 && rank(1) == 2 && rank(2) <= 2 => {
                self.push("Gemm", inputs, outputs);
            }
            3 => {
                let product = self.fresh("product");
                self.push("MatMul", inputs[..2].to_vec(), vec![product.clone()]);
                self.push("Add", vec![product, inputs[2].clone()], outputs);
            }
            _ => {
                self.push("MatMul", inputs, outputs);
            }
        }
    }

    /// The growing axis, if any, is what the others leave.
    fn reshape_target(&mut self, shape: &[Extent]) -> Result<String, String> {
        if shape.iter().filter(|extent| !extent.is_fixed()).count() > 1 {
            return Err("two axes grow with the rows".to_owned());
        }
        let sizes = shape
            .iter()
            .map(|extent| if extent.is_fixed() { extent.fixed } else { -1 })
            .collect();
        Ok(self.integers(sizes))
    }

    /// ONNX has an axis for directions in weights, state and results.
    fn gru(
        &mut self,
        node: &Node,
        inputs: Vec<String>,
        outputs: Vec<String>,
        how: (usize, bool),
    ) -> Result<(), String> {
        let (hidden, linear_before_reset) = how;
        let mut arguments = vec![inputs[0].clone()];
        for id in &node.inputs[1..4] {
            let weights = self.graph.constant(*id).ok_or("its weights are not constant")?;
            let shape = [&[1], weights.shape.as_slice()].concat();
            arguments.push(self.tensor(&weights.clone().reshaped(shape)));
        }
        let state_shape = self.integers(vec![1, -1, size(hidden)]);
        let state = self.fresh("state");
        self.push(
            "Reshape",
            vec![inputs[4].clone(), state_shape],
            vec![state.clone()],
        );
        arguments.extend([String::new(), state]);
        let (all, last) = (self.fresh("all"), self.fresh("last"));
        let gru = self.push("GRU", arguments, vec![all.clone(), last.clone()]);
        let linear = int("linear_before_reset", i64::from(linear_before_reset));
        gru.attribute.extend([int("hidden_size", size(hidden)), linear]);
        let steps = self.graph.shape(node.inputs[0])[0].fixed;
        let shapes = [vec![steps, -1, size(hidden)], vec![-1, size(hidden)]];
        for ((from, to), shape) in [all, last].into_iter().zip(outputs).zip(shapes) {
            let shape = self.integers(shape);
            self.push("Reshape", vec![from, shape], vec![to]);
        }
        Ok(())
    }
}
