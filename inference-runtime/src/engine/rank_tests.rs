use std::path::PathBuf;

use prost::Message as _;
use rank::onnx::proto::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto,
    tensor_shape_proto, type_proto,
};

use super::*;
use crate::engine::choice;
use crate::engine::layout::Sent;
use crate::engine::merge;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("rank/tests/corpus/{name}.onnx"))
}

/// The inputs of a model's committed answers, in its order.
fn inputs(name: &str, signature: &Signature) -> Vec<Tensor> {
    let text = std::fs::read(corpus(name).with_extension("json")).unwrap();
    let mut answers: serde_json::Value = serde_json::from_slice(&text).unwrap();
    answers["outputs"] = answers["inputs"].take();
    let text = serde_json::to_vec(&answers).unwrap();
    let named = crate::protocol::request::parse_outputs(&text).unwrap();
    let of = |spec: &TensorSpec| named.iter().find(|(own, _)| *own == spec.name).unwrap().1.clone();
    signature.inputs.iter().map(of).collect()
}

fn config(text: &str) -> ModelConfig {
    ModelConfig::parse(&format!("device: cpu\n{text}")).unwrap()
}

struct Case {
    layout: Layout,
    engine: Box<dyn Engine>,
    inputs: Vec<Tensor>,
}

impl Case {
    fn open(name: &str, once: &str) -> Self {
        let config = config(&format!("requestInputs: [{once}]"));
        let mut loader = RankLoader::open(&corpus(name), &config).unwrap().unwrap();
        let layout = config.layout(loader.signature()).unwrap();
        Self {
            engine: loader.engine(&layout).unwrap(),
            inputs: inputs(name, loader.signature()),
            layout,
        }
    }

    /// The given rows, all with the user of the first of them.
    fn sent(&self, rows: &[usize]) -> Vec<Tensor> {
        let whole = self.inputs.iter().map(|tensor| {
            let width: usize = tensor.shape[1..].iter().product();
            let mut shape = tensor.shape.clone();
            shape[0] = rows.len();
            Tensor {
                shape,
                data: tensor.data.cut(width, rows, std::slice::from_ref(&(0..width))),
            }
        });
        let sent = whole.map(Sent::Whole).collect();
        let mut batch = self.layout.batch(sent, rows.len());
        for (slot, tensor) in self.layout.slots.iter().zip(&mut batch.inputs) {
            if slot.once {
                let width = tensor.data.count() / tensor.shape[0];
                tensor.data = tensor.data.copy_range(0..width).unwrap();
                tensor.shape[0] = 1;
            }
        }
        batch.lists = vec![rows.len()];
        self.layout.repeated(batch)
    }

    fn run(&mut self, batch: Batch) -> Vec<Vec<u32>> {
        let mut outputs = Outputs::default();
        self.engine.run(batch, &mut outputs).unwrap();
        bits(&outputs)
    }
}

fn bits(outputs: &Outputs) -> Vec<Vec<u32>> {
    let of = |tensor: &Tensor| match &tensor.data {
        Data::F32(values) => values.iter().map(|value| value.to_bits()).collect(),
        other => panic!("{other:?}"),
    };
    outputs.tensors.iter().map(of).collect()
}

const MODELS: [(&str, &str); 4] = [
    ("dlrm.dynamo-20", "dense, 'sparse[0:20]'"),
    ("two-tower.torchscript-17", "dense, user"),
    ("deepfm.dynamo-17", "'sparse[3:20]'"),
    ("din.torchscript-20", "history"),
];

fn whole(tensors: &[Tensor]) -> Vec<Sent> {
    tensors.iter().cloned().map(Sent::Whole).collect()
}

/// The same with a list of its own for each pair, so that nothing is shared.
fn unshared(case: &Case, batch: &Batch) -> Batch {
    let segments = batch.segments();
    let mut unshared = batch.clone();
    for (slot, tensor) in case.layout.slots.iter().zip(&mut unshared.inputs) {
        if slot.once {
            let width = tensor.data.count() / tensor.shape[0];
            tensor.data = tensor
                .data
                .cut(width, &segments, std::slice::from_ref(&(0..width)));
            tensor.shape[0] = segments.len();
        }
    }
    unshared.lists = vec![1; batch.rows];
    unshared
}

