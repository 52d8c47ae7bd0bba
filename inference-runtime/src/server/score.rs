//! What HTTP and gRPC have in common once a request is parsed: queue, engine, counts.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::state::Serving;
use crate::admission::Permit;
use crate::engine::{Batch, Outputs};
use crate::metrics::{Labels, ModelLabels};
use crate::model::top_k::Asked;
use crate::priority::Priority;
use crate::protocol::request::Terms;
use crate::protocol::{ApiError, check};
use crate::queue::Job;
use crate::ready::Ready;
use crate::shadow::Shadowed;
use crate::worker::Done;

/// Counts for the metrics of one request.
#[derive(Default)]
pub struct Counts {
    /// The model, once it is known which one is meant.
    pub ready: Option<Arc<Ready>>,
    pub pairs: u64,
    pub items: u64,
}

/// Scores a batch; its deadline counts from `arrived`, when its first byte was here.
pub async fn score(
    serving: &Arc<Serving>,
    ready: &Arc<Ready>,
    (batch, terms): (Batch, Terms),
    permit: Arc<Permit>,
    arrived: Instant,
) -> Result<Done, ApiError> {
    // Only the client's own deadline may be shorter than ours.
    let timeout = terms
        .timeout
        .map_or(serving.request_timeout, |own| own.min(serving.request_timeout));
    let (deadline, queued) = (arrived + timeout, Instant::now());
    let shadowed = Shadowed::of(serving, ready, &batch);
    if terms.priority != Priority::default() {
        permit.uses_classes();
    }
    let now = match &ready.inline {
        Some(inline) => inline.try_run(&serving.queue, batch, (queued, deadline), &permit),
        None => Err(batch),
    };
    let done = match now {
        Ok(ran) => {
            let done = ran?;
            serving.metrics.inline.inc();
            done
        }
        Err(batch) => {
            let (answer, answered) = oneshot::channel();
            serving.queue.push(Job {
                ready: Arc::clone(ready),
                batch,
                priority: terms.priority,
                deadline,
                queued,
                permit,
                answer,
                shadow: false,
            })?;
            answered
                .await
                .map_err(|_| ApiError::internal("the engine gave no answer"))??
        }
    };
    serving.admission.observe_run(done.ran / done.shared_by.max(1));
    serving.metrics.queue_seconds.observe(done.waited.as_secs_f64());
    serving.metrics.compute_seconds.observe(done.ran.as_secs_f64());
    serving.metrics.batch_requests.observe(f64::from(done.shared_by));
    if let Some(shadowed) = shadowed {
        shadowed.send(serving, ready, &done.outputs);
    }
    Ok(done)
}

/// Cuts the outputs down to what a request asked for; gives how many of its `pairs` are answered.
pub fn best(
    serving: &Serving,
    ready: &Ready,
    asked: Option<&Asked>,
    outputs: &mut Outputs,
    pairs: u64,
) -> Result<u64, ApiError> {
    let Some(cut) = check::best(&ready.model, asked, outputs)? else {
        return Ok(pairs);
    };
    if cut.dropped > 0 {
        let labels = ModelLabels {
            model: ready.model.name.clone(),
            version: ready.model.version.clone(),
        };
        let dropped = serving.metrics.dropped.get_or_create(&labels);
        dropped.inc_by(cut.dropped as u64);
    }
    Ok(cut.items as u64)
}

/// Counts a request that is answered, or refused.
pub fn count(serving: &Serving, result: Result<(), &ApiError>, counts: &Counts, started: Instant) {
    let took = started.elapsed();
    match result {
        Ok(()) => serving.load.answered(took),
        Err(error) if error.retry_after.is_some() => serving.load.refused(),
        Err(_) => {}
    }
    let outcome = result.map_or_else(|error| error.outcome, |()| "ok");
    let (model, ready) = match &counts.ready {
        Some(ready) => (ready.model.name.clone(), Some(Arc::clone(ready))),
        None => serving.catalog.only().unwrap_or_default(),
    };
    let labels = Labels {
        model,
        version: ready
            .as_ref()
            .map_or_else(String::new, |ready| ready.model.version.clone()),
        outcome,
    };
    serving.metrics.requests.get_or_create(&labels).inc();
    if counts.pairs > 0 {
        serving.metrics.pairs.get_or_create(&labels).inc_by(counts.pairs);
    }
    if counts.items > 0 {
        serving.metrics.items.get_or_create(&labels).inc_by(counts.items);
    }
    serving.metrics.request_seconds.observe(took.as_secs_f64());
    if let Some(ready) = ready {
        ready.statistics.answered(result.is_ok(), took);
    }
}
