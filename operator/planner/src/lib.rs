//! The pure core of the operator: `plan_fleet(&Observed, now) -> FleetPlan`, and from a plan and its outcome the
//! status to write. No async, no clock, no I/O, no failure: an invalid spec is a plan too (no actions, a reason).
//!
//! ```text
//! observed.rs   the snapshot a decision is made from          view.rs   its indices
//! accept.rs     may the spec be used?
//! scaling.rs    how many replicas a model wants: its spec, or autoscaler/: from the load of its replicas
//! placement.rs  replicas per (model, pool), by priority
//! shrink.rs     which pods and nodes go when replicas are lowered
//! pool/         pods -> nodes -> node groups: grow, cordon, remove, create, delete, adopt
//! account.rs    node groups without an owner
//! model.rs      one model's part; workload/: its Kubernetes objects
//! fleet.rs      all of it, once, in order
//! sent.rs       what the executor sent and an inventory may not show yet
//! plan.rs       what to do, with typed reasons and next_check
//! status/       (observed, plan, outcome) -> status, conditions, events
//! price.rs capacity.rs name.rs   prices as dated data, what fits where, derived names
//! ```

pub mod accept;
pub mod account;
pub mod autoscaler;
pub mod capacity;
pub mod fleet;
pub mod model;
pub mod name;
pub mod observed;
pub mod placement;
pub mod plan;
pub mod pool;
pub mod price;
pub mod scaling;
#[cfg(feature = "seeded-bugs")]
pub mod seeded;
pub mod sent;
pub mod shrink;
pub mod status;
pub mod view;
pub mod workload;

pub use fleet::plan_fleet;
