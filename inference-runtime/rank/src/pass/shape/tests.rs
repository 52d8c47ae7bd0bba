use super::*;
use crate::ir::extents as of;

fn fact(shape: &[Extent]) -> Fact {
    Fact::new(Element::F32, shape.to_vec())
}

fn ids(shape: &[Extent]) -> Fact {
    Fact::new(Element::I64, shape.to_vec())
}

/// Shape of the first output, -k standing for k * N.
fn shape_of(op: &Op, inputs: &[&Fact]) -> Result<String, String> {
    infer(op, inputs).map(|facts| display_shape(&facts[0].shape))
}

#[test]
fn the_batch_stays_symbolic() {
    let table = fact(&of(&[100, 16]));
    let sparse = ids(&of(&[-1, 26]));
    let embedded = infer(&Op::Gather { axis: 0 }, &[&table, &sparse])
        .unwrap()
        .remove(0);
    assert_eq!(display_shape(&embedded.shape), "[N, 26, 16]");
    let flat = shape_of(
        &Op::Reshape {
            shape: of(&[-1, 416]),
        },
        &[&embedded],
    );
    assert_eq!(flat.as_deref(), Ok("[N, 416]"));
    let merged = shape_of(
        &Op::Reshape {
            shape: of(&[-26, 16]),
        },
        &[&embedded],
    );
    assert_eq!(merged.as_deref(), Ok("[26N, 16]"));
    let wrong = shape_of(
        &Op::Reshape {
            shape: of(&[-1, 415]),
        },
        &[&embedded],
    );
    assert_eq!(wrong.unwrap_err(), "[N, 26, 16] does not reshape to [N, 415]");
}

#[test]
fn broadcasting_needs_one_or_the_same() {
    let shape = |a: &[i64], b: &[i64]| broadcast(&of(a), &of(b)).map(|shape| display_shape(&shape));
    assert_eq!(shape(&[-1, 8], &[8]).as_deref(), Ok("[N, 8]"));
    assert_eq!(shape(&[-1, 1], &[1, 8]).as_deref(), Ok("[N, 8]"));
    assert_eq!(
        shape(&[-1, 8], &[4, 8]).unwrap_err(),
        "[N, 8] and [4, 8] do not broadcast"
    );
}

#[test]
fn products_and_reductions() {
    let x = fact(&of(&[-1, 27, 16]));
    let y = fact(&of(&[-1, 16, 27]));
    assert_eq!(shape_of(&Op::MatMul, &[&x, &y]).as_deref(), Ok("[N, 27, 27]"));
    assert_eq!(
        shape_of(&Op::MatMul, &[&x, &x]).unwrap_err(),
        "[N, 27, 16] and [N, 27, 16] do not multiply"
    );
    let sum = Op::Reduce {
        reduction: crate::ir::Reduction::Sum,
        axes: vec![1],
        keep: false,
    };
    assert_eq!(shape_of(&sum, &[&x]).as_deref(), Ok("[N, 16]"));
}

#[test]
fn slices_are_inside() {
    let x = fact(&of(&[-1, 10]));
    let slice = |start, end, step| {
        shape_of(
            &Op::Slice {
                axis: 1,
                start,
                end,
                step,
            },
            &[&x],
        )
    };
    assert_eq!(slice(2, 9, 3).as_deref(), Ok("[N, 3]"));
    assert_eq!(slice(9, -1, -1).as_deref(), Ok("[N, 10]"));
    assert_eq!(slice(0, 11, 1).unwrap_err(), "slice 0:11:1 is outside of 10");
}

#[test]
fn a_wrong_element_type_has_its_reason() {
    let x = fact(&of(&[-1, 10]));
    assert_eq!(
        shape_of(&Op::Gather { axis: 0 }, &[&x, &x]).unwrap_err(),
        "indices must be integers, not F32"
    );
    assert_eq!(
        shape_of(&Op::Unary(Unary::Not), &[&x]).unwrap_err(),
        "the input must be Bool, not F32"
    );
    let softmax = Op::Softmax { axis: 1, log: false };
    assert_eq!(
        shape_of(&softmax, &[&ids(&of(&[-1, 10]))]).unwrap_err(),
        "the input must be F32, not I64"
    );
}

#[test]
fn absurd_sizes_are_refused() {
    assert_eq!(check_size(&fact(&of(&[-1, 26, 16])), LARGEST_ROW), Ok(()));
    let large = check_size(&fact(&of(&[1 << 20, 1 << 20])), LARGEST_CONSTANT);
    assert!(large.unwrap_err().contains("more than"));
    let negative = Fact::new(Element::F32, vec![Extent::fixed(-2), Extent::fixed(-2)]);
    assert_eq!(
        check_size(&negative, LARGEST_ROW).unwrap_err(),
        "makes the shape [-2, -2]"
    );
}
