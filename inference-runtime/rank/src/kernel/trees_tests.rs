use super::*;
use crate::kernel::InstructionSet;
use crate::tensor::Tensor;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }

    /// Few different ones, so that values meet thresholds; those that comparisons treat in their own way among them.
    fn value(&mut self) -> f32 {
        let odd = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::MIN_POSITIVE,
            1e-45,
            -1e-45,
            f32::MAX,
            -1.5,
        ];
        odd.get(self.below(16))
            .copied()
            .unwrap_or(self.below(5) as f32 - 2.0)
    }
}

const FEATURES: usize = 6;
const MODES: [Branch; 6] = [
    Branch::LessOrEqual,
    Branch::Less,
    Branch::GreaterOrEqual,
    Branch::Greater,
    Branch::Equal,
    Branch::NotEqual,
];

/// Trees whose branches lead to any two of the nodes that come next; some nodes are shared, as the format allows.
fn ensemble(random: &mut Random, trees: usize, targets: usize, aggregate: Aggregate) -> Ensemble {
    let (mut nodes, mut roots, mut leaves) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..trees {
        let first = nodes.len();
        let size = 1 + 2 * random.below(12);
        roots.push(first);
        for at in 0..size {
            let next = first + at + 1;
            if at < size / 2 {
                nodes.push(TreeNode::Branch {
                    mode: MODES[random.below(MODES.len())],
                    feature: random.below(FEATURES),
                    threshold: random.value(),
                    yes: next + random.below(size - at - 1),
                    no: next + random.below(size - at - 1),
                    missing_is_yes: random.below(2) == 1,
                });
                continue;
            }
            let start = leaves.len();
            let weights = if targets == 1 { 1 } else { random.below(3) };
            for _ in 0..weights {
                leaves.push((random.below(targets), random.below(1000) as f32 / 7.0 - 60.0));
            }
            nodes.push(TreeNode::Leaf {
                start,
                end: leaves.len(),
            });
        }
    }
    let base = (0..targets).map(|_| random.value()).collect();
    Ensemble::new(nodes, roots, leaves, base, aggregate).unwrap()
}

fn assert_same(ensemble: &Ensemble, forest: &Forest, x: &Tensor, set: InstructionSet) {
    let (rows, targets) = (x.shape[0], ensemble.targets());
    let expected = ensemble.run(x).unwrap();
    let mut prepared = Vec::new();
    let stride = targets + 1;
    let mut got = vec![7.0; rows * stride];
    let mut out = RowsMut {
        data: &mut got,
        stride,
    };
    let values = Rows::new(x.as_f32().unwrap(), x.shape[1]);
    trees(set, forest, values, rows, &mut prepared, &mut out);
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (got, expected) in got.chunks(stride).zip(expected.as_f32().unwrap().chunks(targets)) {
        assert_eq!(bits(&got[..targets]), bits(expected), "{set}");
        assert_eq!(got[targets], 7.0);
    }
}

#[test]
fn forests_give_the_bits_of_the_walk_tree_by_tree() {
    let mut random = Random(11);
    let aggregates = [Aggregate::Sum, Aggregate::Average, Aggregate::Min, Aggregate::Max];
    for (case, trees) in [0, 1, 5, 16, 17, 40, 3, 33]
        .into_iter()
        .cycle()
        .take(64)
        .enumerate()
    {
        let targets = if case % 3 == 0 { 3 } else { 1 };
        let ensemble = ensemble(&mut random, trees, targets, aggregates[case % 4]);
        let forest = Forest::new(&ensemble).unwrap();
        assert_eq!(forest.trees(), trees);
        for rows in [1, 15, 16, 37] {
            let values = (0..rows * (FEATURES + 1)).map(|_| match random.below(20) {
                0 => f32::NAN,
                1 => f32::NEG_INFINITY,
                _ => random.value(),
            });
            let x = Tensor::f32(vec![rows, FEATURES + 1], values.collect());
            for set in InstructionSet::available() {
                assert_same(&ensemble, &forest, &x, set);
            }
        }
    }
}

#[test]
fn thresholds_that_are_none_are_left_to_the_interpreter() {
    let one = |mode, threshold| {
        let branch = TreeNode::Branch {
            mode,
            feature: 0,
            threshold,
            yes: 1,
            no: 2,
            missing_is_yes: false,
        };
        let leaf = |at| TreeNode::Leaf {
            start: at,
            end: at + 1,
        };
        let leaves = vec![(0, 1.0), (0, 2.0)];
        let nodes = vec![branch, leaf(0), leaf(1)];
        Ensemble::new(nodes, vec![0], leaves, vec![0.0], Aggregate::Sum).unwrap()
    };
    assert!(Forest::new(&one(Branch::LessOrEqual, f32::NAN)).is_none());
    assert!(Forest::new(&one(Branch::Less, f32::NEG_INFINITY)).is_none());
    let forest = Forest::new(&one(Branch::LessOrEqual, f32::NEG_INFINITY)).unwrap();
    assert_eq!(forest.comparisons(), 1);
}
