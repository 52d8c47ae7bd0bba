//! What is wrong in config.yaml and in the files of a table.

use super::*;

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
