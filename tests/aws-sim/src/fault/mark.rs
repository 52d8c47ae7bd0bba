//! What the journal says of faults.

use serde::Serialize;

/// The fault that an entry of the journal met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mark {
    /// Number of a fault that was set; a change by hand has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    pub kind: &'static str,
}

/// Something a fault did by itself, outside any call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub mark: Mark,
    /// `Launch`, `JoinCluster`, ...: what went wrong, in the way of an action.
    pub action: &'static str,
    /// The instance or node group that it happened to.
    pub resource: String,
    pub message: String,
}
