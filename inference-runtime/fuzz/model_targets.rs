//! Model files: read, compiled, and run if they are small.

use std::sync::LazyLock;

use prost::Message as _;
use rank::Model;
use rank::onnx::NoExternalData;
use rank::onnx::proto::{ModelProto, NodeProto, TensorProto, ValueInfoProto, tensor_shape_proto, type_proto};
use rank::plan::{Options, Plan, Precision};
use rank::tensor::{Element, Tensor};

/// A plan that costs more is compiled and not run.
const MOST_FLOP: usize = 1 << 20;
const MOST_ELEMENTS: usize = 1 << 14;
const ROWS: usize = 3;

pub fn model(data: &[u8]) {
    let Ok(model) = Model::load(data, &NoExternalData) else {
        return;
    };
    let compile = |precision| {
        let options = Options {
            precision,
            ..Options::default()
        };
        Plan::compile(&model, &options)
    };
    let Ok(plan) = compile(Precision::F32) else {
        return;
    };
    let _ = plan.describe();
    // What is emitted is a model again.
    if let Ok(emitted) = rank::optimize(data, &NoExternalData, &[]) {
        let _ = Model::load(&emitted, &NoExternalData);
    }
    run(&plan);
    // Nothing of some models can be in bf16.
    if let Ok(plan) = compile(Precision::Bf16) {
        let _ = plan.describe();
        run(&plan);
    }
}

fn run(plan: &Plan) {
    let mut inputs = Vec::new();
    for input in plan.inputs() {
        let sizes: Option<Vec<usize>> = input.shape.iter().map(|extent| extent.resolve(ROWS)).collect();
        let Some(shape) = sizes else { return };
        let count = shape
            .iter()
            .try_fold(1_usize, |count, size| count.checked_mul(*size));
        let Some(count) = count.filter(|count| *count <= MOST_ELEMENTS) else {
            return;
        };
        inputs.push(match input.element {
            Element::F32 => Tensor::f32(shape, (0..count).map(|at| at as f32 * 0.25 - 1.0).collect()),
            Element::Bool => Tensor::bool(shape, (0..count).map(|at| at % 2 == 0).collect()),
            element => Tensor::int(element, shape, (0..count).map(|at| at as i64 % 3).collect()),
        });
    }
    let cost = plan.cost();
    if cost.request.saturating_add(cost.pair) > MOST_FLOP
        || matches!(plan.rows(), rank::pass::rows::Rows::Listwise(_))
    {
        return;
    }
    let mut outputs = Vec::new();
    let _ = plan.run(&inputs, &[0; ROWS], &mut plan.scratch(), &mut outputs);
}

const MODELS: [&[u8]; 8] = [
    include_bytes!("../rank/tests/corpus/bag-weighted.torchscript-17.onnx"),
    include_bytes!("../rank/tests/corpus/bag-mean.dynamo-20.onnx"),
    include_bytes!("../rank/tests/corpus/din.torchscript-17.onnx"),
    include_bytes!("../rank/tests/corpus/dien.dynamo-20.onnx"),
    include_bytes!("../rank/tests/corpus/lightgbm-regressor.onnx"),
    include_bytes!("../rank/tests/corpus/mmoe.torchscript-17.onnx"),
    include_bytes!("../rank/tests/corpus/deepfm.dynamo-17.onnx"),
    include_bytes!("../rank/tests/corpus/transformer.dynamo-20.onnx"),
];

static DECODED: LazyLock<Vec<ModelProto>> = LazyLock::new(|| {
    let decode = |content: &&[u8]| ModelProto::decode(*content).expect("models of the corpus are whole");
    MODELS.iter().map(decode).collect()
});

/// Numbers that a size, an axis or an index may be.
const NUMBERS: [i64; 16] = [
    0,
    1,
    2,
    3,
    -1,
    -2,
    7,
    16,
    255,
    1 << 16,
    1 << 24,
    1 << 31,
    1 << 40,
    i64::MAX,
    i64::MIN,
    i64::MIN + 1,
];

