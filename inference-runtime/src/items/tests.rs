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
    Ok(ServedModel {
        name: "m".into(),
        version: "1".into(),
        top_k: TopK::of(&config, &signature(), &layout)?,
        items: ItemTable::load(&config, (&signature(), &layout), &folder)?,
        signature: Arc::new(signature()),
        layout: Arc::new(layout),
        chosen: Arc::new(Chosen::RANK),
        config: Arc::new(config),
        batching: Batching::NONE,
    })
}

fn served(ids: &[i64], more: &str) -> (tempfile::TempDir, ServedModel) {
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

fn own(rows: usize) -> Vec<(String, Tensor)> {
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

#[test]
fn what_is_wrong_in_the_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    write_items(folder.path(), &[1, 2]);
    let long = "itemTable: {ids: item, fills: [vector, sparse.item]}";
    for (written, named) in [
        (
            "itemTable: {ids: user, fills: [vector]}",
            "itemTable.ids: the model has an input \"user\"",
        ),
        ("itemTable: {ids: item, fills: []}", "itemTable.fills is empty"),
        (
            "itemTable: {ids: item, fills: [vector, vector]}",
            "\"vector\" is there twice",
        ),
        (
            "itemTable: {ids: item, fills: [vectors]}",
            "itemTable.fills: no input \"vectors\"; there are user, sparse.user",
        ),
        (
            "itemTable: {ids: item, fills: ['sparse[1:3]']}",
            "filled as NAME.item",
        ),
        (
            "itemTable: {ids: item, fills: [user]}",
            "\"user\" comes once a request",
        ),
        (
            "itemTable: {ids: item, fills: [vector], revision: ''}",
            "itemTable.revision is empty",
        ),
        (
            "itemTable: {ids: item, fills: [vector], defaultId: 3}",
            "itemTable.defaultId: 3 is not in items/item.npy",
        ),
        (
            "itemTable: {ids: item, fills: [vector], missing: refuse}",
            "missing",
        ),
    ] {
        let failure = load(folder.path(), &CONFIG.replace(long, written)).unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid, "{failure}");
        assert!(failure.message.contains(named), "{written}: {}", failure.message);
    }
}

