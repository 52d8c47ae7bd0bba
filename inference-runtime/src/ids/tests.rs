use rank::pass::vocabulary::Vocabulary;

use super::*;
use crate::engine::{Dim, Layout, Signature, TensorSpec};
use crate::failure::{LoadFailure, Reason};
use crate::model::config::ModelConfig;

fn signature() -> Signature {
    let rows = || Dim::Named("rows".into());
    let spec = |name: &str, datatype, width| TensorSpec::new(name, datatype, vec![rows(), Dim::Fixed(width)]);
    Signature {
        inputs: vec![
            spec("dense", Datatype::F32, 2),
            spec("sparse", Datatype::I64, 3),
            spec("small", Datatype::I32, 1),
        ],
        outputs: vec![TensorSpec::new("score", Datatype::F32, vec![rows()])],
    }
}

fn proven(sizes: [Option<u64>; 3]) -> Vec<Vocabulary> {
    vec![Vocabulary {
        input: "sparse".into(),
        sizes: sizes.to_vec(),
    }]
}

fn rules_of(text: &str, proven: &[Vocabulary]) -> Result<IdRules, LoadFailure> {
    let config = ModelConfig::parse(text)?;
    config.check(&signature())?;
    let layout = Layout::new(&signature(), config.request_inputs.once()).unwrap();
    IdRules::new(&config, (&signature(), &layout), proven)
}

fn rules(text: &str) -> IdRules {
    rules_of(text, &[]).unwrap()
}

/// What becomes of ids, once hashed and looked at; or why they are refused.
fn admitted(rules: &IdRules, name: &str, ids: &[i64]) -> Result<(Vec<i64>, u64), String> {
    let rules = rules.of(name).unwrap();
    let mut data = rules.data(ids.to_vec());
    rules.hash_numbers(&mut data);
    let replaced = rules.admit(&mut data).map_err(|(_, message)| message)?;
    rules.count(replaced);
    let ids = match data {
        Data::I64(ids) => ids,
        Data::I32(ids) => ids.into_iter().map(i64::from).collect(),
        other => panic!("{other:?}"),
    };
    Ok((ids, replaced))
}

#[test]
fn ids_outside_are_refused() {
    let rules = rules("inputs: {sparse: {vocabularies: [3, 5, 1]}}");
    let inside = [2, 4, 0, 0, 0, 0];
    assert_eq!(admitted(&rules, "sparse", &inside), Ok((inside.to_vec(), 0)));
    for (bad, element, column) in [
        ([3, 0, 0, 0, 0, 0], 0, 0),
        ([0, 0, 0, 0, 5, 0], 4, 1),
        ([0, 0, 0, 0, 0, -1], 5, 2),
        ([i64::MIN, 0, 0, 0, 0, 0], 0, 0),
        ([0, i64::MAX, 0, 9, 9, 9], 1, 1),
    ] {
        let message = admitted(&rules, "sparse", &bad).unwrap_err();
        let named = format!(
            "\"sparse\" has id {} at element {element} (column {column})",
            bad[element]
        );
        assert!(message.contains(&named), "{message}");
    }
    assert!(rules.of("dense").is_none() && rules.of("small").is_none());
}

#[test]
fn default_rows_stand_in_and_are_counted() {
    let text =
        "inputs: {sparse: {vocabularies: [3, 5, 9], policies: [{defaultRow: 2}, refuse, {defaultRow: 0}]}}";
    let rules = rules(text);
    let (ids, replaced) = admitted(&rules, "sparse", &[7, 1, 8, -1, 4, 9, 0, 0, i64::MIN]).unwrap();
    assert_eq!((ids, replaced), (vec![2, 1, 8, 2, 4, 0, 0, 0, 0], 4));
    assert!(
        admitted(&rules, "sparse", &[7, 5, 8])
            .unwrap_err()
            .contains("column 1")
    );
    assert_eq!(rules.take_replaced().collect::<Vec<_>>(), [("sparse", 4)]);
}

