//! Who may send: one leader among the replicas, by a Lease. A lease is coordination, not a fence: what it guards is
//! harmless when it is late (absolute values, derived tokens). Its deadline is on this process's own monotonic clock and
//! is asked immediately before every mutation.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};

/// As in client-go's leader election: 15 s, renewed often enough to survive two failed renewals.
const DURATION: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(4);
/// Sending stops this long before others may take over, so that a request that is on its way has arrived.
const MARGIN: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("{operation} lease {name}")]
    Api {
        operation: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("{operation} lease {name}: no answer")]
    Timeout { operation: &'static str, name: String },
}

/// Asked before every mutation.
#[derive(Clone, Debug, Default)]
pub struct Permission(Arc<Mutex<Grant>>);

#[derive(Clone, Copy, Debug, Default)]
struct Grant {
    deadline: Deadline,
    /// `leaseTransitions` of the lease: tells the terms of leaders apart in the log.
    epoch: i32,
}

#[derive(Clone, Copy, Debug, Default)]
enum Deadline {
    #[default]
    Never,
    Until(Instant),
    Always,
}

impl Permission {
    /// For a process without leader election.
    #[must_use]
    pub fn always() -> Self {
        let permission = Self::default();
        permission.grant(Deadline::Always, 0);
        permission
    }

    /// Nothing more is sent by this process: the parts in flight end at their next effect.
    pub fn withdraw(&self) {
        self.lock().deadline = Deadline::Never;
    }

    /// The term of office that mutations are sent in.
    #[must_use]
    pub fn epoch(&self) -> i32 {
        self.lock().epoch
    }

    #[must_use]
    pub fn may_send(&self) -> bool {
        self.may_send_at(Instant::now())
    }

    fn may_send_at(&self, now: Instant) -> bool {
        match self.lock().deadline {
            Deadline::Never => false,
            Deadline::Until(deadline) => now < deadline,
            Deadline::Always => true,
        }
    }

    fn grant(&self, deadline: Deadline, epoch: i32) {
        *self.lock() = Grant { deadline, epoch };
    }

    fn lock(&self) -> MutexGuard<'_, Grant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The election of one process.
pub struct Election {
    api: Api<Lease>,
    name: String,
    holder: String,
    permission: Permission,
    /// The other holder's renewal that was seen last, and when it was first seen here.
    seen: Option<(LeaseSpec, Instant)>,
}

impl Election {
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str, permission: Permission) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            permission,
            seen: None,
        }
    }

    /// Returns when this process is the leader.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease cannot be taken"
                ),
            }
            tokio::time::sleep(RENEW / 2).await;
        }
    }

    /// Renews until the lease is lost, then returns.
    pub async fn hold(&mut self) {
        let mut deadline = Instant::now() + DURATION;
        loop {
            tokio::time::sleep(RENEW).await;
            let started = Instant::now();
            match self.attempt().await {
                Ok(true) => deadline = started + DURATION,
                Ok(false) => return,
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the lease is not renewed"
                ),
            }
            if Instant::now() >= deadline {
                return;
            }
        }
    }

    /// Gives the lease up, so that another replica need not wait for it to expire.
    pub async fn release(&mut self) {
        self.permission.withdraw();
        let Ok(Some(mut lease)) = self.get().await else {
            return;
        };
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|s| s.holder_identity.as_ref() == Some(&self.holder))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.replace(lease).await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the lease runs out by itself"
            );
        }
    }

    /// Takes or renews the lease; `false` when another process holds it.
    async fn attempt(&mut self) -> Result<bool, LeaseError> {
        let started = Instant::now();
        let now = MicroTime(Timestamp::now());
        let Some(mut lease) = self.get().await? else {
            let fresh = Lease {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.renewed(LeaseSpec::default(), now)),
            };
            return self.won(started, 1, self.create(fresh).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if !self.mine(&spec) && !self.expired(&spec, started) {
            return Ok(false);
        }
        let spec = self.renewed(spec, now);
        let epoch = spec.lease_transitions.unwrap_or(0);
        lease.spec = Some(spec);
        self.won(started, epoch, self.replace(lease).await)
    }

    /// A write that lost the race to another replica is no error.
    fn won(&self, started: Instant, epoch: i32, written: Result<(), LeaseError>) -> Result<bool, LeaseError> {
        match written {
            Ok(()) => {
                let deadline = Deadline::Until(started + DURATION - MARGIN);
                self.permission.grant(deadline, epoch);
                Ok(true)
            }
            Err(LeaseError::Api { source, .. }) if matches!(&*source, kube::Error::Api(s) if s.code == 409) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn mine(&self, spec: &LeaseSpec) -> bool {
        spec.holder_identity.as_ref() == Some(&self.holder)
    }

    /// Clocks of others are not trusted: a lease has run out when it stood unchanged for its duration by our clock.
    fn expired(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        if spec.holder_identity.as_deref().unwrap_or_default().is_empty() {
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == spec => {
                let seconds = spec.lease_duration_seconds.unwrap_or(15).clamp(1, 3600);
                now.duration_since(*since) > Duration::from_secs(seconds.unsigned_abs().into())
            }
            _ => {
                self.seen = Some((spec.clone(), now));
                false
            }
        }
    }

    fn renewed(&self, old: LeaseSpec, now: MicroTime) -> LeaseSpec {
        let mine = self.mine(&old);
        let transitions = old.lease_transitions.unwrap_or(0);
        LeaseSpec {
            acquire_time: if mine { old.acquire_time } else { Some(now.clone()) },
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            lease_transitions: Some(if mine { transitions } else { transitions + 1 }),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }

    async fn get(&self) -> Result<Option<Lease>, LeaseError> {
        self.call("get", self.api.get_opt(&self.name)).await
    }

    async fn create(&self, lease: Lease) -> Result<(), LeaseError> {
        let params = PostParams::default();
        self.call("create", self.api.create(&params, &lease))
            .await
            .map(drop)
    }

    async fn replace(&self, lease: Lease) -> Result<(), LeaseError> {
        let params = PostParams::default();
        self.call("renew", self.api.replace(&self.name, &params, &lease))
            .await
            .map(drop)
    }

    async fn call<T>(
        &self,
        operation: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        let name = self.name.clone();
        match tokio::time::timeout(CALL_TIMEOUT, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(LeaseError::Api {
                operation,
                name,
                source: Box::new(source),
            }),
            Err(_) => Err(LeaseError::Timeout { operation, name }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_ends_at_the_deadline() {
        let now = Instant::now();
        let permission = Permission::default();
        assert!(!permission.may_send_at(now));
        permission.grant(Deadline::Until(now + Duration::from_secs(10)), 7);
        assert!(permission.may_send_at(now + Duration::from_secs(9)));
        assert!(!permission.may_send_at(now + Duration::from_secs(10)));
        permission.withdraw();
        assert!(!permission.may_send_at(now) && permission.epoch() == 7);
        assert!(Permission::always().may_send_at(now));
    }
}
