//! Our own functions: the same bits on every instruction set, so that kernels can be tested by equality.
//!
//! Polynomials are those of the Cephes library (S. Moshier, single precision) but for `erf`, which is the rational
//! approximation of Eigen and XLA. Within 4 units in the last place of the true value where tests say so. Steps are
//! fused multiply-adds, as the vector kernels do them. Results below the smallest normal number are 0.

// Coefficients as they are published.
#![allow(clippy::excessive_precision)]

const LANES: usize = 16;

/// The sum in 16 lanes, lanes added as a tree: the same order whatever the vector width.
#[inline(always)]
pub fn tree(values: impl Iterator<Item = f32>, zero: f32, combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [zero; LANES];
    for (index, value) in values.enumerate() {
        let lane = &mut lanes[index % LANES];
        *lane = combine(*lane, value);
    }
    together(lanes, combine)
}

/// Lanes combined as a tree: each of the first half with the one half of all further on, until one is left.
#[inline(always)]
pub fn together<T: Copy>(mut lanes: [T; LANES], combine: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = combine(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[inline(always)]
pub fn sum(values: impl Iterator<Item = f32>) -> f32 {
    tree(values, 0.0, |a, b| a + b)
}

/// NaN if either is: a lost NaN is a silently wrong score.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    if a.is_nan() || a < b { a } else { b }
}

#[inline(always)]
pub fn relu(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x }
}

// exp(x) is a normal number between these.
const EXP_LOWEST: f32 = -87.336_54;
const EXP_HIGHEST: f32 = 88.722_83;

#[inline(always)]
pub fn exp(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    if x < EXP_LOWEST {
        return 0.0;
    }
    if x > EXP_HIGHEST {
        return f32::INFINITY;
    }
    // x = n ln 2 + r, ln 2 in two parts so that r is exact.
    let n = (x * std::f32::consts::LOG2_E).round_ties_even();
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1] {
        p = p.mul_add(r, coefficient);
    }
    let y = p.mul_add(r * r, r) + 1.0;
    // In two steps: 2^128 is no f32, but y * 2^128 may be one.
    #[allow(clippy::cast_possible_truncation)] // |n| <= 128
    let n = n as i32;
    y * power_of_two(n / 2) * power_of_two(n - n / 2)
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(u32::try_from(n + 127).unwrap_or(0) << 23)
}

#[inline(always)]
pub fn log(x: f32) -> f32 {
    if x.is_nan() || x < 0.0 {
        return f32::NAN;
    }
    if x < f32::MIN_POSITIVE {
        return f32::NEG_INFINITY;
    }
    if x.is_infinite() {
        return x;
    }
    // x = m 2^e with m in [sqrt(1/2), sqrt(2))
    let bits = x.to_bits();
    let mut e = f32::from(u8::try_from(bits >> 23 & 0xff).unwrap_or(0)) - 126.0;
    let mut m = f32::from_bits(bits & 0x007f_ffff | 0x3f00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1.0;
        m += m;
    }
    m -= 1.0;
    let z = m * m;
    let mut p = 7.037_683_6e-2_f32;
    for coefficient in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333_1e-1,
    ] {
        p = p.mul_add(m, coefficient);
    }
    let y = e.mul_add(-2.121_944_4e-4, p * m * z);
    let y = z.mul_add(-0.5, y);
    e.mul_add(0.693_359_4, m + y)
}

#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let size = x.abs();
    if size >= 0.625 {
        let y = 1.0 - 2.0 / (exp(size + size) + 1.0);
        return y.copysign(x);
    }
    let z = x * x;
    let mut p = -5.704_988_7e-3_f32;
    for coefficient in [2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1] {
        p = p.mul_add(z, coefficient);
    }
    (p * z).mul_add(x, x)
}

#[inline(always)]
pub fn erf(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let horner = |coefficients: &[f32]| coefficients.iter().fold(0.0_f32, |p, c| p.mul_add(z, *c));
    let p = horner(&[
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_5e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ]);
    let q = horner(&[
        -1.456_607_2e-5,
        -2.133_740_5e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ]);
    (x * p / q).clamp(-1.0, 1.0)
}

