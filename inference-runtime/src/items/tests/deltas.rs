//! Rows that change while the table is read.

use super::*;

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
