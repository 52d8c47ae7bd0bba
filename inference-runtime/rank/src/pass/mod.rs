//! Passes over the IR, one a file, each testable alone.

pub mod domain;
pub mod fold;
pub mod hoist;
pub mod prune;
pub mod rows;
pub mod shape;
pub mod vocabulary;
