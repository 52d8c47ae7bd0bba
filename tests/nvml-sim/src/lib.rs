//! A simulated NVML library: the `nvml*` symbols that `nvml-wrapper` calls, and no GPU behind them.
//!
//! It stands in for `libnvidia-ml.so.1` where there is no GPU: the runtime loads it with `--nvml-library`. Every device
//! has "simulated" in its name, and the runtime passes that on.
//!
//! **Without a script** there is one GPU, as large as an A10G. Its utilization is the busy share of the host process's
//! engine threads (those whose name starts with `engine-`), by their CPU time between two questions. The rest
//! is made up from it: power between 60 W and 300 W, temperature between 30 and 75 degrees, clocks between 210 and
//! 1,710 MHz, memory in use 450 MiB (a CUDA context) and the process's resident memory.
//!
//! **With a script**, a JSON file named by `PINNACE_NVML_SIM_SCRIPT`, it acts a timeline:
//!
//! ```json
//! {
//!   "gpus": 2,
//!   "steps": [
//!     {"atSeconds": 0, "utilization": 100},
//!     {"atSeconds": 10, "hang": true},
//!     {"atSeconds": 20, "hang": false, "lost": [1], "xid": 79}
//!   ]
//! }
//! ```
//!
//! A step sets fields from its second on, until a later step sets them again; see [`script::Step`] for the fields.
//! Seconds count from `nvmlInit`. The file is read again when it changes, and its events are then told anew; so a
//! test may write one step after the other instead of waiting for seconds. Replace it by renaming: a file that is
//! no script is ignored, with a word on standard error, and fails `nvmlInit`.

mod engines;
mod ffi;
mod gpu;
mod library;
mod script;
