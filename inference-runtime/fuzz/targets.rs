//! What is fuzzed. A target takes any bytes, and fails only by a panic. Shared by the fuzzers (`fuzz_targets/`, which need
//! a nightly compiler) and by `cargo test` (`../tests/fuzz.rs`, which runs the corpus and some mutations of it).

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use clap::Parser as _;
use inference_runtime::args::{self, Cli, Command};
use inference_runtime::engine::{
    Chosen, Data, Datatype, Dim, Layout, Outputs, Signature, Tensor, TensorSpec, tensor,
};
use inference_runtime::ids::IdRules;
use inference_runtime::model::ServedModel;
use inference_runtime::model::config::ModelConfig;
use inference_runtime::model::digest::{Manifest, confined};
use inference_runtime::model::top_k::TopK;
use inference_runtime::model::uri::ModelUri;
use inference_runtime::protocol::request::{InferRequest, WantedOutput};
use inference_runtime::protocol::{codec, grpc, pb, request, response};
use inference_runtime::queue::Batching;
use inference_runtime::server::{Serving, route};

#[path = "model_targets.rs"]
mod model_targets;
#[path = "text_target.rs"]
mod text_target;

/// What is run on any bytes, and how much memory it may take.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Bytes of memory for each byte that is given.
    pub factor: u64,
    /// Bytes of memory whatever is given.
    pub allowance: u64,
}

/// For small inputs: the first capacity of vectors, names in messages.
const SMALL: u64 = 64 << 10;
/// The reader of YAML has buffers of its own.
const YAML: u64 = 256 << 10;
/// A graph may make some constants of its own, and a plan has scratch memory.
const MODEL: u64 = 64 << 20;

pub const TARGETS: &[Target] = &[
    // Two bytes of text make an element of 8, in a vector that may have doubled; an empty tensor is larger than its text.
    Target {
        name: "json_request",
        run: json_request,
        factor: 32,
        allowance: SMALL,
    },
    Target {
        name: "binary_request",
        run: binary_request,
        factor: 32,
        allowance: SMALL,
    },
    // An empty tensor has two bytes.
    Target {
        name: "grpc_request",
        run: grpc_request,
        factor: 1024,
        allowance: SMALL,
    },
    // A length of 4 bytes makes an id of 8, beside a copy of the bytes.
    Target {
        name: "text_values",
        run: text_target::text_values,
        factor: 32,
        allowance: SMALL,
    },
    Target {
        name: "answer",
        run: answer,
        factor: 64,
        allowance: SMALL,
    },
    Target {
        name: "config",
        run: config,
        factor: 128,
        allowance: YAML,
    },
    Target {
        name: "manifest",
        run: manifest,
        factor: 64,
        allowance: SMALL,
    },
    Target {
        name: "paths",
        run: paths,
        factor: 64,
        allowance: SMALL,
    },
    // An empty node has two bytes.
    Target {
        name: "model",
        run: model_targets::model,
        factor: 1024,
        allowance: MODEL,
    },
    Target {
        name: "model_edits",
        run: model_targets::model_edits,
        factor: 1024,
        allowance: MODEL,
    },
];

/// Runs the target of that name.
pub fn run(name: &str, data: &[u8]) {
    for target in TARGETS.iter().filter(|target| target.name == name) {
        (target.run)(data);
    }
}

const CONFIG: &str = "{device: cpu, maxBatchSize: 64, requestInputs: [dense, 'sparse[0:2]'], topK: {ids: 'sparse[2]', \
                      score: score}, inputs: {sparse: {vocabularies: [10, 20, 30]}}, outputs: {score: {nonFinite: \
                      dropCandidate}}}";

fn signature() -> Signature {
    let rows = || Dim::Named("rows".to_owned());
    let spec = |name, datatype, width| TensorSpec::new(name, datatype, vec![rows(), Dim::Fixed(width)]);
    Signature {
        inputs: vec![
            spec("dense", Datatype::F32, 2),
            spec("sparse", Datatype::I64, 3),
            spec("flag", Datatype::Bool, 1),
            spec("small", Datatype::U8, 2),
        ],
        outputs: vec![
            spec("score", Datatype::F32, 1),
            spec("heads", Datatype::F64, 2),
            spec("label", Datatype::Bool, 1),
        ],
    }
}

