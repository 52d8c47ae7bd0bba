//! One call on the locked account, with the fault that meets it.
//!
//! ```text
//! no fault       run
//! refusal        the error of the service, nothing runs
//! timeout        nothing runs, or it runs; either way nobody answers
//! not found      run on a copy without the resources; a write that would not have missed them runs for real
//! stale          run on the account as it was
//! truncated      run, with small pages
//! ```

use super::{Call, Payload, Service, Session, is_mutation};
use crate::account::Account;
use crate::clock::Clock;
use crate::error::ApiResult;
use crate::fault::kind::{Connection, Kind};
use crate::fault::{Hit, Seen, refusal};
use crate::server::Access;

/// Who calls, and what every call looks at.
pub(super) struct Caller<'a> {
    pub clock: &'a Clock,
    pub service: Service,
    pub access: &'a Access,
    pub access_key: &'a str,
}

/// What came of a call.
pub(super) struct Done {
    /// The answer of the verb, whether the caller hears it or not; None: it did not run.
    pub outcome: Option<ApiResult<Payload>>,
    /// First resource that the call was checked on.
    pub resource: String,
    pub hit: Option<Hit>,
    /// Whether the account was changed.
    pub committed: bool,
}

impl Done {
    /// How the caller is left without an answer.
    pub fn silence(&self) -> Option<(u64, Connection)> {
        let hit = self.hit.as_ref()?;
        match hit.kind {
            Kind::TimeoutBeforeCommit(connection) | Kind::TimeoutAfterCommit(connection) => {
                Some((hit.id, connection))
            }
            _ => None,
        }
    }
}

pub(super) fn run(account: &mut Account, caller: &Caller<'_>, call: Call) -> Done {
    let seen = Seen {
        service: caller.service,
        action: call.action(),
        names: call.names(),
    };
    let now = account.now();
    let Some(hit) = account.faults.hit_call(&seen, now) else {
        return plainly(account, caller, call, None);
    };
    let mutation = is_mutation(call.action());
    if let Some(error) = refusal::refusal(&hit.kind, caller.service, call.action()) {
        return Done {
            outcome: Some(Err(error)),
            resource: String::new(),
            hit: Some(hit),
            committed: false,
        };
    }
    match hit.kind {
        Kind::TimeoutBeforeCommit(_) => Done {
            outcome: None,
            resource: String::new(),
            hit: Some(hit),
            committed: false,
        },
        Kind::NotFound => {
            let pattern = account.faults.resource(hit.id).map(str::to_owned);
            let mut view = account.view();
            view.hide(call.action(), pattern.as_deref());
            let (outcome, resource) = on(&mut view, caller, call.clone(), None);
            if mutation && outcome.is_ok() {
                account.faults.miss(hit.id);
                return plainly(account, caller, call, None);
            }
            Done {
                outcome: Some(outcome),
                resource,
                hit: Some(hit),
                committed: false,
            }
        }
        Kind::Stale { lag } => {
            let (outcome, resource) = on(&mut account.past(lag), caller, call, None);
            Done {
                outcome: Some(outcome),
                resource,
                hit: Some(hit),
                committed: false,
            }
        }
        _ => plainly(account, caller, call, Some(hit)),
    }
}

/// On the account as it is.
fn plainly(account: &mut Account, caller: &Caller<'_>, call: Call, hit: Option<Hit>) -> Done {
    let mutation = is_mutation(call.action());
    let page_size = match &hit {
        Some(Hit {
            kind: Kind::Truncated { page_size },
            ..
        }) => Some(*page_size),
        _ => None,
    };
    let (outcome, resource) = on(account, caller, call, page_size);
    Done {
        committed: mutation && outcome.is_ok(),
        outcome: Some(outcome),
        resource,
        hit,
    }
}

fn on(
    account: &mut Account,
    caller: &Caller<'_>,
    call: Call,
    page_size: Option<usize>,
) -> (ApiResult<Payload>, String) {
    let mut session = Session {
        account,
        clock: caller.clock,
        service: caller.service,
        access: caller.access,
        access_key: caller.access_key,
        resource: None,
        page_size,
    };
    let outcome = call.run(&mut session);
    (outcome, session.resource.unwrap_or_default())
}
