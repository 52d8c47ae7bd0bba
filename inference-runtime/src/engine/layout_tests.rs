use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::engine::{Data, Datatype};

fn signature() -> Signature {
    let rows = || Dim::Named("n".into());
    let spec = TensorSpec::new;
    Signature {
        inputs: vec![
            spec("dense", Datatype::F32, vec![rows(), Dim::Fixed(2), Dim::Fixed(2)]),
            spec("sparse", Datatype::I64, vec![rows(), Dim::Fixed(6)]),
            spec("price", Datatype::F32, vec![rows()]),
        ],
        outputs: vec![spec("score", Datatype::F32, vec![rows()])],
    }
}

fn layout(once: &[&str]) -> Result<Layout, String> {
    Layout::new(&signature(), &rank::parse_once(once).unwrap())
}

fn tensor(shape: &[usize], data: Data) -> Tensor {
    Tensor {
        shape: shape.to_vec(),
        data,
    }
}

#[test]
fn wrong_declarations_name_their_input() {
    for (once, named) in [
        (vec!["dens"], "\"dens\"; it has dense, sparse, price"),
        (vec!["dense", "dense"], "\"dense\" is there twice"),
        (vec!["dense[0:1]"], "\"dense\" is not a table"),
        (vec!["price[0:1]"], "\"price\" is not a table"),
        (vec!["sparse[0:7]"], "sparse[0:7]: columns are ranges within 0:6"),
        (vec!["sparse[0:6]"], "sparse[0:6]"),
        (vec!["sparse[2:2]"], "sparse[2:2]"),
        (vec!["sparse[2:4,4:5]"], "sparse[2:4,4:5]"),
        (vec!["sparse[3:4,0:2]"], "sparse[3:4,0:2]"),
        (vec!["dense", "sparse", "price"], "all inputs are named"),
    ] {
        let error = layout(&once).unwrap_err();
        assert!(error.contains(named), "{once:?}: {error}");
    }
    let mut taken = signature();
    taken.inputs[2].name = "sparse.user".into();
    let error = Layout::new(&taken, &rank::parse_once(&["sparse[0:2]"]).unwrap()).unwrap_err();
    assert!(error.contains("\"sparse.user\" of its own"), "{error}");
    let mut fixed = signature();
    fixed.inputs[0].dims[0] = Dim::Fixed(1);
    let error = Layout::new(&fixed, &rank::parse_once(&["dense"]).unwrap()).unwrap_err();
    assert!(error.contains("\"dense\" has no rows"), "{error}");
}

/// Lists of some users, as plain V2 has them: dense and the columns 1, 4 and 5 of sparse are the user's.
fn lists(rng: &mut StdRng, pairs: &[usize]) -> Vec<Tensor> {
    let rows = pairs.iter().sum();
    let (mut dense, mut sparse) = (Vec::new(), Vec::new());
    for (list, count) in pairs.iter().enumerate() {
        let user: Vec<f32> = (0..4).map(|_| rng.random_range(-1.0..1.0)).collect();
        for _ in 0..*count {
            dense.extend_from_slice(&user);
            let mut ids: Vec<i64> = (0..6).map(|_| rng.random_range(0..9)).collect();
            for column in [1, 4, 5] {
                ids[column] = (10 * list + column) as i64;
            }
            sparse.extend(ids);
        }
    }
    let price: Vec<f32> = (0..rows).map(|_| rng.random_range(-1.0..1.0)).collect();
    vec![
        tensor(&[rows, 2, 2], Data::F32(dense)),
        tensor(&[rows, 6], Data::I64(sparse)),
        tensor(&[rows], Data::F32(price)),
    ]
}

const USERS: [&str; 2] = ["dense", "sparse[1:2,4:6]"];