#[test]
fn one_policy_holds_for_all_columns_and_for_parts() {
    let text = "requestInputs: [\"sparse[1:2]\"]\ninputs: {sparse: {vocabularies: [3, 5, 9], policies: [{defaultRow: 1}]}, \
                small: {vocabularies: [4], policies: [{defaultRow: 3}]}}";
    let rules = rules(text);
    assert_eq!(admitted(&rules, "sparse", &[3, 5, 9]), Ok((vec![1, 1, 1], 3)));
    // Columns 0 and 2; column 1.
    assert_eq!(
        admitted(&rules, "sparse.item", &[3, 8, 2, 9]),
        Ok((vec![1, 8, 2, 1], 2))
    );
    assert_eq!(admitted(&rules, "sparse.user", &[5]), Ok((vec![1], 1)));
    assert_eq!(admitted(&rules, "small", &[4, -1, 2]), Ok((vec![3, 3, 2], 2)));
    assert_eq!(
        rules.take_replaced().collect::<Vec<_>>(),
        [("sparse", 6), ("small", 2)]
    );
}

#[test]
fn every_value_of_a_hashed_column_is_hashed() {
    let text = "inputs: {sparse: {vocabularies: [1000, 5, 7], policies: [{hash: farmhash64}, refuse, {hash: xxh64}]}, \
                small: {vocabularies: [1000], policies: [{hash: murmur3_x86_32, goldens: {\"abc\": 2, \"-5\": 403}}]}}";
    let rules = rules(text);
    // As in the goldens of `hash`; inside of the vocabulary or not.
    let xxh64 = |text: &str| (HashName::Xxh64.hash(text.as_bytes()) % 7).cast_signed();
    let (ids, replaced) = admitted(&rules, "sparse", &[4711, 4, 1, -5, 0, -5]).unwrap();
    assert_eq!((ids, replaced), (vec![21, 4, xxh64("1"), 816, 0, xxh64("-5")], 0));
    assert!(
        admitted(&rules, "sparse", &[4711, 5, 1])
            .unwrap_err()
            .contains("column 1")
    );
    assert_eq!(admitted(&rules, "small", &[-5]), Ok((vec![403], 0)));
    // A text may stand for every value where each column is hashed.
    assert!(!rules.of("sparse").unwrap().takes_text() && rules.of("small").unwrap().takes_text());
    let small = rules.of("small").unwrap();
    assert_eq!(small.row_of_text(0, b"abc"), 2);
    assert_eq!(small.data(vec![2]), Data::I32(vec![2]));
}

#[test]
fn the_models_tables_say_what_the_configuration_does_not() {
    let rules = rules_of("", &proven([Some(4), None, Some(6)])).unwrap();
    assert_eq!(admitted(&rules, "sparse", &[3, -1, 5]), Ok((vec![3, -1, 5], 0)));
    assert_eq!(admitted(&rules, "sparse", &[3, i64::MAX, 5]).unwrap().1, 0);
    assert!(
        admitted(&rules, "sparse", &[4, 0, 0])
            .unwrap_err()
            .contains("vocabulary of 4")
    );
    let sources = |rules: &IdRules| -> Vec<_> {
        let columns = rules.of("sparse").unwrap().columns();
        columns.iter().map(|column| column.vocabulary).collect()
    };
    let model = |size| Some((size, Source::Model));
    assert_eq!(sources(&rules), [model(4), None, model(6)]);
    // A smaller vocabulary than the table has.
    let rules = rules_of(
        "inputs: {sparse: {vocabularies: [4]}}",
        &proven([Some(4), None, Some(6)]),
    )
    .unwrap();
    assert_eq!(sources(&rules), [Some((4, Source::Config)); 3]);
}

