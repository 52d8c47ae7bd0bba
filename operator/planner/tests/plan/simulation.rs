//! The planner and an executor against a cluster and an AWS account in memory: what a crash, a lost call or old news at every
//! single effect comes to, and whole lives from a seed.

#[cfg(feature = "seeded-bugs")]
mod bugs;
mod crash;
mod owners;
mod scenario;
mod seeds;
mod summary;
