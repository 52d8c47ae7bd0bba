//! What a plan refuses, when it is compiled and when it runs.

use rank::ir::{Extent, Fact, Graph, Op};
use rank::pass::rows;
use rank::tensor::Element;

use super::*;

/// `[N, 2]` ids of a table of 10, offsets 0 and 5.
fn lookup() -> Model {
    let mut graph = Graph::default();
    let ids = graph.add_input("ids", Fact::new(Element::I64, vec![Extent::N, Extent::fixed(2)]));
    let table = graph.add_constant(
        "table",
        Tensor::f32(vec![10, 3], (0..30).map(|i| i as f32).collect()),
    );
    let offsets = graph.add_constant("offsets", Tensor::i64(vec![1, 2], vec![0, 5]));
    let add = Op::Binary(rank::ir::Binary::Add);
    let shifted = graph.push_one("shifted", add, &[ids, offsets]).unwrap();
    let rows_found = graph
        .push_one("found", Op::Gather { axis: 0 }, &[table, shifted])
        .unwrap();
    graph.outputs.push(rows_found);
    let rows = rows::prove(&graph);
    Model { graph, rows }
}

#[test]
fn wrong_input_gets_the_interpreters_error() {
    let model = lookup();
    for set in InstructionSet::available() {
        let plan = compile(&model, &[], set, Precision::F32);
        let (mut scratch, mut outputs) = (plan.scratch(), Vec::new());
        for values in [vec![0, 5, 1, 1], vec![-11, 0, 1, 1], vec![0, 1, 10, 2]] {
            let input = [Tensor::i64(vec![2, 2], values)];
            let expected = run(&model.graph, &input).unwrap_err();
            let got = plan.run(&input, &[0, 0], &mut scratch, &mut outputs).unwrap_err();
            assert_eq!(got, expected);
        }
        // An error leaves nothing behind.
        let input = [Tensor::i64(vec![2, 2], vec![0, 1, -10, 4])];
        plan.run(&input, &[0, 0], &mut scratch, &mut outputs).unwrap();
        assert_eq!(outputs, run(&model.graph, &input).unwrap());
        let wrong = [
            (vec![], vec![0], "input \"ids\": is missing"),
            (
                vec![Tensor::i64(vec![1, 3], vec![0; 3])],
                vec![0],
                "has shape [1, 3]",
            ),
            (
                vec![Tensor::i64(vec![1, 2], vec![0; 2])],
                vec![0, 0],
                "has 1 rows, other inputs have 2",
            ),
            (
                vec![Tensor::f32(vec![1, 2], vec![0.0; 2])],
                vec![0],
                "is F32, the model takes I64",
            ),
        ];
        for (input, segments, message) in wrong {
            let got = plan
                .run(&input, &segments, &mut scratch, &mut outputs)
                .unwrap_err();
            assert!(got.to_string().contains(message), "{got}");
        }
    }
}

#[test]
fn an_instruction_set_that_the_machine_lacks_is_refused() {
    for set in InstructionSet::ALL
        .into_iter()
        .filter(|set| !InstructionSet::available().contains(set))
    {
        let options = Options {
            instruction_set: set,
            ..Options::default()
        };
        let reason = Plan::compile(&lookup(), &options).unwrap_err();
        assert!(reason.contains(&format!("no {set}; it has portable")), "{reason}");
    }
    assert!(InstructionSet::available().contains(&InstructionSet::best()));
}

#[test]
fn a_model_without_anything_to_round_has_no_plan_in_bf16() {
    let options = Options {
        precision: Precision::Bf16,
        ..Options::default()
    };
    let reason = Plan::compile(&lookup(), &options).unwrap_err();
    assert!(reason.contains("nothing in it can be in bf16"), "{reason}");
    let mut listwise = lookup();
    listwise.rows = Rows::Listwise("because".to_owned());
    let reason = Plan::compile(&listwise, &options).unwrap_err();
    assert!(
        reason.contains("a listwise model has no plan in bf16") && reason.ends_with(": because"),
        "{reason}"
    );
}
