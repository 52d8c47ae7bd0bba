//! Asks, immediately before a mutation leaves, whether it may still be sent (the lease's deadline).

use std::fmt;
use std::sync::Arc;

use aws_sdk_eks::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_eks::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_eks::error::BoxError;

/// `true`: mutations may be sent now. Must not block.
pub type SendGuard = Arc<dyn Fn() -> bool + Send + Sync>;

/// Interceptor of every mutating call. It runs once per attempt, after signing: a retry that the deadline has overtaken
/// is not sent either.
#[derive(Clone)]
pub(super) struct Fence(SendGuard);

/// The guard said no.
#[derive(Debug, thiserror::Error)]
#[error("lease lost: not sent")]
pub(super) struct LeaseLost;

impl Fence {
    pub(super) fn new(guard: SendGuard) -> Self {
        Self(guard)
    }
}

impl fmt::Debug for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fence")
    }
}

impl Intercept for Fence {
    fn name(&self) -> &'static str {
        "Fence"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if (self.0)() { Ok(()) } else { Err(LeaseLost.into()) }
    }
}