/// The first byte chooses a model of the corpus; each four bytes after it change one thing in it, so that what is read is a
/// model still, if a wrong one.
pub fn model_edits(data: &[u8]) {
    let Some((first, script)) = data.split_first() else {
        return;
    };
    let mut proto = DECODED[usize::from(*first) % DECODED.len()].clone();
    for [what, place, at, value] in script.as_chunks().0.iter().take(16).copied() {
        edit(&mut proto, what, usize::from(place), usize::from(at), value);
    }
    model(&proto.encode_to_vec());
}

fn nth<T>(items: &mut [T], at: usize) -> Option<&mut T> {
    let count = items.len();
    items.get_mut(at.checked_rem(count)?)
}

fn edit(proto: &mut ModelProto, what: u8, place: usize, at: usize, value: u8) {
    let number = NUMBERS[usize::from(value) % NUMBERS.len()];
    let Some(graph) = &mut proto.graph else { return };
    match what % 10 {
        0 => {
            if let Some(dim) = nth(&mut graph.initializer, place).and_then(|tensor| nth(&mut tensor.dims, at))
            {
                *dim = number;
            }
        }
        1 => edit_input(&mut graph.input, place, at, number),
        // The elements of a tensor of sizes.
        2 => {
            let integers = graph.initializer.iter_mut();
            let mut integers: Vec<_> = integers.filter(|tensor| tensor.data_type == 7).collect();
            if let Some(tensor) = nth(&mut integers, place) {
                set_integer(tensor, at, number);
            }
        }
        // Another operator, or another value as an input.
        3 => {
            let operators: Vec<String> = graph.node.iter().map(|node| node.op_type.clone()).collect();
            let operator = operators
                .get(usize::from(value) % operators.len().max(1))
                .cloned();
            if let Some(node) = nth(&mut graph.node, place) {
                node.op_type = operator.unwrap_or_default();
            }
        }
        4 => {
            let names = graph
                .node
                .iter()
                .flat_map(|node| node.input.iter().chain(&node.output));
            let names: Vec<String> = names.cloned().collect();
            let name = names.get(usize::from(value) % names.len().max(1)).cloned();
            if let Some(input) = nth(&mut graph.node, place).and_then(|node| nth(&mut node.input, at)) {
                *input = name.unwrap_or_default();
            }
        }
        kind => {
            if let Some(node) = nth(&mut graph.node, place) {
                edit_node(node, kind, at, value, number);
            }
        }
    }
}

/// Another size, or one where there was none.
fn edit_input(inputs: &mut [ValueInfoProto], place: usize, at: usize, size: i64) {
    let kind = nth(inputs, place).and_then(|input| input.r#type.as_mut());
    if let Some(type_proto::Value::TensorType(tensor)) = kind.and_then(|kind| kind.value.as_mut())
        && let Some(dim) = tensor.shape.as_mut().and_then(|shape| nth(&mut shape.dim, at))
    {
        dim.value = Some(tensor_shape_proto::dimension::Value::DimValue(size));
    }
}

fn edit_node(node: &mut NodeProto, kind: u8, at: usize, value: u8, number: i64) {
    match kind {
        5 => node.input.truncate(at % 4),
        6 => node.attribute.truncate(at % 4),
        7 => {
            if let Some(attribute) = nth(&mut node.attribute, at) {
                attribute.i = Some(number);
            }
        }
        8 => {
            let ints = nth(&mut node.attribute, at).map(|attribute| &mut attribute.ints);
            if let Some(own) = ints.and_then(|ints| nth(ints, usize::from(value))) {
                *own = number;
            }
        }
        // A constant that is a node.
        _ => {
            let tensor = node
                .attribute
                .iter_mut()
                .find_map(|attribute| attribute.t.as_mut());
            let Some(tensor) = tensor else { return };
            match nth(&mut tensor.dims, at).filter(|_| value.is_multiple_of(2)) {
                Some(dim) => *dim = number,
                None => set_integer(tensor, at, number),
            }
        }
    }
}

fn set_integer(tensor: &mut TensorProto, at: usize, number: i64) {
    let Some(raw) = &tensor.raw_data else { return };
    let mut bytes = raw.to_vec();
    if let Some(chunk) = nth(bytes.as_chunks_mut::<8>().0, at) {
        *chunk = number.to_le_bytes();
    }
    tensor.raw_data = Some(bytes.into());
}
