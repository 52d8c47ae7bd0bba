//! FarmHash's `Fingerprint64`, after the reference implementation of Google (MIT): TensorFlow's `string_to_hash_bucket_fast`
//! and Keras's `Hashing` are made on it.

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..].first_chunk();
    u64::from_le_bytes(*word.expect("callers leave room for 8 bytes"))
}

fn half(bytes: &[u8], at: usize) -> u64 {
    let half = bytes[at..].first_chunk();
    u32::from_le_bytes(*half.expect("callers leave room for 4 bytes")).into()
}

fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

fn mix(u: u64, v: u64, multiplier: u64) -> u64 {
    let a = shift_mix((u ^ v).wrapping_mul(multiplier));
    shift_mix((v ^ a).wrapping_mul(multiplier)).wrapping_mul(multiplier)
}

pub fn fingerprint64(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => up_to_16(bytes),
        17..=32 => up_to_32(bytes),
        33..=64 => up_to_64(bytes),
        _ => longer(bytes),
    }
}

fn multiplier(bytes: &[u8]) -> u64 {
    K2.wrapping_add(bytes.len() as u64 * 2)
}

fn up_to_16(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let multiplier = multiplier(bytes);
    match length {
        0 => K2,
        1..=3 => {
            let byte = |at: usize| u64::from(bytes[at]);
            let y = byte(0) + (byte(length / 2) << 8);
            let z = length as u64 + (byte(length - 1) << 2);
            shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
        }
        4..=7 => mix(
            length as u64 + (half(bytes, 0) << 3),
            half(bytes, length - 4),
            multiplier,
        ),
        _ => {
            let a = word(bytes, 0).wrapping_add(K2);
            let b = word(bytes, length - 8);
            let c = b.rotate_right(37).wrapping_mul(multiplier).wrapping_add(a);
            let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(multiplier);
            mix(c, d, multiplier)
        }
    }
}

fn up_to_32(bytes: &[u8]) -> u64 {
    let multiplier = multiplier(bytes);
    let (u, v) = four(ends(bytes, K1), K2);
    mix(u, v, multiplier)
}

fn up_to_64(bytes: &[u8]) -> u64 {
    let (length, multiplier) = (bytes.len(), multiplier(bytes));
    let words = ends(bytes, K2);
    let (y, v) = four(words, K2);
    let z = mix(y, v, multiplier);
    let e = word(bytes, 16).wrapping_mul(multiplier);
    let f = word(bytes, 24);
    let g = y.wrapping_add(word(bytes, length - 32)).wrapping_mul(multiplier);
    let h = z.wrapping_add(word(bytes, length - 24)).wrapping_mul(multiplier);
    let (u, v) = four([e, f, g, h], words[0]);
    mix(u, v, multiplier)
}

/// Two words from the beginning, the first of them times `first`, and two from the end.
fn ends(bytes: &[u8], first: u64) -> [u64; 4] {
    let length = bytes.len();
    [
        word(bytes, 0).wrapping_mul(first),
        word(bytes, 8),
        word(bytes, length - 8).wrapping_mul(multiplier(bytes)),
        word(bytes, length - 16).wrapping_mul(K2),
    ]
}

/// Two words of four, and a seed.
fn four([a, b, c, d]: [u64; 4], seed: u64) -> (u64, u64) {
    let u = a
        .wrapping_add(b)
        .rotate_right(43)
        .wrapping_add(c.rotate_right(30));
    let v = a.wrapping_add(b.wrapping_add(seed).rotate_right(18));
    (u.wrapping_add(d), v.wrapping_add(c))
}

/// Two words from the 32 bytes at `at`, and two seeds.
fn weak(bytes: &[u8], at: usize, (a, b): (u64, u64)) -> (u64, u64) {
    let [w, x, y, z] = [0, 8, 16, 24].map(|offset| word(bytes, at + offset));
    let a = a.wrapping_add(w);
    let b = b.wrapping_add(a).wrapping_add(z).rotate_right(21);
    let c = a;
    let a = a.wrapping_add(x).wrapping_add(y);
    (
        a.wrapping_add(z),
        b.wrapping_add(a.rotate_right(44)).wrapping_add(c),
    )
}

/// In blocks of 64 bytes, the last of which may overlap the one before.
fn longer(bytes: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let mut state = State {
        x: SEED.wrapping_mul(K2).wrapping_add(word(bytes, 0)),
        y,
        z: shift_mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2),
        v: (0, 0),
        w: (0, 0),
    };
    for at in (0..=(bytes.len() - 1) / 64 * 64 - 64).step_by(64) {
        state.block(bytes, at, (K1, 1));
    }
    let multiplier = K1.wrapping_add((state.z & 0xff) << 1);
    state.w.0 = state.w.0.wrapping_add((bytes.len() as u64 - 1) & 63);
    state.v.0 = state.v.0.wrapping_add(state.w.0);
    state.w.0 = state.w.0.wrapping_add(state.v.0);
    state.block(bytes, bytes.len() - 64, (multiplier, 9));
    let State { x, y, z, v, w } = state;
    let first = mix(v.0, w.0, multiplier).wrapping_add(shift_mix(y).wrapping_mul(K0));
    let second = mix(v.1, w.1, multiplier).wrapping_add(x);
    mix(first.wrapping_add(z), second, multiplier)
}

/// What goes from block to block.
struct State {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl State {
    /// Takes in the 64 bytes at `at`; the last ones have a multiplier and a factor of their own.
    fn block(&mut self, bytes: &[u8], at: usize, (multiplier, factor): (u64, u64)) {
        let Self { x, y, z, v, w } = self;
        let word = |offset: usize| word(bytes, at + offset);
        *x = x.wrapping_add(*y).wrapping_add(v.0).wrapping_add(word(8));
        *x = x.rotate_right(37).wrapping_mul(multiplier);
        *y = y.wrapping_add(v.1).wrapping_add(word(48));
        *y = y.rotate_right(42).wrapping_mul(multiplier);
        *x ^= w.1.wrapping_mul(factor);
        *y = y.wrapping_add(v.0.wrapping_mul(factor)).wrapping_add(word(40));
        *z = z.wrapping_add(w.0).rotate_right(33).wrapping_mul(multiplier);
        *v = weak(bytes, at, (v.1.wrapping_mul(multiplier), x.wrapping_add(w.0)));
        let seeds = (z.wrapping_add(w.1), y.wrapping_add(word(16)));
        *w = weak(bytes, at + 32, seeds);
        std::mem::swap(z, x);
    }
}