#[inline(always)]
pub fn gelu(x: f32, by_tanh: bool) -> f32 {
    if by_tanh {
        let inner = 0.797_884_6 * (x * x * x).mul_add(0.044_715, x);
        return 0.5 * x * (1.0 + tanh(inner));
    }
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// Whole exponents up to this are repeated products.
const WHOLE_POWER: f32 = 64.0;

#[inline(always)]
pub fn pow(x: f32, y: f32) -> f32 {
    if y == 0.5 {
        return x.sqrt();
    }
    if y.trunc() == y && y.abs() <= WHOLE_POWER {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 64
        let mut left = y.abs() as u32;
        let (mut result, mut base) = (1.0, x);
        while left > 0 {
            if left & 1 == 1 {
                result *= base;
            }
            base *= base;
            left >>= 1;
        }
        return if y < 0.0 { 1.0 / result } else { result };
    }
    if x.is_nan() || y.is_nan() {
        return f32::NAN;
    }
    let size = exp(y * log(x.abs()));
    match (x < 0.0, y.trunc() == y, y % 2.0 == 0.0) {
        (false, ..) | (true, true, true) => size,
        (true, true, false) => -size,
        (true, false, _) => f32::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units in the last place of the f64 result rounded to f32.
    fn ulps(got: f32, truth: f64) -> u32 {
        #[allow(clippy::cast_possible_truncation)]
        let truth = truth as f32;
        if truth.abs() < f32::MIN_POSITIVE {
            return u32::from(got != 0.0 && got != truth);
        }
        got.to_bits().abs_diff(truth.to_bits())
    }

    fn worst(range: (f32, f32), ours: fn(f32) -> f32, truth: fn(f64) -> f64) -> (u32, f32) {
        let step = (range.1 - range.0) / 200_000.0;
        let at = |index: u32| range.0 + step * index as f32;
        (0..=200_000)
            .map(|i| (ulps(ours(at(i)), truth(f64::from(at(i)))), at(i)))
            .max_by_key(|(ulps, _)| *ulps)
            .unwrap()
    }

    #[test]
    fn within_a_few_units_in_the_last_place() {
        for (name, range, ours, truth, allowed) in [
            (
                "exp",
                (-87.3, 88.7),
                exp as fn(f32) -> f32,
                f64::exp as fn(f64) -> f64,
                2,
            ),
            ("log", (1e-6, 10.0), log, f64::ln, 4),
            ("log", (10.0, 1e30), log, f64::ln, 2),
            ("tanh", (-10.0, 10.0), tanh, f64::tanh, 4),
            ("sigmoid", (-80.0, 80.0), sigmoid, |x| 1.0 / (1.0 + (-x).exp()), 4),
        ] {
            let (ulps, at) = worst(range, ours, truth);
            assert!(ulps <= allowed, "{name}({at}) is off by {ulps} ulps");
        }
    }

    #[test]
    fn erf_at_known_points() {
        for (x, truth) in [
            (0.0, 0.0),
            (0.1, 0.112_462_92),
            (0.5, 0.520_499_9),
            (1.0, 0.842_700_8),
            (2.0, 0.995_322_3),
            (5.0, 1.0),
        ] {
            assert!((erf(x) - truth).abs() < 3e-7, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
    }

    #[test]
    fn special_values_are_kept() {
        for function in [exp, log, sigmoid, tanh, erf, relu] {
            assert!(function(f32::NAN).is_nan());
        }
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(log(0.0), f32::NEG_INFINITY);
        assert!(log(-1.0).is_nan());
        assert_eq!(sigmoid(f32::NEG_INFINITY), 0.0);
        assert_eq!(tanh(f32::NEG_INFINITY), -1.0);
        assert!(max(f32::NAN, 1.0).is_nan() && max(1.0, f32::NAN).is_nan());
        assert!(min(f32::NAN, 1.0).is_nan() && min(1.0, f32::NAN).is_nan());
        assert_eq!(pow(-2.0, 3.0), -8.0);
        assert_eq!(pow(4.0, 0.5), 2.0);
        assert_eq!(pow(2.0, -2.0), 0.25);
        assert!(pow(-2.0, 0.3).is_nan());
    }

    #[test]
    fn a_tree_adds_by_lane_first() {
        let values: Vec<f32> = (0..40).map(|i| 1.0 + i as f32 * 1e-3).collect();
        let lane = |lane: usize| values.iter().skip(lane).step_by(16).fold(0.0, |a, b| a + b);
        let mut lanes: Vec<f32> = (0..16).map(lane).collect();
        while lanes.len() > 1 {
            let (low, high) = lanes.split_at(lanes.len() / 2);
            lanes = low.iter().zip(high).map(|(a, b)| a + b).collect();
        }
        assert_eq!(sum(values.iter().copied()), lanes[0]);
    }
}
