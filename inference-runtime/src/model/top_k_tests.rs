use super::*;

fn signature() -> Signature {
    let rows = || Dim::Named("n".into());
    let spec = TensorSpec::new;
    Signature {
        inputs: vec![
            spec("dense", Datatype::F32, vec![rows(), Dim::Fixed(2)]),
            spec("sparse", Datatype::I64, vec![rows(), Dim::Fixed(4)]),
            spec("item", Datatype::I64, vec![rows()]),
        ],
        outputs: vec![
            spec("click", Datatype::F32, vec![rows(), Dim::Fixed(1)]),
            spec("heads", Datatype::F32, vec![rows(), Dim::Fixed(2)]),
        ],
    }
}

fn top_k(text: &str) -> Result<TopK, LoadFailure> {
    let config = ModelConfig::parse(text).unwrap();
    let layout = config.layout(&signature()).unwrap();
    TopK::of(&config, &signature(), &layout).map(Option::unwrap)
}

#[test]
fn what_is_wrong_is_named() {
    for (text, named) in [
        (
            "topK: {ids: items, score: click}",
            "topK.ids: the model has no input \"items\"",
        ),
        (
            "topK: {ids: dense, score: click}",
            "topK.ids: input \"dense\" is FP32",
        ),
        (
            "topK: {ids: sparse, score: click}",
            "name one of its columns, as sparse[0]",
        ),
        (
            "topK: {ids: 'sparse[4]', score: click}",
            "name one of its columns",
        ),
        ("topK: {ids: 'sparse[x]', score: click}", "NAME[COLUMN]"),
        (
            "topK: {ids: item}",
            "topK.score: name the output that ranks: one of click, heads",
        ),
        (
            "topK: {ids: item, score: clicks}",
            "topK.score: the model has no output \"clicks\"",
        ),
        (
            "topK: {ids: item, score: heads}",
            "topK.score: output \"heads\" is FP32 [-1, 2]",
        ),
        ("topK: {ids: item, score: click, k: 0}", "topK.k is 0"),
        (
            "topK: {ids: item, score: click, utility: {sum: {click: 1}}}",
            "topK: both score and utility",
        ),
        (
            "topK: {ids: item, utility: {sum: {clicks: 1}}}",
            "topK.utility.sum: the model has no output \"clicks\"",
        ),
        (
            "{topK: {ids: item, score: click}, requestInputs: [item]}",
            "item comes once a request",
        ),
        (
            "{topK: {ids: 'sparse[1]', score: click}, requestInputs: ['sparse[0:2]']}",
            "sparse[1] comes once",
        ),
    ] {
        let failure = top_k(text).unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid);
        assert!(failure.message.contains(named), "{text}: {}", failure.message);
    }
    for text in ["topK: {k: 3}", "topK: {ids: item, n: 3}"] {
        assert_eq!(
            ModelConfig::parse(text).unwrap_err().reason,
            Reason::ConfigInvalid
        );
    }
}

fn batch(sparse: Vec<i64>) -> Batch {
    let rows = sparse.len() / 4;
    let tensor = |shape: &[usize], data| Tensor {
        shape: shape.to_vec(),
        data,
    };
    let item = (100..).take(rows).collect();
    Batch {
        inputs: vec![
            tensor(&[rows, 2], Data::F32(vec![0.0; 2 * rows])),
            tensor(&[rows, 4], Data::I64(sparse)),
            tensor(&[rows], Data::I64(item)),
        ],
        rows,
        lists: vec![],
    }
}

fn best(ids: &[i64], scores: &[f32], k: usize) -> (Vec<i64>, Vec<u32>) {
    let top = top_k("topK: {ids: 'sparse[2]', score: click}").unwrap();
    let sparse = ids.iter().flat_map(|id| [0, 1, *id, 3]).collect();
    let asked = top.asked(k, &batch(sparse), None).unwrap();
    let heads = scores.iter().flat_map(|score| [*score, 1.0]).collect();
    let mut outputs = Outputs {
        tensors: vec![
            Tensor {
                shape: vec![scores.len(), 1],
                data: Data::F32(scores.to_vec()),
            },
            Tensor {
                shape: vec![scores.len(), 2],
                data: Data::F32(heads),
            },
        ],
    };
    let rows = k.min(scores.len());
    let cut = Cut {
        items: rows,
        dropped: 0,
    };
    assert_eq!(top.best(&asked, &mut outputs), Ok(cut));
    let shapes: Vec<&[usize]> = outputs
        .tensors
        .iter()
        .map(|tensor| tensor.shape.as_slice())
        .collect();
    assert_eq!(shapes, [&[rows, 1][..], &[rows, 2], &[rows]]);
    let (Data::F32(scores), Data::F32(heads), Data::I64(ids)) = (
        &outputs.tensors[0].data,
        &outputs.tensors[1].data,
        &outputs.tensors[2].data,
    ) else {
        panic!("{outputs:?}")
    };
    let bits =
        |values: &mut dyn Iterator<Item = &f32>| values.map(|value| value.to_bits()).collect::<Vec<u32>>();
    assert_eq!(bits(&mut heads.iter().step_by(2)), bits(&mut scores.iter()));
    (ids.clone(), bits(&mut scores.iter()))
}

#[test]
fn by_score_then_id_then_place() {
    let scores = [0.5, 0.9, 0.5, 0.9, 0.1];
    assert_eq!(best(&[7, 9, 3, 8, 1], &scores, 3).0, [8, 9, 3]);
    assert_eq!(best(&[7, 9, 3, 8, 1], &scores, 5).0, [8, 9, 3, 7, 1]);
    assert_eq!(best(&[7, 9, 3, 8, 1], &scores, 99).0, [8, 9, 3, 7, 1]);
    assert_eq!(best(&[4, 4, 4], &[1.0, 1.0, 1.0], 1).0, [4]);
    let (_, bits) = best(&[1, 2, 3], &[-0.0, 0.0, f32::MIN_POSITIVE / 2.0], 3);
    assert_eq!(
        bits,
        [(f32::MIN_POSITIVE / 2.0).to_bits(), 0, (-0.0_f32).to_bits()]
    );
}

