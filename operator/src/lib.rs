//! The shell of the operator: the only place with I/O.
//!
//! ```text
//! observe    stores of the cluster's objects          inventory   what AWS has, read by a task of its own
//!   -> fleet   one tick: a snapshot, one plan of everything, its parts to whoever applies them
//!     -> apply   one part: effects in order, each with a deadline, then one status patch, then events
//! load       what replicas say of their load, read by a task of its own
//! lease      who may send       launch   how fast nodes may be bought       admin, metrics, telemetry, args
//! cloud      the seam to AWS
//! ```

pub mod admin;
pub mod apply;
pub mod args;
pub mod cloud;
pub mod fleet;
pub mod inventory;
pub mod launch;
pub mod lease;
pub mod load;
pub mod metrics;
pub mod observe;
pub mod telemetry;
