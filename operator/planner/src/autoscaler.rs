//! How many replicas a model should have: from what its replicas say of their load.
//!
//! ```text
//! load.rs        answers of the replicas -> those that count, how fresh they are, totals
//! signal.rs      one metric and the load -> a recommendation
//! window.rs      recommendations of the last minutes -> what may be followed now
//! ```
//!
//! The largest recommendation wins. Missing, old or impossible answers never take a replica away. Vocabulary and the
//! treatment of missing pods are those of the HorizontalPodAutoscaler (v2): what does not answer counts as idle when
//! replicas would be added and as busy when they would be taken away, and never turns the direction.

mod load;
mod signal;
#[cfg(test)]
mod tests;
mod window;

use crds::Reason;
use crds::autoscaling::Autoscaling;
use jiff::{SignedDuration, Timestamp};

use crate::observed::ModelLoad;
pub use load::Load;
pub use window::Memory;

/// What is decided from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    pub spec: &'a Autoscaling,
    pub load: Option<&'a ModelLoad>,
    /// Pods that serve now, and since when.
    pub ready: &'a [(&'a str, Timestamp)],
    /// Replicas that are asked for now.
    pub current: u32,
    /// Answers older than this do not count.
    pub max_age: SignedDuration,
    pub now: Timestamp,
}

/// How many replicas, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    pub desired: u32,
    /// Metrics by name, and what each asks for; `None`: it cannot be read.
    pub recommendations: Vec<(String, Option<u32>)>,
    pub fresh: Freshness,
    /// A metric that cannot be read though the replicas answer.
    pub unavailable: Option<String>,
    pub limited: Limited,
    /// For the next decision.
    pub memory: Memory,
    /// When a recommendation leaves the window and fewer replicas may be asked for.
    pub next_check: Option<Timestamp>,
}

/// How much is known of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// At least 80 % of those asked have answered lately.
    Fresh,
    Stale {
        answered: u32,
        asked: u32,
    },
    /// Replicas serve, and none was asked yet.
    Unasked,
    /// Nobody serves, so nobody can be asked.
    NobodyReady,
}

/// A bound that keeps the number from what the metrics ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    No,
    ByMinimum,
    ByMaximum,
}

impl Limited {
    #[must_use]
    pub fn reason(self) -> Reason {
        match self {
            Self::No => Reason::WithinBounds,
            Self::ByMinimum => Reason::TooFewReplicas,
            Self::ByMaximum => Reason::TooManyReplicas,
        }
    }
}

/// Decides. `memory`: of the decision before, if this process made one; without it the window starts from the current
/// number, so that a restart takes nothing away.
#[must_use]
pub fn decide(situation: &Situation, memory: Option<&Memory>) -> Decision {
    let Situation {
        spec, current, now, ..
    } = *situation;
    let load = Load::of(situation);
    let recommendations: Vec<_> = spec
        .metrics
        .iter()
        .map(|metric| (metric.name.clone(), signal::recommend(metric, spec, &load)))
        .collect();
    let known = recommendations.iter().filter_map(|(_, replicas)| *replicas);
    let all_known = recommendations.iter().all(|(_, replicas)| replicas.is_some());
    let mut asked = known.max().unwrap_or(current);
    if load.freshness() != Freshness::Fresh || !all_known {
        asked = asked.max(current);
    }
    let mut memory = memory.cloned().unwrap_or_else(|| Memory::starting(current, now));
    let (up, down) = (
        window::seconds(&spec.stabilization.scale_up),
        window::seconds(&spec.stabilization.scale_down),
    );
    memory.note(asked, now, up.max(down));
    let followed = memory.follow(current, now, (up, down));
    let bounds = (
        count(spec.min_replicas),
        count(spec.max_replicas).max(count(spec.min_replicas)),
    );
    let desired = followed.clamp(bounds.0, bounds.1);
    Decision {
        desired,
        unavailable: unavailable(&recommendations, &load),
        recommendations,
        fresh: load.freshness(),
        limited: match asked {
            asked if asked > bounds.1 => Limited::ByMaximum,
            asked if asked < bounds.0 => Limited::ByMinimum,
            _ => Limited::No,
        },
        next_check: memory.next_change(current, down),
        memory,
    }
}

fn unavailable(recommendations: &[(String, Option<u32>)], load: &Load) -> Option<String> {
    let unread = recommendations.iter().find(|(_, replicas)| replicas.is_none());
    unread
        .filter(|_| load.freshness() == Freshness::Fresh)
        .map(|(name, _)| name.clone())
}

/// A number of replicas of the API, which admission keeps at 0 or above.
pub(crate) fn count(replicas: i32) -> u32 {
    u32::try_from(replicas).unwrap_or(0)
}
