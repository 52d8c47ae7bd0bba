use super::*;
use crate::interpret;
use crate::ir::{Binary, Unary};
use crate::pass::domain::{self, describe};
use crate::tensor::{Element, Tensor};

/// dense and ids of user and item, looked up, joined, and multiplied: the shape of most rankers.
fn ranker() -> Graph {
    let mut graph = Graph::default();
    let rows = |element, width: i64| Fact::new(element, vec![Extent::N, Extent::fixed(width)]);
    let dense = graph.add_input("dense", rows(Element::F32, 3));
    let sparse = graph.add_input("sparse", rows(Element::I64, 4));
    let number = |seed: usize| (seed * 37 % 101) as f32 / 50.0 - 1.0;
    let table = Tensor::f32(vec![40, 2], (0..80).map(number).collect());
    let table = graph.add_constant("table", table);
    let offsets = graph.add_constant("offsets", Tensor::i64(vec![1, 4], vec![0, 10, 20, 30]));
    let ids = graph
        .push_one("ids", Op::Binary(Binary::Add), &[sparse, offsets])
        .unwrap();
    let embedded = graph
        .push_one("embedded", Op::Gather { axis: 0 }, &[table, ids])
        .unwrap();
    let flat = Op::Reshape {
        shape: vec![Extent::N, Extent::fixed(8)],
    };
    let flat = graph.push_one("flat", flat, &[embedded]).unwrap();
    let x = graph
        .push_one("x", Op::Concat { axis: 1 }, &[dense, flat])
        .unwrap();
    let weights = Tensor::f32(vec![11, 5], (0..55).map(|seed| number(seed + 7)).collect());
    let weights = graph.add_constant("w", weights);
    let bias = graph.add_constant("b", Tensor::f32(vec![5], (0..5).map(number).collect()));
    let hidden = graph.push_one("hidden", Op::MatMul, &[x, weights, bias]).unwrap();
    let score = graph
        .push_one("score", Op::Unary(Unary::Relu), &[hidden])
        .unwrap();
    graph.outputs.push(score);
    graph
}

fn once(columns: &[(usize, usize)]) -> Vec<(String, Once)> {
    let columns = columns
        .iter()
        .map(|(start, end)| Columns {
            start: *start,
            end: *end,
        })
        .collect();
    vec![
        ("dense".to_owned(), Once::Whole),
        ("sparse".to_owned(), Once::Columns(columns)),
    ]
}

#[test]
fn the_request_is_computed_once() {
    let hoisted = hoist(&ranker(), &once(&[(0, 3)])).unwrap();
    let domains = domain::domains(&hoisted.graph, &hoisted.request);
    expect_test::expect![[r"
        Request  Add              [N, 3]           ids
        Item     Add              [N, 1]           ids
        Request  Gather           [N, 3, 2]        embedded
        Item     Gather           [N, 1, 2]        embedded
        Request  Reshape          [N, 6]           flat
        Item     Reshape          [N, 2]           flat
        Request  Concat           [N, 9]           joined
        Request  MatMul           [N, 5]           hidden
        Pair     MatMul           [N, 5]           hidden
        Pair     Relu             [N, 5]           score
    "]]
    .assert_eq(&describe(&hoisted.graph, &domains));
}

#[test]
fn not_a_bit_changes_when_the_user_comes_first() {
    let graph = ranker();
    let hoisted = hoist(&graph, &once(&[(0, 3)])).unwrap();
    let domains = domain::domains(&hoisted.graph, &hoisted.request);
    let dense = Tensor::f32(vec![1, 3], vec![0.3, -0.7, 1.1]);
    let user = Tensor::i64(vec![1, 3], vec![4, 5, 6]);
    let item = Tensor::i64(vec![2, 1], vec![7, 8]);
    let split = interpret::run_segmented(&hoisted.graph, &domains, &[dense, user, item], &[0, 0]).unwrap();
    let dense = Tensor::f32(vec![2, 3], vec![0.3, -0.7, 1.1, 0.3, -0.7, 1.1]);
    let sparse = Tensor::i64(vec![2, 4], vec![4, 5, 6, 7, 4, 5, 6, 8]);
    assert_eq!(interpret::run(&graph, &[dense, sparse]).unwrap(), split);
}

#[test]
fn a_wrong_declaration_names_the_input() {
    let graph = ranker();
    let reason = hoist(&graph, &[("user".to_owned(), Once::Whole)]).unwrap_err();
    assert_eq!(reason, "the model has no input \"user\"");
    for columns in [&[(0, 4)][..], &[(2, 2)], &[(0, 2), (1, 3)], &[(0, 5)]] {
        assert!(
            hoist(&graph, &once(columns))
                .unwrap_err()
                .contains("input \"sparse\": columns")
        );
    }
}
