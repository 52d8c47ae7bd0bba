//! The symbols, with the signatures of nvml.h. A pointer from the caller may be null or point to memory for one value.
#![allow(unsafe_code, non_snake_case)]

use std::ffi::{c_char, c_uint, c_ulonglong};
use std::time::{Duration, Instant};

use nvml_wrapper_sys::bindings::*;

use crate::gpu::{self, Gpu};
use crate::library::{self, LOOK};
use crate::script::Question;

const SUCCESS: nvmlReturn_t = nvmlReturn_enum_NVML_SUCCESS;
const INVALID_ARGUMENT: nvmlReturn_t = nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT;

/// A handle is the index and one, so that none is null.
fn handle(index: u32) -> nvmlDevice_t {
    std::ptr::without_provenance_mut(index as usize + 1)
}

fn index(device: nvmlDevice_t) -> Option<u32> {
    u32::try_from(device.addr().checked_sub(1)?).ok()
}

/// Writes through a pointer of the caller.
fn put<T>(target: *mut T, value: T) -> nvmlReturn_t {
    if target.is_null() {
        return INVALID_ARGUMENT;
    }
    // SAFETY: nvml.h asks callers for a pointer to one value that may be written.
    unsafe { target.write(value) };
    SUCCESS
}

/// Writes a C string into a buffer of the caller.
fn put_text(target: *mut c_char, length: c_uint, text: &str) -> nvmlReturn_t {
    if target.is_null() {
        return INVALID_ARGUMENT;
    }
    if text.len() >= length as usize {
        return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (offset, byte) in text.bytes().chain([0]).enumerate() {
        // SAFETY: nvml.h asks callers for `length` bytes; text and end are no more, as checked above.
        unsafe { target.add(offset).write(byte as c_char) };
    }
    SUCCESS
}

/// Asks a device, if it is there, not lost, and supports the question.
fn ask(device: nvmlDevice_t, question: Question, answer: impl FnOnce(&Gpu) -> nvmlReturn_t) -> nvmlReturn_t {
    let Some(index) = index(device) else {
        return INVALID_ARGUMENT;
    };
    let gpu = library::ask(|library| {
        let there = index < library.gpus();
        there.then(|| library.gpu(index, Instant::now()))
    });
    match gpu {
        None => nvmlReturn_enum_NVML_ERROR_UNINITIALIZED,
        Some(None) => INVALID_ARGUMENT,
        Some(Some(gpu)) if gpu.is_lost() => nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST,
        Some(Some(gpu)) if !gpu.supports(question) => nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED,
        Some(Some(gpu)) => answer(&gpu),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> nvmlReturn_t {
    match library::init() {
        Ok(()) => SUCCESS,
        Err(error) => {
            eprintln!("simulated NVML: PINNACE_NVML_SIM_SCRIPT: {error}");
            INVALID_ARGUMENT
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> nvmlReturn_t {
    library::shutdown();
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> nvmlReturn_t {
    put_text(version, length, "0.0-simulated")
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> nvmlReturn_t {
    library::ask(|library| library.gpus())
        .map_or(nvmlReturn_enum_NVML_ERROR_UNINITIALIZED, |gpus| put(count, gpus))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) -> nvmlReturn_t {
    match library::ask(|library| index < library.gpus()) {
        None => nvmlReturn_enum_NVML_ERROR_UNINITIALIZED,
        Some(false) => INVALID_ARGUMENT,
        Some(true) => put(device, handle(index)),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetName(device: nvmlDevice_t, name: *mut c_char, length: c_uint) -> nvmlReturn_t {
    ask(device, Question::Name, |gpu| put_text(name, length, &gpu.name()))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUUID(device: nvmlDevice_t, uuid: *mut c_char, length: c_uint) -> nvmlReturn_t {
    ask(device, Question::Uuid, |gpu| put_text(uuid, length, &gpu.uuid()))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUtilizationRates(
    device: nvmlDevice_t,
    rates: *mut nvmlUtilization_t,
) -> nvmlReturn_t {
    ask(device, Question::Utilization, |gpu| {
        let (gpu, memory) = (gpu.utilization, gpu.utilization / 2);
        put(rates, nvmlUtilization_t { gpu, memory })
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, info: *mut nvmlMemory_v2_t) -> nvmlReturn_t {
    ask(device, Question::Memory, |gpu| {
        let memory = nvmlMemory_v2_t {
            version: 0x0200_0000 | size_of::<nvmlMemory_v2_t>() as c_uint,
            total: gpu::MEMORY_TOTAL,
            reserved: 0,
            free: gpu::MEMORY_TOTAL - gpu.memory_used(),
            used: gpu.memory_used(),
        };
        put(info, memory)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetPowerUsage(device: nvmlDevice_t, milliwatts: *mut c_uint) -> nvmlReturn_t {
    ask(device, Question::Power, |gpu| put(milliwatts, gpu.milliwatts()))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetEnforcedPowerLimit(device: nvmlDevice_t, milliwatts: *mut c_uint) -> nvmlReturn_t {
    ask(device, Question::PowerLimit, |_| {
        put(milliwatts, gpu::POWER_LIMIT_MILLIWATTS)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTemperature(
    device: nvmlDevice_t,
    _sensor: nvmlTemperatureSensors_t,
    celsius: *mut c_uint,
) -> nvmlReturn_t {
    ask(device, Question::Temperature, |gpu| put(celsius, gpu.celsius()))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetClockInfo(
    device: nvmlDevice_t,
    kind: nvmlClockType_t,
    megahertz: *mut c_uint,
) -> nvmlReturn_t {
    ask(device, Question::Clocks, |gpu| {
        let memory = kind == nvmlClockType_enum_NVML_CLOCK_MEM;
        put(megahertz, if memory { gpu::MEMORY_MHZ } else { gpu.megahertz() })
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetCurrentClocksThrottleReasons(
    device: nvmlDevice_t,
    reasons: *mut c_ulonglong,
) -> nvmlReturn_t {
    ask(device, Question::Throttled, |gpu| {
        put(reasons, gpu.throttle_bits())
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetMigMode(
    device: nvmlDevice_t,
    current: *mut c_uint,
    pending: *mut c_uint,
) -> nvmlReturn_t {
    ask(device, Question::Mig, |gpu| {
        let mode = c_uint::from(gpu.is_mig());
        match put(current, mode) {
            SUCCESS => put(pending, mode),
            error => error,
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetTotalEccErrors(
    device: nvmlDevice_t,
    _kind: nvmlMemoryErrorType_t,
    _counter: nvmlEccCounterType_t,
    errors: *mut c_ulonglong,
) -> nvmlReturn_t {
    ask(device, Question::Ecc, |_| put(errors, 0))
}

/// Only this process; callers that ask how many there are give room for none.
#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: nvmlDevice_t,
    count: *mut c_uint,
    processes: *mut nvmlProcessInfo_t,
) -> nvmlReturn_t {
    ask(device, Question::Processes, |gpu| {
        if count.is_null() {
            return INVALID_ARGUMENT;
        }
        // SAFETY: not null, and nvml.h asks callers for a value that may be read and written.
        let room = unsafe { count.replace(1) };
        if room == 0 {
            return nvmlReturn_enum_NVML_ERROR_INSUFFICIENT_SIZE;
        }
        let process = nvmlProcessInfo_t {
            pid: std::process::id(),
            usedGpuMemory: gpu.memory_used(),
            gpuInstanceId: c_uint::MAX,
            computeInstanceId: c_uint::MAX,
        };
        put(processes, process)
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetSupportedEventTypes(
    device: nvmlDevice_t,
    types: *mut c_ulonglong,
) -> nvmlReturn_t {
    ask(device, Question::Events, |_| {
        put(types, c_ulonglong::from(nvmlEventTypeXidCriticalError))
    })
}

/// There is one set of events, and its handle is only no null pointer.
#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetCreate(set: *mut nvmlEventSet_t) -> nvmlReturn_t {
    put(set, std::ptr::without_provenance_mut(1))
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceRegisterEvents(
    device: nvmlDevice_t,
    _types: c_ulonglong,
    _set: nvmlEventSet_t,
) -> nvmlReturn_t {
    ask(device, Question::Events, |_| SUCCESS)
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetWait_v2(
    _set: nvmlEventSet_t,
    data: *mut nvmlEventData_t,
    timeout_ms: c_uint,
) -> nvmlReturn_t {
    let until = Instant::now() + Duration::from_millis(timeout_ms.into());
    loop {
        let event = match library::ask(|library| library.next_xid(Instant::now())) {
            None => return nvmlReturn_enum_NVML_ERROR_UNINITIALIZED,
            Some(event) => event,
        };
        if let Some(code) = event {
            let event = nvmlEventData_t {
                device: handle(0),
                eventType: c_ulonglong::from(nvmlEventTypeXidCriticalError),
                eventData: code,
                gpuInstanceId: c_uint::MAX,
                computeInstanceId: c_uint::MAX,
            };
            return put(data, event);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return nvmlReturn_enum_NVML_ERROR_TIMEOUT;
        }
        std::thread::sleep(left.min(LOOK));
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlEventSetFree(_set: nvmlEventSet_t) -> nvmlReturn_t {
    SUCCESS
}
