//! Faults: what a test wants to go wrong, set, listed and removed while the simulator runs.
//!
//! ```text
//! describe   JSON -> Description, or which field is wrong and what it may be
//! Faults     which fault meets this call, launch or group? (count, chance, time, names)
//! refusal    kind + service -> the error that the service itself answers
//! mark       what the journal says of it
//! ```
//!
//! *Invariant:* the chance of each fault is a generator of its own, seeded with the account's seed and the
//! fault's number: faults change nothing in what the account would have chosen without them.

pub mod describe;
pub mod kind;
pub mod mark;
pub mod refusal;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};

use crate::clock::SimTime;
use crate::glob;
use crate::wire::Service;
use describe::{Description, Target};
use kind::Kind;
use mark::{Event, Mark};

#[derive(Debug)]
struct Fault {
    id: u64,
    description: Description,
    until: Option<SimTime>,
    hits: u32,
    /// Launches that a partial fulfilment has let through.
    let_through: u32,
    chance: StdRng,
}

impl Fault {
    fn is_active(&self, now: SimTime) -> bool {
        self.description.count.is_none_or(|count| self.hits < count)
            && self.until.is_none_or(|until| now < until)
    }

    fn to_json(&self, now: SimTime) -> Value {
        let mut shown: Map<String, Value> = self.description.text.clone();
        shown.insert("id".to_owned(), json!(self.id));
        shown.insert("hits".to_owned(), json!(self.hits));
        shown.insert("active".to_owned(), json!(self.is_active(now)));
        Value::Object(shown)
    }
}

/// A fault that meets something now.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub id: u64,
    pub kind: Kind,
}

impl Hit {
    pub fn mark(&self) -> Mark {
        Mark {
            id: Some(self.id),
            kind: self.kind.name(),
        }
    }
}

/// What a fault looks at in a call.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    pub service: Service,
    pub action: &'a str,
    /// Names of resources in its parameters.
    pub names: Vec<String>,
}

#[derive(Debug, Default)]
pub struct Faults {
    list: Vec<Fault>,
    last_id: u64,
    seed: u64,
    events: Vec<Event>,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    pub fn set(&mut self, description: Description, now: SimTime) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.list.push(Fault {
            id,
            until: description.lasts.map(|lasts| now.after(lasts)),
            description,
            hits: 0,
            let_through: 0,
            chance: StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(id)),
        });
        id
    }

    /// Whether there was such a fault.
    pub fn remove(&mut self, id: u64) -> bool {
        let before = self.list.len();
        self.list.retain(|f| f.id != id);
        self.list.len() < before
    }

    pub fn contains(&self, id: u64) -> bool {
        self.list.iter().any(|f| f.id == id)
    }

    /// In the order in which they were set; those that are spent or over stay until they are removed.
    pub fn ids(&self) -> Vec<u64> {
        self.list.iter().map(|f| f.id).collect()
    }

    pub fn list(&self, now: SimTime) -> Vec<Value> {
        self.list.iter().map(|f| f.to_json(now)).collect()
    }

    pub fn show(&self, id: u64, now: SimTime) -> Value {
        let found = self.list.iter().find(|f| f.id == id);
        found.map_or(Value::Null, |f| f.to_json(now))
    }

    /// The first fault that meets this call.
    pub fn hit_call(&mut self, seen: &Seen<'_>, now: SimTime) -> Option<Hit> {
        self.hit(now, |description| match &description.target {
            Target::Calls {
                service,
                action,
                resource,
            } => {
                service.is_none_or(|s| s == seen.service)
                    && action.is_none_or(|a| a == seen.action)
                    && description.kind.applies_to(seen.service, seen.action)
                    && (matches!(description.kind, Kind::NotFound)
                        || resource
                            .as_ref()
                            .is_none_or(|r| seen.names.iter().any(|name| glob::matches(r, name))))
            }
            Target::Groups(_) => false,
        })
    }

    /// The resources that a fault is about: a pattern of their names.
    pub fn resource(&self, id: u64) -> Option<&str> {
        match &self.list.iter().find(|f| f.id == id)?.description.target {
            Target::Calls { resource, .. } => resource.as_deref(),
            Target::Groups(group) => Some(group),
        }
    }

    /// The first fault of the wanted kinds that meets this node group, or a node of it.
    pub fn hit_group(&mut self, group: &str, now: SimTime, wanted: impl Fn(&Kind) -> bool) -> Option<Hit> {
        self.hit(now, |description| match &description.target {
            Target::Groups(pattern) => wanted(&description.kind) && glob::matches(pattern, group),
            Target::Calls { .. } => false,
        })
    }

    /// Takes one launch off a partial fulfilment; the fault when it lets no more through.
    pub fn hit_partial(&mut self, group: &str, now: SimTime) -> Option<Hit> {
        for fault in self.list.iter_mut().filter(|f| f.is_active(now)) {
            let (Kind::PartialLaunch { launched, .. }, Target::Groups(pattern)) =
                (&fault.description.kind, &fault.description.target)
            else {
                continue;
            };
            if !glob::matches(pattern, group) {
                continue;
            }
            if fault.let_through < *launched {
                fault.let_through += 1;
                return None;
            }
            fault.hits += 1;
            return Some(Hit {
                id: fault.id,
                kind: fault.description.kind.clone(),
            });
        }
        None
    }

    fn hit(&mut self, now: SimTime, matches: impl Fn(&Description) -> bool) -> Option<Hit> {
        for fault in &mut self.list {
            if !fault.is_active(now) || !matches(&fault.description) {
                continue;
            }
            let drawn = |p: f64| fault.chance.random::<f64>() < p;
            if !fault.description.probability.is_none_or(drawn) {
                continue;
            }
            fault.hits += 1;
            return Some(Hit {
                id: fault.id,
                kind: fault.description.kind.clone(),
            });
        }
        None
    }

    /// Counts hits of a fault that meets things when it is set.
    pub fn count(&mut self, id: u64, hits: usize) {
        if let Some(fault) = self.list.iter_mut().find(|f| f.id == id) {
            fault.hits = u32::try_from(hits).unwrap_or(u32::MAX);
        }
    }

    /// Takes a hit back that made no difference.
    pub fn miss(&mut self, id: u64) {
        if let Some(fault) = self.list.iter_mut().find(|f| f.id == id) {
            fault.hits -= 1;
        }
    }

    /// The longest that a read may lie behind now; None: reads are current.
    pub fn longest_lag(&self, now: SimTime) -> Option<Duration> {
        let lags = self
            .list
            .iter()
            .filter(|f| f.is_active(now))
            .filter_map(|f| match f.description.kind {
                Kind::Stale { lag } => Some(lag),
                _ => None,
            });
        lags.max()
    }

    /// Keeps for the journal what a fault did to something that is not a call.
    pub fn note(&mut self, event: Event) {
        self.events.push(event);
    }

    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests;
