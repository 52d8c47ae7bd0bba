//! The seam to the cloud: node groups in the planner's words. `eks` is the real implementation; tests talk to a
//! simulated AWS through it. An error says which operation failed, and has a small static class.

pub mod eks;

use std::collections::BTreeSet;
use std::future::Future;

use planner::observed::{CloudErrorClass, CloudObserved};
use planner::plan::CloudAction;

/// Verbs on node groups. All values are absolute, all names and tokens derived: repeating a verb is harmless.
pub trait NodeGroups: Send + Sync + 'static {
    /// Everything of ours, and the catalogue entries that the pools name. All or nothing: a partial read is an error.
    fn describe(
        &self,
        catalog: &CatalogQuery,
    ) -> impl Future<Output = Result<CloudObserved, CloudError>> + Send;

    /// Carries out one action. Before anything destructive, reads the group uncached and checks its owner's tag.
    fn execute(&self, action: &CloudAction) -> impl Future<Output = Result<(), CloudError>> + Send;
}

/// What the pools name: types and subnets to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogQuery {
    pub instance_types: BTreeSet<String>,
    pub subnets: BTreeSet<String>,
}

/// A failed operation on the cloud.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {resource}: {message}")]
pub struct CloudError {
    /// The AWS API operation, such as `CreateNodegroup`.
    pub operation: &'static str,
    /// What it was about: a group, a template, `-`.
    pub resource: String,
    pub class: CloudErrorClass,
    /// AWS's code and message.
    pub message: String,
}

impl CloudError {
    /// What back-off and metric labels look at.
    #[must_use]
    pub fn class(&self) -> CloudErrorClass {
        self.class
    }
}