#[test]
fn what_is_wrong_in_the_files_is_named() {
    let array = |descr, shape, data| file(descr, "False", shape, &bytes(data));
    for (name, content, named) in [
        (
            "item",
            array("<i8", "(2,)", Data::I64(vec![7, 7])),
            "items/item.npy: row 1 has id 7 again",
        ),
        (
            "item",
            array("<i4", "(2,)", Data::I32(vec![7, 8])),
            "items/item.npy: is INT32",
        ),
        (
            "vector",
            array("<f8", "(2, 2)", Data::F64(vec![0.0; 4])),
            "items/vector.npy: is FP64, the model takes FP32",
        ),
        (
            "vector",
            array("<f4", "(2, 3)", Data::F32(vec![0.0; 6])),
            "items/vector.npy: has shape [2, 3]",
        ),
        (
            "vector",
            array("<f4", "(1, 2)", Data::F32(vec![0.0; 2])),
            "there are 2 ids",
        ),
        (
            "vector",
            array("<f4", "(2, 2)", Data::F32(vec![0.0, 0.0, 0.0, f32::NAN])),
            "items/vector.npy: row 1 (id 2): input \"vector\" has NaN",
        ),
        (
            "sparse.item",
            array("<i8", "(2, 2)", Data::I64(vec![0, 0, 100, 0])),
            "items/sparse.item.npy: row 1 (id 2): input \"sparse.item\" has id 100",
        ),
        (
            "sparse.item",
            b"PK".to_vec(),
            "items/sparse.item.npy: is not an .npy file",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_items(folder.path(), &[1, 2]);
        write(folder.path(), &format!("items/{name}.npy"), &content);
        let failure = load(folder.path(), CONFIG).unwrap_err();
        assert_eq!(failure.reason, Reason::ModelInvalid);
        assert!(failure.message.contains(named), "{named}: {}", failure.message);
    }
    let folder = tempfile::tempdir().unwrap();
    let failure = load(folder.path(), CONFIG).unwrap_err();
    assert!(failure.message.starts_with("items/item.npy: "), "{failure}");
}

proptest! {
    /// Naming items is the same as sending their rows, in every bit; before and after a delta.
    #[test]
    fn ids_are_rows(ids in prop::collection::vec(-9..9_i64, 1..9)) {
        let all: Vec<i64> = (-9..9).collect();
        let positive: Vec<i64> = all.iter().map(|id| id + 9).collect();
        let ids: Vec<i64> = ids.iter().map(|id| id + 9).collect();
        let (_folder, model) = served(&positive, "");
        for state in [0, 7] {
            if state > 0 {
                update(&model, &delta("0", "7", (&positive, state), &[])).unwrap();
            }
            let (one, other) = (by_id(&model, &ids).unwrap(), by_hand(&model, &ids, state));
            prop_assert_eq!((one.rows, &one.lists), (other.rows, &other.lists));
            prop_assert_eq!(one.inputs.len(), other.inputs.len());
            for (a, b) in one.inputs.into_iter().zip(other.inputs) {
                prop_assert_eq!(&a.shape, &b.shape);
                prop_assert_eq!(bytes(a.data), bytes(b.data));
            }
        }
    }
}

#[test]
fn requests_that_do_not_fit_are_refused() {
    let (_folder, model) = served(&[1, 2], "");
    let error = by_id(&model, &[1, 5]).unwrap_err();
    assert!(error.message.contains(
        "\"item\" has id 5 at element 1, which is not in the item table (revision \"0\", 2 items)"
    ));
    assert_eq!(model.items.as_ref().unwrap().unknown(), 1);
    assert!(
        by_id(&model, &[1; 9])
            .unwrap_err()
            .message
            .contains("at most 8 are taken")
    );
    let refused = |given: Vec<(&str, Tensor)>, rows: usize| {
        let given = given.into_iter().map(|(name, tensor)| (name.to_owned(), tensor));
        let given = own(rows).into_iter().chain(given).collect();
        check::batch(given, &model, None).unwrap_err().message
    };
    let ids = |ids: &[i64]| ("item", tensor(&[ids.len()], Data::I64(ids.to_vec())));
    let vector = || ("vector", tensor(&[1, 2], Data::F32(vec![0.0; 2])));
    let whole = ("sparse", tensor(&[1, 3], Data::I64(vec![0; 3])));
    for (message, named) in [
        (refused(vec![], 1), "\"sparse.item\" is missing"),
        (refused(vec![], 1), "or the items' ids as \"item\""),
        (
            refused(vec![vector(), ids(&[1])], 1),
            "the item table has \"vector\", which the request sends too",
        ),
        (
            refused(vec![whole, ids(&[1])], 1),
            "the item table has \"sparse.item\"",
        ),
        (refused(vec![ids(&[1]), ids(&[1])], 1), "\"item\" is there twice"),
        (refused(vec![ids(&[])], 1), "at least one"),
        (
            refused(vec![("item", tensor(&[1, 1], Data::I64(vec![1])))], 1),
            "INT64 of shape [1, 1]",
        ),
        (
            refused(vec![("item", tensor(&[1], Data::I32(vec![1])))], 1),
            "is INT32",
        ),
        (refused(vec![ids(&[1, 2])], 1), "\"time\""),
    ] {
        assert!(message.contains(named), "{named}: {message}");
    }
}

#[test]
fn an_item_may_stand_in_for_unknown_ones() {
    let table = "itemTable: {ids: item, fills: [vector, sparse.item]";
    let folder = tempfile::tempdir().unwrap();
    write_items(folder.path(), &[1, 2]);
    let model = load(
        folder.path(),
        &CONFIG.replace(table, &format!("{table}, defaultId: 2")),
    )
    .unwrap();
    let batch = by_id(&model, &[5, 1, 6]).unwrap();
    assert_eq!(batch, by_hand(&model, &[2, 1, 2], 0));
    assert_eq!(model.items.as_ref().unwrap().unknown(), 2);
    let error = update(&model, &delta("0", "1", (&[], 0), &[2])).unwrap_err();
    assert!(error.message.contains("itemTable.defaultId"), "{error}");
}

#[test]
fn rows_may_be_kept_in_half_the_memory() {
    let table = "itemTable: {ids: item, fills: [vector, sparse.item]";
    let half = |config: &str| config.replace(table, &format!("{table}, precision: bf16"));
    let folder = tempfile::tempdir().unwrap();
    write_items(folder.path(), &[1, 300]);
    let model = load(folder.path(), &half(CONFIG)).unwrap();
    let batch = by_id(&model, &[300, 1]).unwrap();
    // 300.5 is between 300 and 302.
    assert_eq!(batch.inputs[3].data, Data::F32(vec![300.0, 0.0, 1.5, 0.0]));
    assert_eq!(batch.inputs[2], by_hand(&model, &[300, 1], 0).inputs[2]);
    update(&model, &delta("0", "1", (&[1, 2], 9), &[])).unwrap();
    let batch = by_id(&model, &[2, 1, 300]).unwrap();
    assert_eq!(
        batch.inputs[3].data,
        Data::F32(vec![2.5, 9.0, 1.5, 9.0, 300.0, 0.0])
    );
    let beyond = file(
        "<f4",
        "False",
        "(2, 2)",
        &bytes(Data::F32(vec![0.0, 0.0, f32::MAX, 0.0])),
    );
    write(folder.path(), "items/vector.npy", &beyond);
    let failure = load(folder.path(), &half(CONFIG)).unwrap_err();
    assert!(
        failure
            .message
            .contains("items/vector.npy: row 1 (id 300): 3402823"),
        "{failure}"
    );
    let ids = half(&CONFIG.replace("vector, ", "")).replace("fills: [", "precision: bf16, fills: [");
    let failure = load(folder.path(), &ids).unwrap_err();
    assert!(
        failure.message.contains("itemTable.precision: bf16 is for FP32"),
        "{failure}"
    );
}

#[test]
fn metadata_has_what_clients_send() {
    let (_folder, model) = served(&[1], "");
    let metadata = metadata::model(&model, &[]);
    let inputs: Vec<(&str, &[i64])> = metadata
        .inputs
        .iter()
        .map(|input| (input.name.as_str(), &input.shape[..]))
        .collect();
    let expected: [(&str, &[i64]); 4] = [
        ("user", &[-1, 1]),
        ("sparse.user", &[-1, 1]),
        ("time", &[-1]),
        ("item", &[-1]),
    ];
    assert_eq!(inputs, expected);
    let parameters = metadata::config(&model).parameters;
    assert_eq!(parameters["item_table"].string_value, "item: vector sparse.item");
}

#[test]
fn the_best_are_told_by_their_ids() {
    let (_folder, model) = served(&[1, 2, 3], "topK: {ids: item}");
    let mut given = own(2);
    given.push(("item".into(), tensor(&[2], Data::I64(vec![3, 1]))));
    let (_, asked) = check::batch(given, &model, Some(1)).unwrap();
    assert_eq!(asked.unwrap().ids, Data::I64(vec![3, 1]));
    let mut given = own(1);
    given.push(("vector".into(), tensor(&[1, 2], Data::F32(vec![0.0; 2]))));
    given.push(("sparse.item".into(), tensor(&[1, 2], Data::I64(vec![0; 2]))));
    assert!(check::batch(given.clone(), &model, None).is_ok());
    let error = check::batch(given, &model, Some(1)).unwrap_err();
    assert!(error.message.contains("send the input \"item\""), "{error}");
}

#[test]
fn deltas_are_taken_once_in_their_order_and_whole() {
    let (_folder, model) = served(&[1, 2, 3], "");
    let table = model.items.as_ref().unwrap();
    let first = delta("0", "1", (&[2, 9], 4), &[3]);
    let done = |changed| Updated {
        revision: "1".into(),
        items: 3,
        changed,
    };
    assert_eq!(update(&model, &first), Ok(done(true)));
    assert_eq!(update(&model, &first), Ok(done(false)));
    for (body, status, named) in [
        (delta("0", "1", (&[2], 5), &[]), 409, "made by another delta"),
        (
            delta("0", "2", (&[2], 5), &[]),
            409,
            "base is \"0\", the table is at revision \"1\"",
        ),
        (delta("1", "1", (&[2], 5), &[]), 400, "target is \"1\""),
        (
            delta("1", "2", (&[2], 5), &[3]),
            400,
            "removed has id 3, which is not in the table",
        ),
        (
            delta("1", "2", (&[2], 5), &[2]),
            400,
            "removed has id 2, which is there twice or also",
        ),
        (delta("1", "2", (&[2, 2], 5), &[]), 400, "row 1 has id 2 again"),
        (
            delta("1", "2", (&[1, 2], 100), &[]),
            400,
            "row 0 (id 1): input \"sparse.item\" has id 100",
        ),
        (
            b"{\"base\": \"1\", \"target\": \"2\", \"inputs\": [], \"adds\": 1}".to_vec(),
            400,
            "adds",
        ),
        (b"".to_vec(), 400, "it is empty"),
        (delta("1", "2", (&[2], 5), &[])[..40].to_vec(), 400, "not a delta"),
        (
            [delta("1", "2", (&[2], 5), &[]), vec![0]].concat(),
            400,
            "bytes are left",
        ),
    ] {
        let error = update(&model, &body).unwrap_err();
        assert!(error.message.contains(named), "{named}: {error}");
        assert_eq!(error.status.as_u16(), status);
        assert_eq!(table.status(), done(false));
        assert_eq!(by_id(&model, &[1]).unwrap(), by_hand(&model, &[1], 0));
        assert_eq!(by_id(&model, &[2, 9]).unwrap(), by_hand(&model, &[2, 9], 4));
    }
    assert!(by_id(&model, &[3]).is_err());
    let only = b"{\"base\": \"1\", \"target\": \"2\", \"removed\": [1]}";
    assert_eq!(update(&model, only).unwrap().items, 2);
    assert!(by_id(&model, &[1]).is_err());
}

#[test]
fn deltas_of_the_folder_are_applied_in_order() {
    let folder = tempfile::tempdir().unwrap();
    write_items(folder.path(), &[1, 2, 3]);
    write(folder.path(), "deltas/0001", &delta("0", "a", (&[1, 2], 1), &[]));
    write(folder.path(), "deltas/0002", &delta("a", "b", (&[2], 2), &[3]));
    let model = load(folder.path(), CONFIG).unwrap();
    assert_eq!(model.items.as_ref().unwrap().status().revision, "b");
    assert_eq!(by_id(&model, &[1]).unwrap(), by_hand(&model, &[1], 1));
    assert_eq!(by_id(&model, &[2]).unwrap(), by_hand(&model, &[2], 2));
    write(folder.path(), "deltas/0003", &delta("a", "c", (&[2], 2), &[]));
    let failure = load(folder.path(), CONFIG).unwrap_err();
    assert!(
        failure.message.starts_with("deltas/0003: base is \"a\""),
        "{failure}"
    );
}

/// While deltas come, the rows of a request are all of one state.
#[test]
fn requests_see_one_state() {
    let ids: Vec<i64> = (0..8).collect();
    let (_folder, model) = served(&ids, "");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut last, mut seen) = (0.0, 0);
                    while !done.load(Ordering::Relaxed) || seen == 0 {
                        let batch = by_id(&model, &ids).unwrap();
                        let Data::F32(rows) = &batch.inputs[3].data else {
                            panic!("{batch:?}");
                        };
                        let state = rows[1];
                        assert!(rows.chunks(2).all(|row| row[1] == state));
                        assert!(state >= last);
                        (last, seen) = (state, seen + 1);
                    }
                })
            })
            .collect();
        for state in 1..99 {
            let (base, target) = ((state - 1).to_string(), state.to_string());
            update(&model, &delta(&base, &target, (&ids, state), &[])).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
