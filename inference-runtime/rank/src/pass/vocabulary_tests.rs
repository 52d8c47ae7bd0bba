use super::*;
use crate::ir::{Extent, Fact, Unary};

/// A graph with an input `ids [N, 3]`, and what `build` makes of it.
fn sizes_of(build: impl Fn(&mut Graph, ValueId) -> Result<(), String>) -> Vec<Option<u64>> {
    let mut graph = Graph::default();
    let shape = vec![Extent::N, Extent::of(3)];
    let ids = graph.add_input("ids", Fact::new(Element::I64, shape));
    build(&mut graph, ids).unwrap();
    match &infer(&graph, &Rows::Independent)[..] {
        [] => vec![None; 3],
        [vocabulary] => {
            assert_eq!(vocabulary.input, "ids");
            vocabulary.sizes.clone()
        }
        more => panic!("{more:?}"),
    }
}

fn table(graph: &mut Graph, rows: usize) -> ValueId {
    graph.add_constant("table", Tensor::f32(vec![rows, 2], vec![0.0; 2 * rows]))
}

fn look_up(graph: &mut Graph, table: ValueId, ids: ValueId) -> Result<(), String> {
    let rows = graph.push_one("rows", Op::Gather { axis: 0 }, &[table, ids])?;
    graph.outputs.push(rows);
    Ok(())
}

fn shift(graph: &mut Graph, ids: ValueId, offsets: &[i64]) -> Result<ValueId, String> {
    let constant = graph.add_constant("offsets", Tensor::i64(vec![offsets.len()], offsets.to_vec()));
    graph.push_one("shifted", Op::Binary(Binary::Add), &[constant, ids])
}

/// One column, `[N]`.
fn column(graph: &mut Graph, ids: ValueId, column: i64) -> Result<ValueId, String> {
    let index = graph.add_constant("index", Tensor::i64(vec![], vec![column]));
    graph.push_one("column", Op::Gather { axis: 1 }, &[ids, index])
}

#[test]
fn parts_end_where_the_next_begin() {
    let joined = |offsets: [i64; 3], rows| {
        sizes_of(move |graph, ids| {
            let table = table(graph, rows);
            let ids = shift(graph, ids, &offsets)?;
            look_up(graph, table, ids)
        })
    };
    assert_eq!(joined([0, 5, 11], 18), [Some(5), Some(6), Some(7)]);
    assert_eq!(joined([11, 0, 5], 18), [Some(7), Some(5), Some(6)]);
    // Two columns share a part.
    assert_eq!(joined([0, 5, 5], 18), [Some(5), Some(13), Some(13)]);
    assert_eq!(joined([0, 0, 0], 18), [Some(18); 3]);
    // A row in front that is no column's, or an offset beyond the table.
    assert_eq!(joined([1, 5, 11], 18), [None; 3]);
    assert_eq!(joined([0, 5, 18], 18), [None; 3]);
}

#[test]
fn tables_of_their_own_give_their_rows() {
    let sizes = sizes_of(|graph, ids| {
        for (index, rows) in [(0, 4), (1, 9)] {
            let table = table(graph, rows);
            let ids = column(graph, ids, index)?;
            look_up(graph, table, ids)?;
        }
        // Looked up twice: the smaller table counts.
        let small = table(graph, 7);
        let ids = column(graph, ids, 1)?;
        look_up(graph, small, ids)
    });
    assert_eq!(sizes, [Some(4), Some(7), None]);
}

#[test]
fn columns_are_followed_through_slices_and_joins() {
    let sizes = sizes_of(|graph, ids| {
        let slice = |start, end| Op::Slice {
            axis: 1,
            start,
            end,
            step: 1,
        };
        let first = graph.push_one("first", slice(0, 1), &[ids])?;
        let others = graph.push_one("others", slice(1, 3), &[ids])?;
        let turned = graph.push_one("turned", Op::Concat { axis: 1 }, &[others, first])?;
        let cast = graph.push_one("cast", Op::Cast(Element::I32), &[turned])?;
        let shape = vec![Extent::N, Extent::of(3), Extent::ONE];
        let deep = graph.push_one("deep", Op::Reshape { shape }, &[cast])?;
        let offsets = graph.add_constant("offsets", Tensor::int(Element::I32, vec![3, 1], vec![0, 2, 5]));
        let shifted = graph.push_one("shifted", Op::Binary(Binary::Add), &[deep, offsets])?;
        let table = table(graph, 9);
        look_up(graph, table, shifted)
    });
    assert_eq!(sizes, [Some(4), Some(2), Some(3)]);
}

#[test]
fn nothing_is_said_without_proof() {
    // Ids from -1 on, which a shift makes rows of.
    let shifted = sizes_of(|graph, ids| {
        let table = table(graph, 9);
        let ids = shift(graph, ids, &[1])?;
        look_up(graph, table, ids)
    });
    assert_eq!(shifted, [None; 3]);
    // Neighbours of an id.
    let neighbours = sizes_of(|graph, ids| {
        let table = table(graph, 9);
        let next = shift(graph, ids, &[1, 2, 3])?;
        look_up(graph, table, ids)?;
        look_up(graph, table, next)
    });
    assert_eq!(neighbours, [None; 3]);
    // A mask may want ids below 0.
    let masked = sizes_of(|graph, ids| {
        let (table, zero) = (
            table(graph, 9),
            graph.add_constant("zero", Tensor::i64(vec![], vec![0])),
        );
        let first = column(graph, ids, 0)?;
        let mask = graph.push_one("mask", Op::Binary(Binary::GreaterOrEqual), &[first, zero])?;
        graph.outputs.push(mask);
        look_up(graph, table, ids)
    });
    assert_eq!(masked, [None, Some(9), Some(9)]);
    // Numbers.
    let number = sizes_of(|graph, ids| {
        let float = graph.push_one("float", Op::Cast(Element::F32), &[ids])?;
        let number = graph.push_one("number", Op::Unary(Unary::Exp), &[float])?;
        graph.outputs.push(number);
        Ok(())
    });
    assert_eq!(number, [None; 3]);
    // Computed ids.
    let computed = sizes_of(|graph, ids| {
        let (table, size) = (
            table(graph, 9),
            graph.add_constant("size", Tensor::i64(vec![], vec![9])),
        );
        let hashed = graph.push_one("hashed", Op::Binary(Binary::Mod), &[ids, size])?;
        look_up(graph, table, hashed)
    });
    assert_eq!(computed, [None; 3]);
}

#[test]
fn paddings_may_be_marked() {
    let marked = |padding: i64| {
        sizes_of(move |graph, ids| {
            let constant = graph.add_constant("padding", Tensor::i64(vec![], vec![padding]));
            let mask = graph.push_one("mask", Op::Binary(Binary::Equal), &[constant, ids])?;
            graph.outputs.push(mask);
            let table = table(graph, 9);
            look_up(graph, table, ids)
        })
    };
    assert_eq!(marked(0), [Some(9); 3]);
    assert_eq!(marked(-1), [None; 3]);
}

#[test]
fn a_listwise_model_is_not_looked_at() {
    let mut graph = Graph::default();
    let ids = graph.add_input("ids", Fact::new(Element::I64, vec![Extent::N]));
    let table = table(&mut graph, 9);
    look_up(&mut graph, table, ids).unwrap();
    assert_eq!(infer(&graph, &Rows::Independent)[0].sizes, [Some(9)]);
    assert!(infer(&graph, &Rows::Listwise(String::new())).is_empty());
}
