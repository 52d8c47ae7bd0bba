//! Driver calls, into our words. Every call may hang; only the sampler's thread comes here.

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use super::sample::{Gpu, Memory, Reading, Throttle};

/// The GPU has fallen off the bus.
struct Lost;

/// All GPUs; an error when the driver does not even say how many there are.
pub fn gpus(nvml: &Nvml) -> Result<Vec<Gpu>, NvmlError> {
    let count = nvml.device_count()?;
    let gpu = |index| match nvml.device_by_index(index) {
        Ok(device) => reading(&device).map_or_else(|Lost| Gpu::Lost, Gpu::Seen),
        Err(NvmlError::GpuLost) => Gpu::Lost,
        Err(_) => Gpu::Seen(Reading::default()),
    };
    Ok((0..count).map(gpu).collect())
}

/// What is not supported, not permitted or out of order is unknown; which of them it is, the driver's own tools say.
fn known<T>(answer: Result<T, NvmlError>) -> Result<Option<T>, Lost> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(NvmlError::GpuLost) => Err(Lost),
        Err(_) => Ok(None),
    }
}

fn reading(device: &Device<'_>) -> Result<Reading, Lost> {
    let memory = known(device.memory_info())?.map(|memory| Memory {
        used: memory.used,
        total: memory.total,
    });
    let ecc = device.total_ecc_errors(MemoryError::Uncorrected, EccCounter::Volatile);
    Ok(Reading {
        name: known(device.name())?,
        uuid: known(device.uuid())?,
        utilization_percent: known(device.utilization_rates())?.map(|rates| rates.gpu),
        memory,
        power_milliwatts: known(device.power_usage())?,
        power_limit_milliwatts: known(device.enforced_power_limit())?,
        temperature_celsius: known(device.temperature(TemperatureSensor::Gpu))?,
        sm_clock_mhz: known(device.clock_info(Clock::SM))?,
        memory_clock_mhz: known(device.clock_info(Clock::Memory))?,
        throttled: known(device.current_throttle_reasons())?.map(throttled),
        mig: mig(device)?,
        ecc_errors: known(ecc)?,
        processes: known(device.running_compute_processes_count())?,
    })
}

/// A GPU that does not support MIG is not in that mode.
fn mig(device: &Device<'_>) -> Result<Option<bool>, Lost> {
    const ENABLED: u32 = 1;
    match device.mig_mode() {
        Err(NvmlError::NotSupported) => Ok(Some(false)),
        answer => Ok(known(answer)?.map(|mode| mode.current == ENABLED)),
    }
}

fn throttled(reasons: ThrottleReasons) -> Vec<Throttle> {
    let flag = |reason| match reason {
        Throttle::ApplicationClocks => ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
        Throttle::PowerCap => ThrottleReasons::SW_POWER_CAP,
        Throttle::HwSlowdown => ThrottleReasons::HW_SLOWDOWN,
        Throttle::SyncBoost => ThrottleReasons::SYNC_BOOST,
        Throttle::SwThermal => ThrottleReasons::SW_THERMAL_SLOWDOWN,
        Throttle::HwThermal => ThrottleReasons::HW_THERMAL_SLOWDOWN,
        Throttle::PowerBrake => ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
        Throttle::DisplayClocks => ThrottleReasons::DISPLAY_CLOCK_SETTING,
    };
    let in_force = |reason: &Throttle| reasons.contains(flag(*reason));
    Throttle::ALL.into_iter().filter(in_force).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_gpu_is_not_throttled() {
        assert_eq!(throttled(ThrottleReasons::NONE), []);
        assert_eq!(throttled(ThrottleReasons::GPU_IDLE), []);
        assert_eq!(throttled(ThrottleReasons::all()), Throttle::ALL);
        let both = ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_POWER_CAP;
        assert_eq!(throttled(both), [Throttle::PowerCap]);
    }

    #[test]
    fn only_a_lost_gpu_is_lost() {
        assert!(matches!(known::<()>(Err(NvmlError::GpuLost)), Err(Lost)));
        for unknown in [
            NvmlError::NotSupported,
            NvmlError::NoPermission,
            NvmlError::Unknown,
            NvmlError::FailedToLoadSymbol(String::new()),
        ] {
            assert!(matches!(known::<()>(Err(unknown)), Ok(None)));
        }
    }
}
