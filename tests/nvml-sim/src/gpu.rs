//! One simulated GPU at one moment. Only utilization means something; the rest is made up from it.

use crate::script::{Question, Step};

pub const MEMORY_TOTAL: u64 = 22_888 << 20;
pub const POWER_LIMIT_MILLIWATTS: u32 = 300_000;
const IDLE_MILLIWATTS: u32 = 60_000;
const IDLE_CELSIUS: u32 = 30;
const FULL_CELSIUS: u32 = 75;
const IDLE_MHZ: u32 = 210;
const FULL_MHZ: u32 = 1_710;
pub const MEMORY_MHZ: u32 = 6_251;
/// What a CUDA context takes before any model is loaded.
const CONTEXT_BYTES: u64 = 450 << 20;
/// NVML's bit for "nothing runs".
const IDLE_BIT: u64 = 1;

#[derive(Clone, Debug)]
pub struct Gpu {
    pub index: u32,
    /// Percent.
    pub utilization: u32,
    pub resident_bytes: u64,
    pub state: Step,
}

impl Gpu {
    pub fn name(&self) -> String {
        "NVIDIA A10G (simulated)".to_owned()
    }

    pub fn uuid(&self) -> String {
        format!("GPU-51511a7e-0000-0000-0000-{:012x}", self.index)
    }

    pub fn is_lost(&self) -> bool {
        let lost = self.state.lost.as_deref().unwrap_or_default();
        lost.contains(&self.index)
    }

    pub fn is_mig(&self) -> bool {
        self.state.mig.unwrap_or(false)
    }

    pub fn supports(&self, question: Question) -> bool {
        let unsupported = self.state.unsupported.as_deref().unwrap_or_default();
        !(unsupported.contains(&question) || question == Question::Utilization && self.is_mig())
    }

    pub fn memory_used(&self) -> u64 {
        let made_up = CONTEXT_BYTES + self.resident_bytes;
        let used = self.state.memory_used_mib.map_or(made_up, |mib| mib << 20);
        used.min(MEMORY_TOTAL)
    }

    pub fn milliwatts(&self) -> u32 {
        let made_up = self.between(IDLE_MILLIWATTS, POWER_LIMIT_MILLIWATTS);
        self.state
            .power_watts
            .map_or(made_up, |watts| (watts * 1000.0) as u32)
    }

    pub fn celsius(&self) -> u32 {
        let made_up = self.between(IDLE_CELSIUS, FULL_CELSIUS);
        self.state.temperature_celsius.unwrap_or(made_up)
    }

    pub fn megahertz(&self) -> u32 {
        self.between(IDLE_MHZ, FULL_MHZ)
    }

    pub fn throttle_bits(&self) -> u64 {
        let made_up = if self.utilization == 0 { IDLE_BIT } else { 0 };
        self.state.throttle_bits.unwrap_or(made_up)
    }

    fn between(&self, idle: u32, full: u32) -> u32 {
        idle + (full - idle) * self.utilization.min(100) / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(utilization: u32, state: Step) -> Gpu {
        Gpu {
            index: 1,
            utilization,
            resident_bytes: 50 << 20,
            state,
        }
    }

    #[test]
    fn made_up_between_idle_and_full() {
        let values = |utilization| {
            let gpu = gpu(utilization, Step::default());
            (
                gpu.milliwatts(),
                gpu.celsius(),
                gpu.megahertz(),
                gpu.throttle_bits(),
            )
        };
        assert_eq!(values(0), (60_000, 30, 210, 1));
        assert_eq!(values(50), (180_000, 52, 960, 0));
        assert_eq!(values(100), (300_000, 75, 1_710, 0));
        assert_eq!(gpu(0, Step::default()).memory_used(), 500 << 20);
        assert!(gpu(0, Step::default()).name().contains("simulated"));
    }

    #[test]
    fn a_script_goes_first() {
        let state = Step {
            memory_used_mib: Some(99_999),
            power_watts: Some(12.5),
            temperature_celsius: Some(90),
            throttle_bits: Some(4),
            lost: Some(vec![1]),
            ..Step::default()
        };
        let gpu = gpu(50, state);
        assert_eq!((gpu.memory_used(), gpu.milliwatts()), (MEMORY_TOTAL, 12_500));
        assert_eq!((gpu.celsius(), gpu.throttle_bits(), gpu.is_lost()), (90, 4, true));
    }

    #[test]
    fn mig_has_no_utilization() {
        let state = Step {
            mig: Some(true),
            unsupported: Some(vec![Question::Power]),
            ..Step::default()
        };
        let gpu = gpu(0, state);
        assert!(!gpu.supports(Question::Utilization) && !gpu.supports(Question::Power));
        assert!(gpu.supports(Question::Memory));
    }
}