static MODEL_SERVED: LazyLock<ServedModel> = LazyLock::new(|| served(signature(), CONFIG));

fn served(signature: Signature, config: &str) -> ServedModel {
    let config = ModelConfig::parse(config).expect("the configuration above is right");
    let layout = config
        .layout(&signature)
        .expect("the configuration fits the signature");
    let ids = IdRules::new(&config, (&signature, &layout), &[]).expect("ids fit the signature");
    ServedModel {
        name: "m".to_owned(),
        version: "1".to_owned(),
        top_k: TopK::of(&config, &signature, &layout).expect("topK fits the signature"),
        ids: Arc::new(ids),
        signature: Arc::new(signature),
        layout: Arc::new(layout),
        chosen: Arc::new(Chosen::RANK),
        items: None,
        config: Arc::new(config),
        batching: Batching {
            max_rows: 64,
            max_delay: Duration::ZERO,
        },
    }
}

/// An accepted request is what the model takes.
fn check_request(request: &InferRequest) {
    let batch = &request.batch;
    assert!((1..=64).contains(&batch.rows));
    assert_eq!(batch.inputs.len(), MODEL_SERVED.layout.slots.len());
    assert!(batch.lists.is_empty() || batch.lists.iter().sum::<usize>() == batch.rows);
    for (tensor, slot) in batch.inputs.iter().zip(&MODEL_SERVED.layout.slots) {
        assert_eq!(tensor.data.count(), tensor.shape.iter().product::<usize>());
        assert_eq!(tensor.data.datatype(), slot.spec.datatype);
        assert_eq!(tensor.data.first_non_finite(), None);
    }
    if let Some(asked) = &request.top_k {
        assert!((1..=batch.rows).contains(&asked.k));
        assert_eq!(asked.ids.count(), batch.rows);
    }
}

fn json_request(data: &[u8]) {
    match request::parse(data, None, &*MODEL_SERVED) {
        Ok(request) => check_request(&request),
        Err(error) => assert!(error.status.is_client_error() && !error.message.is_empty()),
    }
    let _ = request::parse_outputs(data);
}

/// The first two bytes are `Inference-Header-Content-Length`, the others the body.
fn binary_request(data: &[u8]) {
    let Some((length, body)) = data.split_first_chunk() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length));
    match request::parse(body, Some(length), &*MODEL_SERVED) {
        Ok(request) => check_request(&request),
        Err(error) => assert!(error.status.is_client_error() && !error.message.is_empty()),
    }
}

fn grpc_request(data: &[u8]) {
    let Ok(message) = codec::decode::<pb::ModelInferRequest>(data) else {
        return;
    };
    match grpc::parse(message, &*MODEL_SERVED) {
        Ok(request) => check_request(&request),
        Err(error) => assert!(error.status.is_client_error() && !error.message.is_empty()),
    }
}

/// Outputs made of the bytes are encoded, and decoded to the same. The first byte says which are binary, the second how
/// many rows there are, the third how many bytes of the rest are the request's id.
fn answer(data: &[u8]) {
    let Some(([flags, rows, id], rest)) = data.split_first_chunk::<3>().map(|(head, rest)| (*head, rest))
    else {
        return;
    };
    let (id, mut values) = rest.split_at(usize::from(id).min(rest.len()));
    let id = String::from_utf8_lossy(id);
    let rows = usize::from(rows % 8) + 1;
    let mut tensors = Vec::new();
    for spec in &MODEL_SERVED.signature.outputs {
        let width = spec.protocol_shape()[1].unsigned_abs() as usize;
        let size = rows * width * spec.datatype.size();
        let (own, others) = values.split_at(size.min(values.len()));
        values = others;
        let mut bytes = own.to_vec();
        bytes.resize(size, 0);
        let Some(data) = tensor::from_bytes(spec.datatype, &bytes) else {
            return;
        };
        tensors.push(Tensor {
            shape: vec![rows, width],
            data,
        });
    }
    let outputs = Outputs { tensors };
    let wanted: Vec<WantedOutput> = (0..outputs.tensors.len())
        .map(|index| WantedOutput {
            index,
            binary: flags >> index & 1 == 1,
        })
        .collect();
    let finite = outputs
        .tensors
        .iter()
        .all(|tensor| tensor.data.first_non_finite().is_none());
    let Ok(answer) = response::encode(&MODEL_SERVED, Some(&id), &wanted, &outputs) else {
        assert!(!finite, "finite outputs are answered");
        return;
    };
    assert!(finite, "what is not finite is refused");
    check_answer(&answer, &id, &wanted, &outputs);
    let message =
        grpc::encode(&MODEL_SERVED, Some(id.into_owned()), &wanted, &outputs).expect("HTTP took it");
    for (raw, tensor) in message.raw_output_contents.iter().zip(&outputs.tensors) {
        assert_eq!(
            tensor::from_bytes(tensor.data.datatype(), raw).as_ref(),
            Some(&tensor.data)
        );
    }
}