/// Once or repeated, alone or in a batch with others: the same bits.
#[test]
fn a_user_sent_once_gets_the_same_bits() {
    for (name, once) in MODELS {
        let mut case = Case::open(name, once);
        let mut batches = Vec::new();
        let mut expected: Vec<Vec<u32>> = Vec::new();
        for rows in [vec![0, 1, 2], vec![3], vec![2, 2, 1, 0]] {
            let batch = case.layout.batch(whole(&case.sent(&rows)), rows.len());
            assert_eq!(batch.lists, [rows.len()], "{name}");
            let bits = case.run(unshared(&case, &batch));
            assert_eq!(case.run(batch.clone()), bits, "{name} {rows:?}");
            expected.resize(bits.len(), Vec::new());
            expected
                .iter_mut()
                .zip(bits)
                .for_each(|(all, own)| all.extend(own));
            batches.push(batch);
        }
        let joined = merge::join(&batches.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((joined.rows, &joined.lists), (8, &vec![3, 1, 4]));
        assert_eq!(case.run(joined), expected, "{name}");
    }
}

/// Neighbours that have nothing in common run as plain V2 says.
#[test]
fn different_users_in_one_body_get_the_bits_that_each_gets_alone() {
    for (name, once) in MODELS {
        let mut case = Case::open(name, once);
        let rows = case.inputs[0].shape[0];
        let batch = case.layout.batch(whole(&case.inputs), rows);
        assert!(batch.lists.len() > 1, "{name}");
        let mut alone: Vec<Vec<u32>> = Vec::new();
        for row in 0..rows {
            let bits = case.run(case.layout.batch(whole(&case.sent(&[row])), 1));
            alone.resize(bits.len(), Vec::new());
            alone.iter_mut().zip(bits).for_each(|(all, own)| all.extend(own));
        }
        assert_eq!(case.run(batch), alone, "{name}");
    }
}

/// Where the user's columns stand first in every product, the declaration itself changes no bit either.
#[test]
fn a_declaration_of_leading_columns_changes_no_bit() {
    let (name, once) = MODELS[0];
    let (mut declared, mut plain) = (Case::open(name, once), Case::open(name, ""));
    let rows = declared.inputs[0].shape[0];
    let batches = [&declared, &plain].map(|case| case.layout.batch(whole(&case.inputs), rows));
    let [one, other] = batches;
    assert_eq!(declared.run(one), plain.run(other));
}

#[test]
fn an_id_outside_of_its_table_is_the_clients_mistake() {
    let mut case = Case::open("dlrm.dynamo-20", "");
    let sparse = case.inputs.iter_mut().find_map(|tensor| match &mut tensor.data {
        Data::I64(ids) => Some(ids),
        _ => None,
    });
    sparse.unwrap()[3] = 1 << 40;
    let rows = case.inputs[0].shape[0];
    let batch = case
        .layout
        .batch(case.inputs.iter().cloned().map(Sent::Whole).collect(), rows);
    match case.engine.run(batch, &mut Outputs::default()) {
        Err(RunError::Refused(message)) => assert!(message.contains("is outside of a table"), "{message}"),
        other => panic!("{other:?}"),
    }
}

/// A graph of one node over `x` of a type and shape.
fn one_node(operator: &str, element: i32, columns: Option<i64>) -> tempfile::TempDir {
    use tensor_shape_proto::dimension::Value;
    let dim = |value| tensor_shape_proto::Dimension { value: Some(value) };
    let columns = columns.map_or(Value::DimParam("k".into()), Value::DimValue);
    let shape = TensorShapeProto {
        dim: vec![dim(Value::DimParam("n".into())), dim(columns)],
    };
    let tensor = type_proto::Tensor {
        elem_type: element,
        shape: Some(shape),
    };
    let value = |name: &str| ValueInfoProto {
        name: name.into(),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor.clone())),
        }),
    };
    let node = NodeProto {
        name: "the node".into(),
        op_type: operator.into(),
        input: vec!["x".into()],
        output: vec!["y".into()],
        ..Default::default()
    };
    let model = ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 17,
            ..Default::default()
        }],
        graph: Some(GraphProto {
            node: vec![node],
            name: "one".into(),
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        }),
        ..Default::default()
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.onnx"), model.encode_to_vec()).unwrap();
    folder
}

#[test]
fn a_graph_outside_of_the_set_says_which_node() {
    const FLOAT: i32 = 1;
    const DOUBLE: i32 = 11;
    for (operator, element, columns, named) in [
        ("StringNormalizer", FLOAT, Some(2), "StringNormalizer"),
        ("Relu", DOUBLE, Some(2), "DOUBLE"),
        ("Relu", FLOAT, None, "axis 1 has no fixed size"),
    ] {
        let folder = one_node(operator, element, columns);
        let opened = RankLoader::open(&folder.path().join("model.onnx"), &config("")).unwrap();
        let not = opened.map(|_| ()).unwrap_err();
        assert_eq!(not.class, Fallback::Operators);
        assert!(not.reason.contains(named), "{}", not.reason);
        let wanted = choice::open(&folder.path().join("model.onnx"), &config("engine: rank"));
        let failure = wanted.map(|_| ()).unwrap_err();
        assert_eq!(failure.reason, Reason::ModelInvalid);
        assert!(failure.message.contains(named) && failure.message.contains("engine: auto"));
    }
}

