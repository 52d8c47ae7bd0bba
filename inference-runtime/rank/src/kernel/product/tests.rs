use super::*;
use crate::kernel::InstructionSet;

/// One accumulator an output, in the order of k: what a product is.
fn by_definition(job: &Product<'_>, out: &mut [f32], matrix: &[f32]) {
    let (k, n) = (job.weights.k(), job.weights.n());
    for row in 0..job.rows {
        for column in 0..n {
            let mut sum = match job.start {
                Start::Zero => 0.0,
                Start::Row(start) => start[column],
                Start::Rows(rows) => rows.row(row, n)[column],
            };
            for at in 0..k {
                sum = job.a.row(row, k)[at].mul_add(matrix[at * n + column], sum);
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

#[test]
fn every_instruction_set_gives_the_bits_of_the_definition() {
    for (at, (rows, k, n)) in SIZES.iter().copied().enumerate() {
        for odd in [false, true] {
            let seed = u32::try_from(at).unwrap() + 1;
            let matrix = numbers(k * n, seed, odd);
            let weights = Packed::new(&matrix, k, n);
            let a = numbers(rows * (k + 3), seed + 100, odd);
            let starts = numbers((rows + 1) * (n + 1), seed + 200, odd);
            let index: Vec<usize> = (0..rows).map(|row| (row * 7) % (rows + 1)).collect();
            let indexed = Rows {
                data: &starts,
                stride: n + 1,
                index: Some(&index),
            };
            for start in [
                Start::Zero,
                Start::Row(&starts),
                Start::Rows(indexed),
                Start::Rows(Rows::new(&starts, n)),
            ] {
                let job = Product {
                    rows,
                    a: Rows::new(&a, k + 3),
                    weights: &weights,
                    start,
                    relu: at % 2 == 0,
                };
                let mut expected = vec![0.0; rows * n];
                by_definition(&job, &mut expected, &matrix);
                for set in InstructionSet::available() {
                    let mut out = vec![7.0; rows * (n + 2)];
                    let mut target = RowsMut {
                        data: &mut out,
                        stride: n + 2,
                    };
                    multiply(set, &job, &mut target);
                    for (row, got) in out.chunks_exact(n + 2).enumerate() {
                        let expected = &expected[row * n..(row + 1) * n];
                        assert_eq!(bits(&got[..n]), bits(expected), "{set}: {rows} x {k} x {n}");
                        assert_eq!(got[n..], [7.0, 7.0], "{set} writes beyond the row");
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