fn check_answer(answer: &response::Answer, id: &str, wanted: &[WantedOutput], outputs: &Outputs) {
    let (json, mut binary) = answer
        .body
        .split_at(answer.header_length.unwrap_or(answer.body.len()));
    let json: serde_json::Value = serde_json::from_slice(json).expect("an answer is JSON");
    assert_eq!(json["id"], id);
    for (output, told) in wanted.iter().zip(json["outputs"].as_array().expect("outputs")) {
        let tensor = &outputs.tensors[output.index];
        let data = if output.binary {
            let size = told["parameters"]["binary_data_size"].as_u64().expect("a size") as usize;
            let (own, others) = binary.split_at(size);
            binary = others;
            tensor::from_bytes(tensor.data.datatype(), own).expect("whole elements")
        } else {
            let text = told["data"].to_string();
            let read = inference_runtime::protocol::values::parse(
                tensor.data.datatype(),
                &text,
                tensor.data.count(),
            );
            read.expect("as many numbers of the type")
        };
        assert!(same(&data, &tensor.data), "{data:?} for {:?}", tensor.data);
        let shape: Vec<u64> = tensor.shape.iter().map(|size| *size as u64).collect();
        assert_eq!(told["shape"], serde_json::json!(shape));
    }
    assert!(binary.is_empty());
}

/// In all bits: JSON writes the shortest text that is read back to the same number.
fn same(one: &Data, other: &Data) -> bool {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    one.to_bytes(&mut a);
    other.to_bytes(&mut b);
    a == b
}

fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(config) = ModelConfig::parse(text) else {
        return;
    };
    let signature = signature();
    if config.check(&signature).is_err() {
        return;
    }
    let Ok(layout) = config.layout(&signature) else {
        return;
    };
    let _ = TopK::of(&config, &signature, &layout);
    let _ = IdRules::new(&config, (&signature, &layout), &[]);
    let batching = config.batching(&signature);
    assert!((1..=config.max_batch_size).contains(&batching.max_rows));
    let _: Layout = layout;
}

fn manifest(data: &[u8]) {
    let Ok(manifest) = Manifest::parse(data, None) else {
        return;
    };
    for path in manifest.files.keys() {
        let joined = std::path::Path::new("/folder").join(path);
        assert!(joined.starts_with("/folder") && !path.split('/').any(|part| part == ".."));
    }
}

static SERVING: LazyLock<Serving> = LazyLock::new(|| {
    let words = [
        "pinnace-runtime",
        "serve",
        "--model-uri",
        "file:///m",
        "--model-name",
        "m",
    ];
    let Command::Serve(args) = Cli::parse_from(words).command else {
        unreachable!("serve was said")
    };
    Serving::new(&args)
});

fn paths(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    if let Err(error) = route::get(&SERVING, &parts) {
        // No model is loaded.
        assert!(error.status.is_client_error() || error.status.as_u16() == 503);
    }
    let _ = text.parse::<ModelUri>();
    let _ = rank::parse_once(&[text]);
    let _ = args::duration(text);
    if confined(text) {
        assert!(std::path::Path::new("/folder").join(text).starts_with("/folder"));
    }
}
