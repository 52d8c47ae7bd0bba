//! The pure core of the operator: `plan_fleet(&Observed, now) -> FleetPlan`, and from a plan and its outcome the
//! status to write. No async, no clock, no I/O, no failure: an invalid spec is a plan too (no actions, a reason).
//!
//! ```text
//! observed.rs   the snapshot a decision is made from
//! fleet.rs      all models x all pools -> replicas per (model, pool), by priority
//! pool.rs       pods -> nodes -> node groups: grow, cordon, remove, create, delete, adopt
//! workload.rs   the Kubernetes objects of a model
//! plan.rs       what to do, with typed reasons and next_check
//! status.rs     (observed, plan, outcome) -> status and conditions
//! price.rs      prices as dated data
//! ```

pub mod fleet;
pub mod name;
pub mod observed;
pub mod plan;
pub mod status;
pub mod workload;

pub use fleet::plan_fleet;
