//! Cloud actions: from which inventory, with which permission, at what cost in launch tokens.

use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use planner::observed::{CloudErrorClass, CloudMutations};
use planner::plan::CloudAction;
use planner::sent::Sent;

use super::{Applier, ApplyError};
use crate::cloud::NodeGroups;
use crate::fleet::Round;

/// No effect is in flight longer (reliability programme R4). A verb is a few calls of at most 15 s each.
const VERB_TIMEOUT: Duration = Duration::from_secs(30);

/// `--cloud-mutations` once more, where it cannot be forgotten: the planner withholds such actions and says so.
fn allowed(mutations: CloudMutations, action: &CloudAction) -> bool {
    match mutations {
        CloudMutations::All => true,
        CloudMutations::GrowOnly => !destroys(action),
        CloudMutations::None => false,
    }
}

/// Ends instances, or deletes something.
#[must_use]
pub fn destroys(action: &CloudAction) -> bool {
    match action {
        CloudAction::Create(_) | CloudAction::Grow { .. } | CloudAction::Adopt { .. } => false,
        CloudAction::Retract { .. }
        | CloudAction::Remove { .. }
        | CloudAction::DeleteGroup { .. }
        | CloudAction::DeleteTemplate { .. }
        | CloudAction::Release { .. } => true,
    }
}

impl<C: NodeGroups> Applier<C> {
    /// `Ok(false)`: not sent, because the plan is older than the last change of the same thing, or the world moved.
    pub(super) async fn execute(&self, round: &Round, action: &CloudAction) -> Result<bool, ApplyError> {
        let Some(cloud) = &round.observed.cloud else {
            return Ok(false);
        };
        let target = action.target().to_owned();
        if !self.sent().allows(action, round.at, cloud.read_at) {
            return Ok(false);
        }
        if !allowed(round.observed.settings.mutations, action) {
            tracing::error!(
                verb = action.verb(),
                target,
                "withheld: --cloud-mutations does not allow it"
            );
            return Ok(false);
        }
        if !self.permission.may_send() {
            return Err(ApplyError::LeaseLost);
        }
        tracing::info!(
            verb = action.verb(),
            target,
            epoch = self.permission.epoch(),
            "sent to AWS"
        );
        if let CloudAction::Grow { group, desired, .. } = action {
            let had = cloud.groups.get(group).map_or(0, planner::view::requested);
            self.bucket.take(desired.saturating_sub(had), Instant::now());
        }
        let result = tokio::time::timeout(VERB_TIMEOUT, self.cloud.execute(action)).await;
        let result = result.unwrap_or_else(|_| {
            Err(crate::cloud::CloudError {
                operation: action.verb(),
                resource: target,
                class: CloudErrorClass::Timeout,
                message: format!("no answer within {} s", VERB_TIMEOUT.as_secs()),
            })
        });
        // Whatever came of it, only an inventory from after this moment speaks of it.
        let lost = |error: &crate::cloud::CloudError| {
            matches!(
                error.class(),
                CloudErrorClass::Timeout | CloudErrorClass::Unavailable
            )
        };
        let answered = !result.as_ref().is_err_and(lost);
        self.sent().note(action, round.at, Timestamp::now(), answered);
        self.inventory.refresh();
        match result {
            Ok(()) => {
                self.metrics.called(action.verb(), None);
                Ok(true)
            }
            Err(error) => {
                self.metrics.called(action.verb(), Some(error.class()));
                match error.class() {
                    CloudErrorClass::Conflict | CloudErrorClass::NotFound => {
                        tracing::info!(verb = action.verb(), reason = %error, "not done; planned again");
                        Ok(false)
                    }
                    _ => Err(ApplyError::Cloud(error)),
                }
            }
        }
    }

    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
