use super::*;
use crate::kernel::{InstructionSet, Pair};

type Fused = fn(f32, f32, f32) -> f32;

/// One accumulator an output, in the order of k: what a product is.
fn by_definition<W, A>(
    job: &Product<'_, W, A>,
    a: Rows<'_>,
    out: &mut [f32],
    (matrix, [k, n]): (&[f32], [usize; 2]),
    (rounded, fused): (fn(f32) -> f32, Fused),
) {
    for row in 0..job.rows {
        for column in 0..n {
            let mut sum = match job.start {
                Start::Zero => 0.0,
                Start::Row(start) => start[column],
                Start::Rows(rows) => rows.row(row, n)[column],
            };
            for at in 0..k {
                sum = fused(rounded(a.row(row, k)[at]), rounded(matrix[at * n + column]), sum);
            }
            out[row * n + column] = if job.relu && sum < 0.0 { 0.0 } else { sum };
        }
    }
}

/// Numbers of all sizes; some are no numbers, or infinite, or denormal where `odd`.
pub fn numbers(count: usize, seed: u32, odd: bool) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).max(1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    let number = |_| {
        let bits = next();
        match bits % 97 {
            0 if odd => f32::NAN,
            1 if odd => f32::INFINITY,
            2 if odd => f32::NEG_INFINITY,
            3 if odd => -0.0,
            4..20 if odd => f32::from_bits(bits & 0x807f_ffff),
            _ => (bits >> 8) as f32 / 8_388_608.0 - 1.0,
        }
    };
    (0..count).map(number).collect()
}

/// Bits, every NaN the same.
pub fn bits(values: &[f32]) -> Vec<u32> {
    let canonical = |x: &f32| if x.is_nan() { f32::NAN } else { *x }.to_bits();
    values.iter().map(canonical).collect()
}

const SIZES: &[(usize, usize, usize)] = &[
    (0, 3, 5),
    (1, 1, 1),
    (1, 7, 250),
    (2, 5, 16),
    (3, 300, 33),
    (4, 0, 17),
    (5, 13, 48),
    (6, 16, 15),
    (7, 429, 224),
    (12, 31, 64),
    (29, 257, 46),
    (41, 600, 100),
];

/// Inputs of one size, and what they start at.
struct Case {
    sizes: [usize; 3],
    matrix: Vec<f32>,
    a: Vec<f32>,
    starts: Vec<f32>,
    index: Vec<usize>,
    relu: bool,
}

