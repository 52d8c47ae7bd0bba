//! Instruction sets that kernels exist for.

/// Every set gives the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    #[default]
    Portable,
}
