//! Requests that name items, beside those that send the rows.

use super::*;

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
    assert_eq!(batch.inputs[2], by_hand(&model, &[300, 1], 0).inputs[2]);
    // They come to an engine as they are kept. 300.5 is between 300 and 302.
    assert_eq!(batch.inputs[3].data, Data::U16(vec![0x4396, 0, 0x3fc0, 0]));
    let batch = batch.wide(&model.layout);
    assert_eq!(batch.inputs[3].data, Data::F32(vec![300.0, 0.0, 1.5, 0.0]));
    update(&model, &delta("0", "1", (&[1, 2], 9), &[])).unwrap();
    let batch = by_id(&model, &[2, 1, 300]).unwrap().wide(&model.layout);
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