impl Case {
    /// Every size, three times: with numbers as models have them, with odd ones, and with small ones, whose products are denormal.
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for (at, (rows, k, n)) in SIZES.iter().copied().enumerate() {
            for (odd, scale) in [(false, 1.0), (true, 1.0), (false, 2.0_f32.powi(-64))] {
                let seed = u32::try_from(at).unwrap() + 1;
                let numbers = |count: usize, seed: u32| -> Vec<f32> {
                    let numbers = numbers(count, seed, odd).into_iter();
                    numbers.map(|x| x * scale).collect()
                };
                cases.push(Self {
                    sizes: [rows, k, n],
                    matrix: numbers(k * n, seed),
                    a: numbers(rows * (k + 3), seed + 100),
                    starts: numbers((rows + 1) * (n + 1), seed + 200),
                    index: (0..rows).map(|row| (row * 7) % (rows + 1)).collect(),
                    relu: at % 2 == 0,
                });
            }
        }
        cases
    }

    fn rows(&self) -> Rows<'_> {
        Rows::new(&self.a, self.sizes[1] + 3)
    }

    fn products<'a, W, A: Copy>(&'a self, weights: &'a W, a: A) -> [Product<'a, W, A>; 4] {
        let [rows, _, n] = self.sizes;
        let indexed = Rows {
            data: &self.starts,
            stride: n + 1,
            index: Some(&self.index),
        };
        let starts = [
            Start::Zero,
            Start::Row(&self.starts),
            Start::Rows(indexed),
            Start::Rows(Rows::new(&self.starts, n)),
        ];
        let product = |start| Product {
            rows,
            a,
            weights,
            start,
            relu: self.relu,
        };
        starts.map(product)
    }

    /// Weights for the first columns of the rows, and for the others.
    fn cut(&self, first: usize) -> Bf16Weights {
        let [_, k, n] = self.sizes;
        let (above, below) = self.matrix.split_at(first * n);
        let joined = Bf16Weights::new(above, &[first], n).over(&Bf16Weights::new(below, &[k - first], n));
        let cut = Bf16Weights::new(&self.matrix, &[first, k - first], n);
        let pairs =
            |weights: &Bf16Weights| -> Vec<_> { weights.packed.lines.iter().map(|line| line.0).collect() };
        assert_eq!(pairs(&cut), pairs(&joined));
        assert_eq!((cut.k(), cut.depth()), (joined.k(), joined.depth()));
        cut
    }

    fn rounded(&self, set: InstructionSet, first: usize) -> Vec<Pair> {
        let [rows, k, _] = self.sizes;
        let depth = first.div_ceil(2) + (k - first).div_ceil(2);
        let mut pairs = vec![Pair::default(); rows * depth];
        let mut at = 0;
        for (from, width) in [(0, first), (first, k - first)] {
            let a = Rows::new(&self.a[from.min(self.a.len())..], k + 3);
            at = bf16::round(set, a, [rows, width], bf16::Columns { at, depth }, &mut pairs);
        }
        pairs
    }

    fn compare(&self, expected: &[f32], set: InstructionSet, multiply: impl Fn(&mut RowsMut<'_>)) {
        let [rows, k, n] = self.sizes;
        let stride = n + 2;
        let mut out = vec![7.0; rows * stride];
        multiply(&mut RowsMut {
            data: &mut out,
            stride,
        });
        for (row, got) in out.chunks_exact(stride).enumerate() {
            let expected = &expected[row * n..(row + 1) * n];
            assert_eq!(bits(&got[..n]), bits(expected), "{set}: {rows} x {k} x {n}");
            assert_eq!(got[n..], [7.0, 7.0], "{set} writes beyond the row");
        }
    }

    fn compare_rounded(&self, expected: &[f32], set: InstructionSet, multiply: impl Fn(&mut RowsMut<'_>)) {
        let [rows, k, n] = self.sizes;
        let (depth, beyond) = (n.div_ceil(2), f32::from_bits(1));
        let mut out = vec![beyond; rows * (depth + 1)];
        multiply(&mut RowsMut {
            data: &mut out,
            stride: depth + 1,
        });
        for (row, got) in out.chunks_exact(depth + 1).enumerate() {
            let expected = &expected[row * n..(row + 1) * n];
            let halves = |pair: &Pair| [pair.first(), pair.second()];
            let got_halves: Vec<f32> = bf16::pairs(&got[..depth]).iter().flat_map(halves).collect();
            let pair = |two: &[f32]| halves(&Pair::new(two[0], two.get(1).copied().unwrap_or(0.0)));
            let expected: Vec<f32> = expected.chunks(2).flat_map(pair).collect();
            assert_eq!(bits(&got_halves), bits(&expected), "{set}: {rows} x {k} x {n}");
            assert_eq!(got[depth].to_bits(), 1, "{set} writes beyond the row");
        }
    }
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_definition() {
    for case in Case::all() {
        let [rows, k, n] = case.sizes;
        let weights = Packed::new(&case.matrix, k, n);
        for job in case.products(&weights, case.rows()) {
            let mut expected = vec![0.0; rows * n];
            let fused: Fused = |x, y, sum| x.mul_add(y, sum);
            by_definition(
                &job,
                case.rows(),
                &mut expected,
                (&case.matrix, [k, n]),
                (|x| x, fused),
            );
            for set in InstructionSet::available() {
                case.compare(&expected, set, |out| multiply(set, &job, out));
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_definition_in_bf16() {
    for case in Case::all() {
        let [rows, k, n] = case.sizes;
        if k == 0 {
            continue;
        }
        let weights = Bf16Weights::new(&case.matrix, &[k], n);
        assert_eq!(weights.bytes(), 4 * k.div_ceil(2) * n.next_multiple_of(LANES));
        let none = PairRows {
            pairs: &[],
            stride: 0,
        };
        for job in case.products(&weights, none) {
            let mut expected = vec![0.0; rows * n];
            let rounded = |x: f32| Pair::new(x, 0.0).first();
            by_definition(
                &job,
                case.rows(),
                &mut expected,
                (&case.matrix, [k, n]),
                (rounded, bf16::multiply_add),
            );
            // Columns that come from one place, or from two, as many of each or not.
            for first in [k, k / 2, 1] {
                let weights = case.cut(first);
                for set in InstructionSet::available() {
                    let pairs = case.rounded(set, first);
                    let job = Product {
                        a: PairRows {
                            pairs: &pairs,
                            stride: weights.depth(),
                        },
                        weights: &weights,
                        ..job
                    };
                    case.compare(&expected, set, |out| multiply_bf16(set, &job, out));
                    if weights.may_round() {
                        case.compare_rounded(&expected, set, |out| multiply_and_round(set, &job, out));
                    }
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "is outside of")]
fn rows_outside_of_the_input_are_not_read() {
    let weights = Packed::new(&[1.0; 12], 3, 4);
    let job = Product {
        rows: 2,
        a: Rows::new(&[0.0; 5], 3),
        weights: &weights,
        start: Start::Zero,
        relu: false,
    };
    let mut out = [0.0; 8];
    let mut target = RowsMut {
        data: &mut out,
        stride: 4,
    };
    multiply(InstructionSet::Portable, &job, &mut target);
}
