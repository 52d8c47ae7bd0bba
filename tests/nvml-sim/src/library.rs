//! The state behind the symbols: the script, the meter, and which events were told.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engines::Meter;
use crate::gpu::Gpu;
use crate::script::{File, Step};

/// How often a call that hangs, or waits for events, looks again.
pub const LOOK: Duration = Duration::from_millis(20);

static LIBRARY: Mutex<Option<Library>> = Mutex::new(None);

#[derive(Debug)]
pub struct Library {
    started: Instant,
    file: File,
    meter: Meter,
    told: usize,
}

/// Reads the script; initialised twice, the first time stands.
pub fn init() -> Result<(), String> {
    let mut library = lock();
    if library.is_none() {
        let path = std::env::var_os("PINNACE_NVML_SIM_SCRIPT").map(PathBuf::from);
        *library = Some(Library::new(path, Instant::now())?);
    }
    Ok(())
}

pub fn shutdown() {
    *lock() = None;
}

/// Asks the library, once it does not hang; nothing when it is not initialised.
pub fn ask<T>(question: impl FnOnce(&mut Library) -> T) -> Option<T> {
    loop {
        let mut library = lock();
        let open = library.as_mut()?;
        if open.state(Instant::now()).hang != Some(true) {
            return Some(question(open));
        }
        drop(library);
        std::thread::sleep(LOOK);
    }
}

fn lock() -> MutexGuard<'static, Option<Library>> {
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    fn new(path: Option<PathBuf>, started: Instant) -> Result<Self, String> {
        Ok(Self {
            started,
            file: File::open(path)?,
            meter: Meter::default(),
            told: 0,
        })
    }

    pub fn gpus(&self) -> u32 {
        self.file.script.gpus
    }

    fn state(&mut self, now: Instant) -> Step {
        match self.file.refresh() {
            Ok(true) => self.told = 0,
            Ok(false) => {}
            Err(error) => eprintln!("simulated NVML: the old script stands: {error}"),
        }
        self.file.script.at(now.saturating_duration_since(self.started))
    }

    pub fn gpu(&mut self, index: u32, now: Instant) -> Gpu {
        let state = self.state(now);
        let utilization = state.utilization.unwrap_or_else(|| self.meter.percent(now));
        Gpu {
            index,
            utilization,
            resident_bytes: resident_bytes(),
            state,
        }
    }

    /// The next XID event that was not told yet.
    pub fn next_xid(&mut self, now: Instant) -> Option<u64> {
        let past = now.saturating_duration_since(self.started);
        let code = self.file.script.xids(past).get(self.told).copied();
        self.told += usize::from(code.is_some());
        code
    }
}

/// Of this process; 0 when /proc does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_ascii_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_once_and_anew_with_a_new_script() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        let script = r#"{"steps": [{"xid": 13}, {"atSeconds": 5, "xid": 79}]}"#;
        std::fs::write(&path, script).unwrap();
        let start = Instant::now();
        let mut library = Library::new(Some(path.clone()), start).unwrap();
        let later = start + Duration::from_secs(5);
        assert_eq!(
            (library.next_xid(start), library.next_xid(start)),
            (Some(13), None)
        );
        assert_eq!(
            (library.next_xid(later), library.next_xid(later)),
            (Some(79), None)
        );
        std::fs::write(folder.path().join("new"), script).unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        library.state(later);
        assert_eq!(library.next_xid(later), Some(13));
    }

    #[test]
    fn a_scripted_utilization_stays_for_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("script.json");
        std::fs::write(&path, r#"{"steps": [{"utilization": 100}]}"#).unwrap();
        let start = Instant::now();
        let mut library = Library::new(Some(path), start).unwrap();
        let gpu = library.gpu(0, start + Duration::from_secs(3600));
        assert_eq!((gpu.utilization, gpu.milliwatts()), (100, 300_000));
        assert!(gpu.memory_used() > 450 << 20);
    }
}