#[test]
fn a_model_without_kernels_is_rank_s_only_if_it_says_so() {
    let folder = one_node("IsNaN", 1, Some(2));
    let model = folder.path().join("model.onnx");
    let not = choice::try_rank(&model, &config(""))
        .unwrap()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(not.class, Fallback::Slow);
    assert!(
        not.reason.contains("100 %") && not.reason.contains("the node"),
        "{}",
        not.reason
    );
    let opened = choice::open(&model, &config("engine: rank")).unwrap();
    assert_eq!(opened.chosen, choice::Chosen::RANK);
}

#[test]
fn a_model_of_our_operators_needs_no_onnx_runtime() {
    let folder = one_node("Relu", 1, Some(2));
    let model = folder.path().join("model.onnx");
    for text in ["", "engine: rank"] {
        let opened = choice::open(&model, &config(text)).unwrap();
        assert_eq!(opened.chosen, choice::Chosen::RANK);
        assert!(opened.loader.signature().batched());
    }
    let mut gpu = config("engine: rank");
    gpu.device = crate::model::config::Device::Gpu;
    let failure = choice::open(&model, &gpu).map(|_| ()).unwrap_err();
    assert_eq!(failure.reason, Reason::ConfigInvalid);
    let failure = choice::open(&model, &config("requestInputs: ['x[0:3]']"))
        .map(|_| ())
        .unwrap_err();
    assert_eq!(failure.reason, Reason::ConfigInvalid);
    assert!(failure.message.contains("x[0:3]"), "{}", failure.message);
}

#[test]
fn bf16_is_for_this_engine_alone() {
    let folder = one_node("Relu", 1, Some(2));
    let nothing = folder.path().join("model.onnx");
    let products = corpus("dlrm.dynamo-20");
    let opened = choice::open(&products, &config("precision: bf16")).unwrap();
    assert_eq!(opened.chosen, choice::Chosen::RANK);
    let mut gpu = config("precision: bf16");
    gpu.device = crate::model::config::Device::Gpu;
    for (model, config, named) in [
        (
            &products,
            config("precision: bf16\nengine: onnxruntime"),
            "engine: onnxruntime",
        ),
        (&products, gpu, "the device is gpu"),
        (
            &nothing,
            config("precision: bf16"),
            "nothing in it can be in bf16",
        ),
        (
            &nothing,
            config("precision: bf16\nengine: rank"),
            "nothing in it can be in bf16",
        ),
        (
            &corpus("in-batch-softmax.dynamo-20"),
            config("precision: bf16"),
            "a listwise model has no plan in bf16",
        ),
    ] {
        let failure = choice::open(model, &config).map(|_| ()).unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid);
        let message = &failure.message;
        assert!(
            message.contains("precision: bf16") && message.contains(named),
            "{message}"
        );
        assert!(message.ends_with("say precision: f32"), "{message}");
    }
}

#[test]
fn parts_of_a_run_have_its_bits_and_its_errors() {
    for (name, once) in MODELS {
        let mut case = Case::open(name, once);
        let rows: Vec<usize> = (0..130).map(|row| row % 5).collect();
        let batch = case.layout.batch(whole(&case.sent(&rows)), rows.len());
        let expected = case.run(batch.clone());
        let divisible = case.engine.divisible().unwrap();
        assert!(divisible.least() >= 12);
        let begun = divisible.begin(batch).unwrap();
        let part = |pairs: Range<usize>| {
            let mut outputs = Outputs::default();
            begun.part(pairs, &mut outputs).unwrap();
            outputs
        };
        let parts: Vec<Outputs> = std::thread::scope(|scope| {
            let threads: Vec<_> = [0..1, 1..96, 96..130]
                .map(|pairs| scope.spawn(|| part(pairs)))
                .into_iter()
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let joined = merge::concat(parts).unwrap();
        assert_eq!(bits(&joined), expected, "{name}");
    }
}

#[test]
fn an_id_outside_of_its_table_is_refused_in_its_part_alone() {
    let mut case = Case::open("dlrm.dynamo-20", "");
    let mut batch = case.layout.batch(whole(&case.sent(&[0, 1, 2, 3])), 4);
    let ids = batch.inputs.iter_mut().find_map(|input| match &mut input.data {
        Data::I64(ids) => Some(ids),
        _ => None,
    });
    *ids.unwrap().last_mut().unwrap() = i64::MAX;
    let whole = case
        .engine
        .run(batch.clone(), &mut Outputs::default())
        .unwrap_err();
    let begun = case.engine.divisible().unwrap().begin(batch).unwrap();
    let part = |pairs| begun.part(pairs, &mut Outputs::default());
    assert!(part(0..2).is_ok());
    assert_eq!(part(2..4).unwrap_err().to_string(), whole.to_string());
    assert!(matches!(whole, RunError::Refused(_)));
}
