//! Instruction sets that kernels exist for.

use std::fmt;

/// Every set gives the same bits; which NaN a NaN is, is not promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust: right everywhere, and slow where the target has no fused multiply-add.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F.
    Avx512,
}

impl InstructionSet {
    const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// Those that this machine has, the slowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|set| set.is_here()).collect()
    }

    /// The fastest that this machine has.
    pub fn best() -> Self {
        Self::ALL
            .into_iter()
            .rfind(|set| set.is_here())
            .unwrap_or(Self::Portable)
    }

    /// Whether this machine has it; kernels of a set must not be called where it does not.
    #[cfg(target_arch = "x86_64")]
    pub fn is_here(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx2() && is_x86_feature_detected!("avx512f"),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_here(self) -> bool {
        self == Self::Portable
    }
}

impl Default for InstructionSet {
    fn default() -> Self {
        Self::best()
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        })
    }
}