#[test]
fn neighbours_with_the_same_user_share_a_row() {
    let layout = layout(&USERS).unwrap();
    let names: Vec<(&str, bool)> = layout
        .slots
        .iter()
        .map(|slot| (slot.spec.name.as_str(), slot.once))
        .collect();
    assert_eq!(
        names,
        [
            ("dense", true),
            ("sparse.user", true),
            ("sparse.item", false),
            ("price", false)
        ]
    );
    assert_eq!(layout.slots[1].places(), [1, 4, 5]);
    assert_eq!(layout.slots[2].places(), [0, 2, 3]);
    let mut rng = StdRng::seed_from_u64(5);
    for pairs in [vec![1], vec![7], vec![3, 1, 4], vec![1, 1, 1]] {
        let inputs = lists(&mut rng, &pairs);
        let rows = pairs.iter().sum();
        let batch = layout.batch(inputs.iter().cloned().map(Sent::Whole).collect(), rows);
        assert_eq!((batch.rows, &batch.lists), (rows, &pairs));
        let shapes: Vec<&[usize]> = batch.inputs.iter().map(|input| input.shape.as_slice()).collect();
        assert_eq!(
            shapes,
            [&[pairs.len(), 2, 2][..], &[pairs.len(), 3], &[rows, 3], &[rows]]
        );
        assert_eq!(layout.repeated(batch), inputs);
    }
}

#[test]
fn once_means_the_same_as_repeated() {
    let layout = layout(&USERS).unwrap();
    let inputs = lists(&mut StdRng::seed_from_u64(6), &[5]);
    let repeated = layout.batch(inputs.iter().cloned().map(Sent::Whole).collect(), 5);
    let dense = cut_rows(&inputs[0], 1);
    let parts = |user: &Tensor, user_rows: usize| Sent::Parts {
        user: cut_rows(user, user_rows),
        item: repeated.inputs[2].clone(),
    };
    let user = cut(&inputs[1], &[0, 1, 2, 3, 4], &[1..2, 4..6]);
    for sent in [
        vec![Sent::Whole(dense.clone()), Sent::Whole(inputs[1].clone())],
        vec![Sent::Whole(dense), parts(&user, 1)],
        vec![Sent::Whole(inputs[0].clone()), parts(&user, 1)],
        vec![Sent::Whole(inputs[0].clone()), parts(&user, 5)],
    ] {
        let sent = sent.into_iter().chain([Sent::Whole(inputs[2].clone())]).collect();
        assert_eq!(layout.batch(sent, 5), repeated);
    }
}

fn cut_rows(tensor: &Tensor, rows: usize) -> Tensor {
    let width = tensor.data.count() / tensor.shape[0];
    let mut shape = tensor.shape.clone();
    shape[0] = rows;
    tensor_of(shape, tensor.data.copy_range(0..rows * width).unwrap())
}

fn tensor_of(shape: Vec<usize>, data: Data) -> Tensor {
    Tensor { shape, data }
}

/// One row of one input, and two users in another.
#[test]
fn one_row_serves_the_users_of_another_input() {
    let layout = layout(&USERS).unwrap();
    let mut inputs = lists(&mut StdRng::seed_from_u64(7), &[2, 3]);
    inputs[0] = cut_rows(&inputs[0], 1);
    let batch = layout.batch(inputs.iter().cloned().map(Sent::Whole).collect(), 5);
    assert_eq!(batch.lists, [2, 3]);
    assert_eq!(batch.inputs[0].shape, [2, 2, 2]);
    let repeated = layout.repeated(batch);
    assert_eq!(repeated[0].shape, [5, 2, 2]);
    assert_eq!(repeated[1], inputs[1]);
}

#[test]
fn equal_is_equal_in_bits() {
    let layout = layout(&["dense"]).unwrap();
    let (nan, rest) = (f32::NAN, lists(&mut StdRng::seed_from_u64(8), &[2]));
    for (second, expected) in [(0.0_f32, vec![2]), (-0.0, vec![1, 1])] {
        let dense = Data::F32([nan, 0.0, 1.0, 2.0, nan, second, 1.0, 2.0].to_vec());
        let sent = [tensor(&[2, 2, 2], dense), rest[1].clone(), rest[2].clone()];
        let batch = layout.batch(sent.into_iter().map(Sent::Whole).collect(), 2);
        assert_eq!(batch.lists, expected);
    }
}
