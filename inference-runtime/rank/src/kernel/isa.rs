//! Instruction sets that kernels exist for.

use std::fmt;
use std::str::FromStr;

/// Every set gives the same bits; which NaN a NaN is, is not promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InstructionSet {
    /// Plain Rust: right everywhere, and slow where the target has no fused multiply-add.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F.
    Avx512,
    /// AVX-512 F and BF16: products of bf16 by one instruction, everything else as AVX-512 F has it.
    Avx512Bf16,
}

impl InstructionSet {
    pub const ALL: [Self; 4] = [Self::Portable, Self::Avx2, Self::Avx512, Self::Avx512Bf16];

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

    /// Itself, or which ones this machine has.
    pub fn here(self) -> Result<Self, String> {
        if self.is_here() {
            return Ok(self);
        }
        let here: Vec<String> = Self::available().iter().map(ToString::to_string).collect();
        Err(format!("this machine has no {self}; it has {}", here.join(", ")))
    }

    /// Whether this machine has it; kernels of a set must not be called where it does not.
    #[cfg(target_arch = "x86_64")]
    pub fn is_here(self) -> bool {
        let avx2 = || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let avx512 = || avx2() && is_x86_feature_detected!("avx512f");
        match self {
            Self::Portable => true,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx512(),
            Self::Avx512Bf16 => avx512() && is_x86_feature_detected!("avx512bf16"),
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

impl FromStr for InstructionSet {
    type Err = String;

    /// By the name that `Display` gives.
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|set| set.to_string() == text);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|set| set.to_string()).join(", ");
            format!("instruction set {text:?} is none of {names}")
        })
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Avx512Bf16 => "avx512-bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_or_refused() {
        for set in InstructionSet::ALL {
            assert_eq!(set.to_string().parse(), Ok(set));
        }
        let refused = "sse9".parse::<InstructionSet>().unwrap_err();
        assert_eq!(
            refused,
            "instruction set \"sse9\" is none of portable, avx2, avx512, avx512-bf16"
        );
        assert_eq!(InstructionSet::available().last(), Some(&InstructionSet::best()));
    }
}