/// Where NaN may be answered at all (`nonFinite: allow`), it is never the best.
#[test]
fn nan_is_below_everything() {
    let scores = [f32::NAN, f32::NEG_INFINITY, -f32::NAN, f32::INFINITY, 0.0];
    assert_eq!(best(&[1, 2, 3, 4, 5], &scores, 5).0, [4, 5, 2, 1, 3]);
    assert_eq!(best(&[1, 2, 3, 4, 5], &scores, 2).0, [4, 5]);
}

/// Whatever the order of the candidates in the request, the answer is the same.
#[test]
fn the_order_of_the_request_does_not_matter() {
    let ids: Vec<i64> = (0..40).collect();
    let score = |id: &i64| (id * 7 % 5) as f32;
    let expected = best(&ids, &ids.iter().map(score).collect::<Vec<f32>>(), 11);
    for shift in 1..40 {
        let mut turned = ids.clone();
        turned.rotate_left(shift);
        let scores: Vec<f32> = turned.iter().map(score).collect();
        assert_eq!(best(&turned, &scores, 11), expected);
    }
}

#[test]
fn ids_may_be_an_input_of_their_own_or_a_column_of_the_items_part() {
    let top = top_k("topK: {ids: item, score: click}").unwrap();
    assert_eq!(
        top.asked(2, &batch(vec![0; 12]), None).unwrap().ids,
        Data::I64(vec![100, 101, 102])
    );
    let top = top_k("{topK: {ids: 'sparse[3]', score: click}, requestInputs: ['sparse[0:2]']}").unwrap();
    assert_eq!(top.ids, Ids::Slot { slot: 2, column: 1 });
}

#[test]
fn ids_may_be_those_of_the_item_table() {
    let top = top_k("{topK: {ids: raw, score: click}, itemTable: {ids: raw, fills: [item]}}").unwrap();
    let (batch, ids) = (batch(vec![0; 12]), Data::I64(vec![7, 8, 9]));
    assert_eq!(top.asked(2, &batch, Some(ids.clone())).unwrap().ids, ids);
    assert_eq!(top.asked(2, &batch, None), None);
}

#[test]
fn a_utility_ranks_and_is_told() {
    let top = top_k("topK: {ids: item, utility: {sum: {click: 1, 'heads[1]': 2}}}").unwrap();
    assert_eq!(top.added(), [IDS, UTILITY]);
    let column = |shape: &[usize], values: &[f32]| Tensor {
        shape: shape.to_vec(),
        data: Data::F32(values.to_vec()),
    };
    let mut outputs = Outputs {
        tensors: vec![
            column(&[3, 1], &[5.0, 1.0, 2.0]),
            column(&[3, 2], &[0.0, 0.0, 0.0, 4.0, 0.0, 1.0]),
        ],
    };
    let asked = top.asked(2, &batch(vec![0; 12]), None).unwrap();
    top.best(&asked, &mut outputs).unwrap();
    let data: Vec<&Data> = outputs.tensors.iter().map(|tensor| &tensor.data).collect();
    assert_eq!(
        data,
        [
            &Data::F32(vec![1.0, 5.0]),
            &Data::F32(vec![0.0, 4.0, 0.0, 0.0]),
            &Data::I64(vec![101, 100]),
            &Data::F64(vec![9.0, 5.0])
        ]
    );
}

/// A candidate goes when any output that drops is not finite in its row, whatever the others say.
#[test]
fn candidates_are_dropped_where_the_configuration_says_so() {
    const NAN: f32 = f32::NAN;
    let cut = |config: &str, click: [f32; 4], heads: [f32; 8], k| {
        let top = top_k(&format!(
            "{{topK: {{ids: item, score: click}}, outputs: {config}}}"
        ))
        .unwrap();
        let tensor = |shape: &[usize], values: &[f32]| Tensor {
            shape: shape.to_vec(),
            data: Data::F32(values.to_vec()),
        };
        let mut outputs = Outputs {
            tensors: vec![tensor(&[4, 1], &click), tensor(&[4, 2], &heads)],
        };
        let asked = top.asked(k, &batch(vec![0; 16]), None).unwrap();
        let cut = top.best(&asked, &mut outputs).unwrap();
        let Data::I64(ids) = &outputs.tensors[2].data else {
            panic!("{outputs:?}")
        };
        assert_eq!(outputs.tensors[1].shape, [cut.items, 2]);
        assert_eq!(outputs.tensors[0].data.count(), cut.items);
        (ids.clone(), cut.dropped)
    };
    let drop = "{click: {nonFinite: dropCandidate}}";
    let both = "{click: {nonFinite: dropCandidate}, heads: {nonFinite: dropCandidate}}";
    let (click, heads) = (
        [NAN, 0.5, f32::INFINITY, 0.9],
        [1.0, 1.0, 1.0, NAN, 1.0, 1.0, 1.0, 1.0],
    );
    assert_eq!(cut(drop, click, heads, 4), (vec![103, 101], 2));
    assert_eq!(cut(drop, click, heads, 1), (vec![103], 2));
    assert_eq!(cut(both, click, heads, 4), (vec![103], 3));
    assert_eq!(cut(drop, [0.1; 4], heads, 2), (vec![100, 101], 0));
    assert_eq!(cut(drop, [f32::NEG_INFINITY; 4], heads, 2), (vec![], 4));
}
