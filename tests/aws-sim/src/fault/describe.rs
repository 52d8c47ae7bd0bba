//! A fault as a test writes it down, in JSON. Whatever is wrong with it is said with the name of the field
//! and what it may be.

use std::time::Duration;

use serde_json::{Map, Value};

use super::kind::{ACTIONS, CALL_KINDS, Connection, GROUP_KINDS, Kind, Shortage, service_of};
use crate::assumptions::{HEALTH_ISSUE_CODES, LONGEST_STALE};
use crate::fields::Fields;
use crate::wire::Service;

#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    Calls {
        service: Option<Service>,
        /// None: every action.
        action: Option<&'static str>,
        /// Pattern of a name in the call.
        resource: Option<String>,
    },
    /// Pattern of node group names.
    Groups(String),
}

#[derive(Clone, Debug)]
pub struct Description {
    pub kind: Kind,
    pub target: Target,
    /// Over after so many hits.
    pub count: Option<u32>,
    pub probability: Option<f64>,
    /// Over after this time.
    pub lasts: Option<Duration>,
    /// As it was written.
    pub text: Map<String, Value>,
}

/// Longest time that a fault may speak of: a week.
const LONGEST: f64 = 604_800.0;
const SERVICES: &[&str] = &["eks", "ec2", "autoscaling"];

impl Description {
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        let mut fields = Fields::parse(body)?;
        let text = fields.all();
        let kinds = [CALL_KINDS, GROUP_KINDS].concat();
        let name = fields
            .one_of("kind", &kinds)?
            .ok_or_else(|| format!("kind: is missing; it is one of {}", kinds.join(", ")))?;
        let kind = kind(name, &mut fields)?;
        let target = if CALL_KINDS.contains(&name) {
            calls(&kind, &mut fields)?
        } else {
            Target::Groups(fields.text("group")?.unwrap_or_else(|| "*".to_owned()))
        };
        // A DEGRADED group is so from the order on: there is nothing to count or to draw.
        let counted = !matches!(kind, Kind::Degraded { .. });
        let drawn = counted && !matches!(kind, Kind::PartialLaunch { .. });
        let count = if counted {
            fields.whole("count", 1..=u32::MAX)?
        } else {
            None
        };
        let probability = if drawn {
            fields.number("probability", 0.0..=1.0)?
        } else {
            None
        };
        let lasts = fields.seconds("forSeconds", 0.001..=LONGEST)?;
        fields.finish(&format!("a {name} fault"))?;
        if matches!(kind, Kind::Truncated { page_size: 0 }) && count.is_none() {
            return Err("count: is needed with pageSize 0, or a caller that follows the pages never ends; a whole number of at least 1".to_owned());
        }
        Ok(Self {
            kind,
            target,
            count,
            probability,
            lasts,
            text,
        })
    }
}

fn kind(name: &str, fields: &mut Fields) -> Result<Kind, String> {
    Ok(match name {
        "throttled" => Kind::Throttled,
        "internal-error" => Kind::InternalError,
        "unavailable" => Kind::Unavailable,
        "access-denied" => Kind::AccessDenied,
        "expired-token" => Kind::ExpiredToken,
        "conflict" => Kind::Conflict,
        "timeout-before-commit" => Kind::TimeoutBeforeCommit(connection(fields)?),
        "timeout-after-commit" => Kind::TimeoutAfterCommit(connection(fields)?),
        "not-found" => Kind::NotFound,
        "truncated" => Kind::Truncated {
            page_size: fields.whole("pageSize", 0..=1000)?.map_or(1, |n| n as usize),
        },
        "stale" => Kind::Stale {
            lag: fields.required_seconds("lagSeconds", 1.0..=LONGEST_STALE.as_secs_f64())?,
        },
        "never-joins" => Kind::NeverJoins,
        "no-gpus" => Kind::NoGpus {
            late_by: fields.seconds("delaySeconds", 0.0..=LONGEST)?,
        },
        "late-delivery" => Kind::LateDelivery {
            delay: fields.required_seconds("delaySeconds", 0.001..=LONGEST)?,
        },
        "partial-launch" => Kind::PartialLaunch {
            launched: fields
                .whole("launched", 0..=u32::MAX)?
                .ok_or("launched: is missing; it is how many launches succeed, a whole number")?,
            reason: match fields.one_of("reason", &["no-capacity", "no-addresses", "vcpu-quota"])? {
                Some("no-addresses") => Shortage::Addresses,
                Some("vcpu-quota") => Shortage::VcpuQuota,
                _ => Shortage::Capacity,
            },
        },
        "create-failed" => Kind::CreateFailed {
            code: issue(fields, "NodeCreationFailure")?,
        },
        "delete-failed" => Kind::DeleteFailed {
            code: issue(fields, "Ec2SecurityGroupDeletionFailure")?,
        },
        _ => Kind::Degraded {
            code: issue(fields, "AutoScalingGroupInvalidConfiguration")?,
        },
    })
}

fn connection(fields: &mut Fields) -> Result<Connection, String> {
    Ok(match fields.one_of("connection", &["held", "cut"])? {
        Some("cut") => Connection::Cut,
        _ => Connection::Held,
    })
}

fn issue(fields: &mut Fields, default: &'static str) -> Result<&'static str, String> {
    Ok(fields.one_of("code", HEALTH_ISSUE_CODES)?.unwrap_or(default))
}

fn calls(kind: &Kind, fields: &mut Fields) -> Result<Target, String> {
    let service = fields.one_of("service", SERVICES)?.and_then(Service::from_scope);
    let actions: Vec<&'static str> = ACTIONS.iter().flat_map(|(_, a)| a.iter().copied()).collect();
    let action = fields
        .one_of("action", &[&["*"], &actions[..]].concat())?
        .ok_or_else(|| format!("action: is missing; it is * or one of {}", actions.join(", ")))?;
    let action = (action != "*").then_some(action);
    let of = action.and_then(service_of);
    if let (Some(asked), Some(of), Some(action)) = (service, of, action)
        && asked != of
    {
        return Err(format!(
            "service: {action} is an action of {}, not of {}",
            of.name(),
            asked.name()
        ));
    }
    let meets = kind.actions();
    if let Some(action) = action.filter(|a| !meets.contains(a)) {
        return Err(format!(
            "action: {} does not apply to {action}; it applies to {}",
            kind.name(),
            meets.join(", ")
        ));
    }
    if action.is_none()
        && !meets
            .iter()
            .any(|a| service.is_none() || service_of(a) == service)
    {
        return Err(format!(
            "service: {} applies to no action of it; it applies to {}",
            kind.name(),
            meets.join(", ")
        ));
    }
    Ok(Target::Calls {
        service,
        action,
        resource: fields.text("resource")?,
    })
}
