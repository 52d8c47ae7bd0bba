//! Shadows: a part of a model's requests go to a second model too, to see how it would rank. Nobody waits for that.
//!
//! A shadow runs when no request waits for an engine, and leaves one thread to requests where there are several. Its
//! answer is compared and thrown away: how many of the best candidates are the same, and how far the scores differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde::Deserialize;
use tokio::sync::oneshot;

use crate::engine::{Batch, Outputs};
use crate::metrics::ShadowLabels;
use crate::model::{ServedModel, ranking};
use crate::priority::Priority;
use crate::queue::Job;
use crate::ready::Ready;
use crate::server::Serving;

/// Candidates that are compared where the configuration names no `topK.k`.
const BEST: usize = 10;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ShadowConfig {
    /// Another version of the model, or another model.
    pub model: String,
    /// Of the requests.
    pub percent: f64,
}

impl ShadowConfig {
    pub fn check(&self) -> Result<(), String> {
        if self.percent > 0.0 && self.percent <= 100.0 {
            return Ok(());
        }
        Err(format!(
            "shadow.percent is {}; it is above 0 and at most 100, or leave shadow out",
            self.percent
        ))
    }

    /// Whether the request of that number (from 0) is one of them: as many as the percentage says, evenly spread.
    fn takes(&self, number: u64) -> bool {
        let until = |number: u64| (number as f64 * self.percent / 100.0).floor();
        until(number + 1) > until(number)
    }
}

/// Whether a model's own vocabularies have the ids, or default rows for them; these are put there.
fn admitted(model: &ServedModel, batch: &mut Batch) -> bool {
    let mut slots = batch.inputs.iter_mut().zip(&model.layout.slots);
    slots.all(|(tensor, slot)| {
        let rules = model.ids.of(&slot.spec.name);
        rules.is_none_or(|rules| rules.admit(&mut tensor.data).is_ok())
    })
}

/// Requests of a model that were looked at for its shadow.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A request that its shadow is to see too.
pub struct Shadowed {
    shadow: Arc<Ready>,
    batch: Batch,
    labels: ShadowLabels,
}

impl Shadowed {
    /// A copy of the request, if it is one for the shadow.
    pub fn of(serving: &Serving, ready: &Ready, batch: &Batch) -> Option<Self> {
        let config = ready.model.config.shadow.as_ref()?;
        if !config.takes(ready.shadowed.0.fetch_add(1, Ordering::Relaxed)) {
            return None;
        }
        let labels = |outcome| ShadowLabels {
            model: ready.model.name.clone(),
            shadow: config.model.clone(),
            outcome,
        };
        let Ok(shadow) = serving.catalog.other(&ready.model.name, &config.model) else {
            count(serving, labels("unavailable"));
            return None;
        };
        let alike = shadow.model.layout == ready.model.layout && shadow.model.ids.alike(&ready.model.ids);
        if !alike || shadow.id == ready.id {
            count(serving, labels("incompatible"));
            return None;
        }
        let mut batch = batch.clone();
        if !admitted(&shadow.model, &mut batch) {
            count(serving, labels("incompatible"));
            return None;
        }
        Some(Self {
            shadow,
            batch,
            labels: labels("compared"),
        })
    }

    /// Hands the request to the shadow, once it is answered.
    pub fn send(self, serving: &Arc<Serving>, ready: &Ready, outputs: &Outputs) {
        let Self {
            shadow,
            batch,
            labels,
        } = self;
        let own = scores(ready, outputs, batch.rows);
        let k = ready
            .model
            .top_k
            .as_ref()
            .and_then(|top_k| top_k.k)
            .unwrap_or(BEST);
        let (second, rows) = (Arc::clone(&shadow), batch.rows);
        let (answer, answered) = oneshot::channel();
        let queued = Instant::now();
        let taken = serving.queue.push_shadow(Job {
            ready: shadow,
            batch,
            priority: Priority::Low,
            deadline: queued + serving.request_timeout,
            queued,
            permit: serving.admission.uncounted(),
            answer,
            shadow: true,
        });
        if !taken {
            count(
                serving,
                ShadowLabels {
                    outcome: "skipped",
                    ..labels
                },
            );
            return;
        }
        let serving = Arc::clone(serving);
        tokio::spawn(async move {
            let outcome = match answered.await {
                Ok(Ok(done)) => match compare(&own, &scores(&second, &done.outputs, rows), k) {
                    Some((overlap, difference)) => {
                        serving.metrics.shadow_overlap.observe(overlap);
                        serving.metrics.shadow_difference.observe(difference);
                        "compared"
                    }
                    None => "incompatible",
                },
                Ok(Err(error)) if error.retry_after.is_some() => "skipped",
                Ok(Err(_)) | Err(_) => "failed",
            };
            count(&serving, ShadowLabels { outcome, ..labels });
        });
    }
}

