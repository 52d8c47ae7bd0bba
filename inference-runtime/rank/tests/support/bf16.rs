//! What a plan in bf16 must give, written a second time: the interpreter, but for products with constant matrices.

use std::sync::Arc;

use rank::interpret::eval;
use rank::ir::{Graph, Node, Op, ValueId};
use rank::tensor::{Data, Tensor};

/// Runs one row: inputs have one each. `None` where nothing is in bf16.
pub fn run_row(graph: &Graph, inputs: &[Tensor]) -> Option<Vec<Tensor>> {
    let mut values: Vec<Option<Arc<Tensor>>> =
        graph.values.iter().map(|value| value.constant.clone()).collect();
    let mut constant: Vec<bool> = values.iter().map(Option::is_some).collect();
    for (id, tensor) in graph.inputs.iter().zip(inputs) {
        values[id.index()] = Some(Arc::new(tensor.clone()));
    }
    let get = |values: &[Option<Arc<Tensor>>], id: ValueId| values[id.index()].clone().unwrap();
    let mut any = false;
    for node in &graph.nodes {
        let arguments: Vec<Arc<Tensor>> = node.inputs.iter().map(|id| get(&values, *id)).collect();
        let arguments: Vec<&Tensor> = arguments.iter().map(AsRef::as_ref).collect();
        let known: Vec<bool> = node.inputs.iter().map(|id| constant[id.index()]).collect();
        let results = if in_bf16(graph, node, &known, &arguments) {
            any = true;
            vec![product(&arguments)]
        } else {
            eval(&node.op, &arguments, 1).unwrap()
        };
        for (id, tensor) in node.outputs.iter().zip(results) {
            values[id.index()] = Some(Arc::new(tensor));
            constant[id.index()] = known.iter().all(|known| *known);
        }
    }
    let outputs = graph.outputs.iter().map(|id| get(&values, *id).as_ref().clone());
    any.then(|| outputs.collect())
}

/// A product of rows with a constant matrix, that starts at 0, at a constant row, or at a value of its own shape.
fn in_bf16(graph: &Graph, node: &Node, known: &[bool], arguments: &[&Tensor]) -> bool {
    if node.op != Op::MatMul || known[0] || !known[1] {
        return false;
    }
    let rank = graph.shape(node.outputs[0]).len();
    let start = node.inputs.get(2).is_none_or(|id| {
        let lead = arguments[2].count() / arguments[2].shape.last().copied().unwrap_or(1).max(1);
        (known[2] && lead == 1) || graph.shape(*id) == graph.shape(node.outputs[0])
    });
    let matrix = arguments[1].shape.len() == 2 && graph.shape(node.inputs[0]).len() == rank;
    matrix && rank >= 2 && start
}

fn product(arguments: &[&Tensor]) -> Tensor {
    let (a, b) = (arguments[0], arguments[1]);
    let [k, n] = b.shape[..] else { panic!("a matrix") };
    let mut shape = a.shape.clone();
    *shape.last_mut().unwrap() = n;
    let (x, y) = (a.as_f32().unwrap(), b.as_f32().unwrap());
    let mut out = Vec::new();
    for row in 0..x.len() / k {
        for column in 0..n {
            let start = arguments.get(2).map(|start| start.as_f32().unwrap());
            let start = start.map_or(0.0, |start| start[(row * n + column) % start.len()]);
            let sum = (0..k).fold(flushed(start), |sum, at| {
                flushed(rounded(x[row * k + at]).mul_add(rounded(y[at * n + column]), sum))
            });
            out.push(sum);
        }
    }
    Tensor::f32(shape, out)
}

fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

/// The nearer one of the two numbers of 16 bits around; of two that are as near, the even one.
fn rounded(x: f32) -> f32 {
    let x = flushed(x);
    if !x.is_finite() {
        return x;
    }
    let below = f32::from_bits(x.to_bits() & 0xffff_0000);
    let above = f32::from_bits(below.to_bits() + 0x1_0000);
    // Beyond the largest is infinity, which is as far as the next number would be.
    let far = |y: f32| {
        let y = if y.is_infinite() {
            2.0_f64.powi(128).copysign(y.into())
        } else {
            y.into()
        };
        (y - f64::from(x)).abs()
    };
    let even = below.to_bits() & 0x1_0000 == 0;
    if far(below) < far(above) || (far(below) == far(above) && even) {
        below
    } else {
        above
    }
}

/// Rows of results of one row each, one after the other.
pub fn stacked(rows: &[Vec<Tensor>]) -> Vec<Tensor> {
    let stack = |at: usize| {
        let mut all = rows[0][at].clone();
        for row in &rows[1..] {
            match (&mut all.data, &row[at].data) {
                (Data::F32(all), Data::F32(more)) => all.extend(more),
                (Data::Int(all), Data::Int(more)) => all.extend(more),
                (Data::Bool(all), Data::Bool(more)) => all.extend(more),
                _ => panic!("rows differ"),
            }
        }
        all.shape[0] = rows.len();
        all
    };
    (0..rows[0].len()).map(stack).collect()
}