#[test]
fn what_does_not_fit_is_named() {
    for (text, named) in [
        (
            "inputs: {dense: {vocabularies: [1]}}",
            "inputs.dense.vocabularies: the input is FP32",
        ),
        (
            "inputs: {dense: {policies: [refuse]}}",
            "inputs.dense.policies: the input is FP32",
        ),
        (
            "inputs: {sparse: {vocabularies: [1, 2]}}",
            "vocabularies has 2 entries, the input has 3 columns",
        ),
        ("inputs: {sparse: {vocabularies: [0]}}", "column 0 has 0 ids"),
        (
            "inputs: {sparse: {vocabularies: [4, 4, 7]}}",
            "inputs.sparse.vocabularies: 7 ids in column 2, for which the model's table has 6 rows",
        ),
        (
            "inputs: {sparse: {vocabularies: [1], policies: [refuse, refuse]}}",
            "policies has 2 entries",
        ),
        (
            "inputs: {sparse: {policies: [{defaultRow: 0}]}}",
            "policies: how many ids",
        ),
        (
            "inputs: {sparse: {vocabularies: [4], policies: [{defaultRow: 4}]}}",
            "defaultRow is 4, the vocabulary has 4",
        ),
        (
            "inputs: {small: {vocabularies: [2147483649], policies: [{hash: xxh64}]}}",
            "more than the input's datatype has, from 0 to 2147483647",
        ),
        (
            "inputs: {small: {vocabularies: [1000], policies: [{hash: farmhash64, goldens: {\"4711\": 22}}]}}",
            "inputs.small.policies: farmhash64 makes row 21 of 1000 of \"4711\", goldens say 22",
        ),
        (
            "{topK: {ids: small}, inputs: {small: {vocabularies: [5], policies: [{hash: farmhash64}]}}}",
            "topK.ids: small has a policy (every value by farmhash64)",
        ),
        (
            "{topK: {ids: 'sparse[2]'}, inputs: {sparse: {vocabularies: [4], policies: [refuse, refuse, {defaultRow: \
             0}]}}}",
            "topK.ids: sparse[2] has a policy",
        ),
        (
            "inputs: {sparse: {policies: [drop]}}",
            "expected refuse, {defaultRow: ROW} or {hash: NAME}",
        ),
        ("inputs: {sparse: {policies: [{hash: md5}]}}", "farmhash64"),
        ("inputs: {sparse: {policies: [{defaultRow: -1}]}}", "-1"),
        (
            "inputs: {sparse: {policies: [{default: 1}]}}",
            "unknown field `default`",
        ),
        ("inputs: {sparse: {policies: [{}]}}", "either defaultRow or hash"),
        (
            "inputs: {sparse: {policies: [{hash: xxh64, defaultRow: 1}]}}",
            "either defaultRow or hash",
        ),
        (
            "inputs: {sparse: {policies: [{goldens: {a: 1}}]}}",
            "goldens are of a hash",
        ),
    ] {
        let failure = rules_of(text, &proven([Some(4), None, Some(6)]))
            .map(|_| ())
            .unwrap_err();
        assert_eq!(failure.reason, Reason::ConfigInvalid);
        assert!(failure.message.contains(named), "{text}: {}", failure.message);
    }
}

#[test]
fn rules_are_alike_when_they_make_the_same_of_ids() {
    let hashed =
        |rows| format!("inputs: {{sparse: {{vocabularies: [{rows}], policies: [{{hash: xxh64}}]}}}}");
    let of = |text: &str| rules(text);
    assert!(of("").alike(&of("inputs: {sparse: {vocabularies: [5]}}")));
    assert!(of(&hashed(5)).alike(&of(&hashed(5))));
    assert!(!of(&hashed(5)).alike(&of(&hashed(6))) && !of(&hashed(5)).alike(&of("")));
    let default =
        |row| format!("inputs: {{sparse: {{vocabularies: [5], policies: [{{defaultRow: {row}}}]}}}}");
    assert!(!of(&default(0)).alike(&of(&default(1))) && !of(&default(0)).alike(&of("")));
}