fn count(serving: &Serving, labels: ShadowLabels) {
    serving.metrics.shadows.get_or_create(&labels).inc();
}

/// What ranks the candidates; nothing if that is no number for each.
fn scores(ready: &Ready, outputs: &Outputs, rows: usize) -> Vec<f64> {
    let found = match &ready.model.top_k {
        Some(top_k) => top_k.ranks(outputs, rows),
        None => outputs.tensors.first().and_then(|tensor| tensor.data.floats()),
    };
    found.unwrap_or_default()
}

/// The share of the `k` best that are the same, and the largest difference of a score. `None` when there is nothing to
/// compare.
fn compare(own: &[f64], theirs: &[f64], k: usize) -> Option<(f64, f64)> {
    if own.is_empty() || own.len() != theirs.len() {
        return None;
    }
    let k = k.clamp(1, own.len());
    let same = ranking::agreed(own, theirs, k);
    let pairs = own.iter().zip(theirs);
    let difference = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    Some((same as f64 / k as f64, difference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Data;
    use crate::model::warmup;
    use crate::protocol::request::tests::configured;

    #[test]
    fn as_many_as_the_percentage_says() {
        for (percent, of, taken) in [
            (100.0, 10, 10),
            (25.0, 100, 25),
            (12.5, 80, 10),
            (0.1, 10_000, 10),
        ] {
            let config = ShadowConfig {
                model: "m".into(),
                percent,
            };
            config.check().unwrap();
            let numbers: Vec<u64> = (0..of).filter(|number| config.takes(*number)).collect();
            assert_eq!(numbers.len(), taken, "{percent}");
        }
        for percent in [0.0, -1.0, 100.1, f64::NAN] {
            let config = ShadowConfig {
                model: "m".into(),
                percent,
            };
            assert!(config.check().unwrap_err().contains("shadow.percent"));
        }
    }

    #[test]
    fn a_shadow_has_vocabularies_of_its_own() {
        let of = |size: u64, policy: &str| {
            configured(&format!(
                "inputs: {{ids: {{vocabularies: [{size}], policies: [{policy}]}}}}"
            ))
        };
        let batch = |id: i64| {
            let mut batch = warmup::zeros(&of(1000, "refuse"), 1);
            batch.inputs[1].data = Data::I64(vec![id]);
            batch
        };
        assert!(admitted(&of(900, "refuse"), &mut batch(899)));
        assert!(!admitted(&of(900, "refuse"), &mut batch(950)));
        let mut replaced = batch(950);
        assert!(admitted(&of(900, "{defaultRow: 3}"), &mut replaced));
        assert_eq!(replaced.inputs[1].data, Data::I64(vec![3]));
    }

    #[test]
    fn overlap_and_difference() {
        let own = [0.9, 0.8, 0.1, 0.2];
        assert_eq!(compare(&own, &own, 2), Some((1.0, 0.0)));
        assert_eq!(
            compare(&own, &[0.9, 0.1, 0.1, 0.5], 2),
            Some((0.5, 0.7000000000000001))
        );
        assert_eq!(compare(&own, &[0.0; 4], 9), Some((1.0, 0.9)));
        assert_eq!(compare(&own, &own[..3], 2), None);
        assert_eq!(compare(&[], &[], 2), None);
    }
}
