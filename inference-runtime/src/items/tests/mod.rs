use std::path::Path;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::npy::tests::file;
use super::*;
use crate::engine::{Batch, Chosen};
use crate::failure::{LoadFailure, Reason};
use crate::model::ServedModel;
use crate::model::config::ModelConfig;
use crate::model::digest::Digest;
use crate::model::folder::ModelFolder;
use crate::model::top_k::TopK;
use crate::protocol::{check, metadata};
use crate::queue::Batching;

const CONFIG: &str = "
device: cpu
maxBatchSize: 8
requestInputs: [user, 'sparse[0:1]']
inputs: {sparse: {vocabularies: [5, 100, 100]}}
itemTable: {ids: item, fills: [vector, sparse.item]}
";

fn signature() -> Signature {
    let rows = || Dim::Named("n".into());
    let spec = TensorSpec::new;
    Signature {
        inputs: vec![
            spec("user", Datatype::F32, vec![rows(), Dim::Fixed(1)]),
            spec("sparse", Datatype::I64, vec![rows(), Dim::Fixed(3)]),
            spec("vector", Datatype::F32, vec![rows(), Dim::Fixed(2)]),
            spec("time", Datatype::F32, vec![rows()]),
        ],
        outputs: vec![spec("score", Datatype::F32, vec![rows()])],
    }
}

fn vectors(ids: &[i64], state: i64) -> Vec<f32> {
    ids.iter()
        .flat_map(|id| [*id as f32 + 0.5, state as f32])
        .collect()
}

fn sparse(ids: &[i64], state: i64) -> Vec<i64> {
    ids.iter().flat_map(|id| [id % 100, state]).collect()
}

fn tensor(shape: &[usize], data: Data) -> Tensor {
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

fn bytes(data: Data) -> Vec<u8> {
    let mut bytes = Vec::new();
    data.to_bytes(&mut bytes);
    bytes
}

fn write(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn write_items(folder: &Path, ids: &[i64]) {
    let count = ids.len();
    let array = |descr, shape: String, data| file(descr, "False", &shape, &bytes(data));
    write(
        folder,
        "items/item.npy",
        &array("<i8", format!("({count},)"), Data::I64(ids.to_vec())),
    );
    let vectors = array("<f4", format!("({count}, 2)"), Data::F32(vectors(ids, 0)));
    write(folder, "items/vector.npy", &vectors);
    let sparse = array("<i8", format!("({count}, 2)"), Data::I64(sparse(ids, 0)));
    write(folder, "items/sparse.item.npy", &sparse);
}

fn load(folder: &Path, config: &str) -> Result<ServedModel, LoadFailure> {
    let config = ModelConfig::parse(config)?;
    let layout = config.layout(&signature())?;
    let folder = ModelFolder {
        path: folder.to_owned(),
        digest: Digest::of(b""),
    };
    let ids = Arc::new(IdRules::new(&config, (&signature(), &layout), &[])?);
    Ok(ServedModel {
        name: "m".into(),
        version: "1".into(),
        top_k: TopK::of(&config, &signature(), &layout)?,
        items: ItemTable::load(&config, (&signature(), &layout), &ids, &folder)?,
        ids,
        signature: Arc::new(signature()),
        layout: Arc::new(layout),
        chosen: Arc::new(Chosen::RANK),
        config: Arc::new(config),
        batching: Batching::NONE,
    })
}

pub fn served(ids: &[i64], more: &str) -> (tempfile::TempDir, ServedModel) {
    let folder = tempfile::tempdir().unwrap();
    write_items(folder.path(), ids);
    let model = load(folder.path(), &format!("{CONFIG}{more}")).unwrap();
    (folder, model)
}

/// A delta's body: these items in that state.
fn delta(base: &str, target: &str, (ids, state): (&[i64], i64), removed: &[i64]) -> Vec<u8> {
    let count = ids.len();
    let parts = [
        ("item", "INT64", vec![count], bytes(Data::I64(ids.to_vec()))),
        (
            "vector",
            "FP32",
            vec![count, 2],
            bytes(Data::F32(vectors(ids, state))),
        ),
        (
            "sparse.item",
            "INT64",
            vec![count, 2],
            bytes(Data::I64(sparse(ids, state))),
        ),
    ];
    let inputs: Vec<serde_json::Value> = parts
        .iter()
        .map(|(name, datatype, shape, bytes)| {
            let parameters = serde_json::json!({"binary_data_size": bytes.len()});
            serde_json::json!({"name": name, "datatype": datatype, "shape": shape, "parameters": parameters})
        })
        .collect();
    let head = serde_json::json!({"base": base, "target": target, "inputs": inputs, "removed": removed});
    let mut body = head.to_string().into_bytes();
    body.extend(parts.iter().flat_map(|(.., bytes)| bytes));
    body
}

fn update(model: &ServedModel, body: &[u8]) -> Result<Updated, ApiError> {
    let table = model.items.as_ref().unwrap();
    table.update(&model.config, body, &Digest::of(body))
}

pub fn own(rows: usize) -> Vec<(String, Tensor)> {
    let time = (0..rows).map(|row| row as f32).collect();
    vec![
        ("user".into(), tensor(&[1, 1], Data::F32(vec![0.25]))),
        ("time".into(), tensor(&[rows], Data::F32(time))),
        ("sparse.user".into(), tensor(&[1, 1], Data::I64(vec![3]))),
    ]
}

fn by_id(model: &ServedModel, ids: &[i64]) -> Result<Batch, ApiError> {
    let mut given = own(ids.len());
    given.push(("item".into(), tensor(&[ids.len()], Data::I64(ids.to_vec()))));
    check::batch(given, model, None).map(|(batch, _)| batch)
}

fn by_hand(model: &ServedModel, ids: &[i64], state: i64) -> Batch {
    let rows = ids.len();
    let mut given = own(rows);
    given.push((
        "vector".into(),
        tensor(&[rows, 2], Data::F32(vectors(ids, state))),
    ));
    given.push((
        "sparse.item".into(),
        tensor(&[rows, 2], Data::I64(sparse(ids, state))),
    ));
    check::batch(given, model, None).unwrap().0
}

mod configuration;
mod deltas;
mod requests;
