//! The thread that asks the driver once a second, and waits for XID events in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::{NvmlError, NvmlErrorWithSource};
use nvml_wrapper::{EventSet, Nvml};

use super::board::Board;
use super::read;
use super::sample::Sample;

const PERIOD: Duration = Duration::from_secs(1);
/// A wait that comes back early for no reason must not spin.
const PAUSE: Duration = Duration::from_millis(10);
/// The loader finds it; the NVIDIA container runtime puts it into the container.
const LIBRARY: &str = "libnvidia-ml.so.1";
/// What NVML says for a code it does not know; we use it for codes that no driver has either.
const UNKNOWN_XID: u16 = 999;

/// Starts the thread. Loading the library and initialising it call the driver already, so they happen there too.
pub fn start(library: Option<PathBuf>, board: Arc<Board>) -> std::io::Result<()> {
    let thread = std::thread::Builder::new().name("nvml".into());
    thread.spawn(move || run(library.as_deref(), &board))?;
    Ok(())
}

fn run(library: Option<&Path>, board: &Board) {
    let path = library.unwrap_or(Path::new(LIBRARY));
    let off = |error: &dyn std::fmt::Display| {
        let library = path.display();
        tracing::info!(%library, %error, "no NVML: GPUs are not watched (--nvml-library names the library)");
    };
    let nvml = match Nvml::builder().lib_path(path.as_os_str()).init() {
        Ok(nvml) => nvml,
        Err(error) => return off(&error),
    };
    match nvml.device_count() {
        Ok(0) => return off(&"NVML sees no GPU"),
        Ok(gpus) => tracing::info!(library = %path.display(), gpus, "watching GPUs"),
        Err(error) => return off(&error),
    }
    watch(&nvml, board);
}

fn watch(nvml: &Nvml, board: &Board) -> ! {
    let mut events = Events::register(nvml);
    let mut failed = false;
    loop {
        let due = Instant::now() + PERIOD;
        match read::gpus(nvml) {
            Ok(gpus) => {
                let xid = events.counts();
                board.put(Instant::now(), Sample { gpus, xid });
                failed = false;
            }
            Err(error) if !failed => {
                tracing::warn!(%error, "NVML does not say which GPUs there are: values grow stale");
                failed = true;
            }
            Err(_) => {}
        }
        events.wait(due);
    }
}

/// XID events of all GPUs that report them.
struct Events<'a> {
    set: Option<EventSet<'a>>,
    counts: BTreeMap<u16, u32>,
}

impl<'a> Events<'a> {
    fn register(nvml: &'a Nvml) -> Self {
        let set = register(nvml);
        if let Err(error) = &set {
            tracing::info!(%error, "XID events are not reported here");
        }
        Self {
            set: set.ok().flatten(),
            counts: BTreeMap::new(),
        }
    }

    /// Nothing where no GPU reports events.
    fn counts(&self) -> Option<BTreeMap<u16, u32>> {
        self.set.is_some().then(|| self.counts.clone())
    }

    /// Counts events until `due`. NVML keeps one code for all events between two waits, so somebody should wait always.
    fn wait(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let millis = u32::try_from(left.as_millis()).unwrap_or(0);
            match self.set.as_ref().map(|set| set.wait(millis)) {
                Some(Ok(event)) => {
                    if let Some(code) = event.event_data {
                        self.count(&code);
                    }
                }
                Some(Err(NvmlError::Timeout)) => std::thread::sleep(left.min(PAUSE)),
                // A lost GPU, or no events here: only the next sample is waited for.
                Some(Err(_)) | None => std::thread::sleep(left),
            }
        }
    }

    fn count(&mut self, code: &XidError) {
        let code = match code {
            XidError::Value(code) => u16::try_from(*code).unwrap_or(UNKNOWN_XID).min(UNKNOWN_XID),
            XidError::Unknown => UNKNOWN_XID,
        };
        let count = self.counts.entry(code).or_default();
        *count = count.saturating_add(1);
        tracing::warn!(xid = code, "a GPU reports an XID error");
    }
}

/// A set with all GPUs that report XID events; nothing when none does.
fn register(nvml: &Nvml) -> Result<Option<EventSet<'_>>, NvmlErrorWithSource> {
    let mut set = None;
    for index in 0..nvml.device_count()? {
        let Ok(device) = nvml.device_by_index(index) else {
            continue;
        };
        let supported = device.supported_event_types();
        if supported.is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR)) {
            let before = match set.take() {
                Some(set) => set,
                None => nvml.create_event_set()?,
            };
            set = Some(device.register_events(EventTypes::CRITICAL_XID_ERROR, before)?);
        }
    }
    Ok(set)
}
