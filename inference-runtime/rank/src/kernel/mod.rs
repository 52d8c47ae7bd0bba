//! Kernels: the inner loops of compiled plans, once for each instruction set, all with the same bits.
//!
//! The interpreter defines every result; a kernel may only choose in which order *different* outputs are computed. An
//! output of a product has one accumulator, filled in the order of K by fused multiply-adds; sums along an axis are trees of
//! 16 lanes. Denormals are kept, not flushed to zero: the interpreter and the portable kernels have no way to flush
//! them, and a score must not depend on the machine. Products in bf16 are another matter ([`mod@bf16`]).
//!
//! `unsafe` lives in this folder alone. Functions that other modules see are safe: they check bounds, and that the machine
//! has the instruction set, once a call.
#![allow(unsafe_code)]

mod arithmetic;
mod bf16;
mod elementwise;
mod gather;
mod isa;
mod memory;
mod pack;
mod product;
mod recurrent;
mod reduce;
mod rows;
mod table;
mod trees;
mod vector;

pub use bf16::{Columns, Pair, PairRows, pairs, pairs_mut, round, widen};
pub use elementwise::{binary, has_binary, has_unary, unary};
pub use gather::{Ids, OutsideTable, gather};
pub use isa::InstructionSet;
pub use memory::{LINE, Lines, prefetch};
pub use pack::{Bf16Weights, Packed};
pub use product::{Product, Start, multiply, multiply_and_round, multiply_bf16};
pub use recurrent::{Gru, Sequence, gru};
pub use reduce::{Groups, Norm, layer_norm, reduce, softmax};
pub use rows::{Rows, RowsMut, copy};
pub use table::Table;
pub use trees::{Forest, trees};

/// Compiles a body once for each instruction set. Rust never fuses or reorders floating-point operations by itself, so
/// that the same source gives the same bits under every one.
macro_rules! on_each_set {
    ($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:path) => {
        $(#[$doc])*
        pub fn $name(set: $crate::kernel::InstructionSet, $($argument: $type),*) {
            use $crate::kernel::InstructionSet;
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) {
                $body($($argument),*);
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f")]
            fn avx512($($argument: $type),*) {
                $body($($argument),*);
            }
            assert!(set.is_here(), "this machine has no {set}");
            match set {
                // SAFETY: the machine has the instruction set, as asserted above.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => unsafe { avx2($($argument),*) },
                // SAFETY: the same.
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 | InstructionSet::Avx512Bf16 => unsafe { avx512($($argument),*) },
                _ => $body($($argument),*),
            }
        }
    };
}
pub(crate) use on_each_set;
