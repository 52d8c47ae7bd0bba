//! A simulated AWS account with one EKS cluster, which the real AWS SDKs talk to through an endpoint URL.
//!
//! ```text
//! wire/*      HTTP in, one of three protocols -> verb, answer or error -> HTTP out
//!   iam         is the caller allowed?
//!   eks ec2 autoscaling   verbs on the account: pure state, virtual time
//!   fault       does something go wrong, because a test wants it to?
//!   journal     what was called, what came of it
//! account     timers: groups, instances, nodes grow up and go
//!   ledger      what it costs
//! cluster     node effects -> sandbox control socket and Kubernetes API
//! s3          read-only objects out of a directory
//! ```
//!
//! What is assumed about AWS stands in [`assumptions`]; how tests make things go wrong, in `FAULTS.md`.

pub mod account;
pub mod args;
pub mod assumptions;
pub mod autoscaling;
pub mod catalog;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod ec2;
pub mod eks;
pub mod error;
pub mod fault;
pub mod fields;
pub mod glob;
pub mod hold;
pub mod iam;
pub mod journal;
pub mod ledger;
pub mod node;
pub mod s3;
pub mod server;
pub mod wire;
