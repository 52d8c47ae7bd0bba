//! What HTTP and gRPC have in common once a request is parsed: queue, engine, counts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::sync::oneshot;

use super::state::Serving;
use crate::admission::Permit;
use crate::cascade::{self, Stages};
use crate::engine::{Batch, Outputs};
use crate::metrics::{Labels, ModelLabels};
use crate::model::top_k::Asked;
use crate::priority::Priority;
use crate::protocol::request::InferRequest;
use crate::protocol::{ApiError, check};
use crate::queue::{self, Job};
use crate::ready::Ready;
use crate::shadow::Shadowed;
use crate::trace::{Ended, Run, Trace};
use crate::worker::Done;

/// Counts for the metrics of one request, and its trace.
#[derive(Default)]
pub struct Counts {
    /// The model, once it is known which one is meant.
    pub ready: Option<Arc<Ready>>,
    /// What feeds it, and the pairs of that.
    pub light: Option<(Arc<Ready>, u64)>,
    pub pairs: u64,
    pub items: u64,
    pub trace: Option<Arc<Trace>>,
}

impl Counts {
    /// Of a request of which nothing else is known yet.
    pub fn of(trace: Option<Arc<Trace>>) -> Self {
        Self {
            trace,
            ..Self::default()
        }
    }
}

/// What a request is answered.
pub struct Answered {
    pub outputs: Outputs,
    /// Candidates that are in them.
    pub items: u64,
    /// Held until the answer is encoded.
    pub permit: Arc<Permit>,
}

/// How each run of a request goes.
struct Way {
    priority: Priority,
    deadline: Instant,
    permit: Arc<Permit>,
    trace: Option<Arc<Trace>>,
}

struct Ran {
    done: Done,
    shadowed: Option<Shadowed>,
    /// On this thread.
    inline: bool,
}

/// Scores what a request asks for, and cuts it down to that. Its deadline counts from when its first byte was here. `counts` has
/// the pairs that were to be scored, also where it fails.
pub async fn answer(
    serving: &Arc<Serving>,
    stages: &Stages,
    request: InferRequest,
    (permit, arrived): (Arc<Permit>, Instant),
    counts: &mut Counts,
) -> Result<Answered, ApiError> {
    let (ready, terms) = (&stages.ready, request.terms);
    if let Some(trace) = &counts.trace {
        trace.asks(terms.priority);
    }
    // Only the client's own deadline may be shorter than ours.
    let timeout = terms
        .timeout
        .map_or(serving.request_timeout, |own| own.min(serving.request_timeout));
    if terms.priority != Priority::default() {
        permit.uses_classes();
    }
    let way = Way {
        priority: terms.priority,
        deadline: arrived + timeout,
        permit,
        trace: counts.trace.clone(),
    };
    let work = (request.batch, request.top_k);
    let (mut outputs, asked, took) = match (&stages.light, request.rest) {
        (Some(light), Some(rest)) => {
            counts.light = Some((Arc::clone(light), work.0.rows as u64));
            let feeding = feed(serving, light, work, &way).await;
            let (fed, places) = feeding.map_err(|error| cascade::of_light(&light.model, error))?;
            let scored = match rest.kept(&ready.model, &places) {
                Ok(work) => score(serving, ready, work, (&way, counts)).await,
                Err(error) => Err(error),
            };
            // A shadow of the light model runs after both, so that the heavy one never waits for it.
            if let Some(shadowed) = fed.shadowed {
                shadowed.send(serving, light, &fed.done.outputs);
            }
            let (outputs, asked, took) = scored?;
            (outputs, asked, took + share(&fed.done))
        }
        _ => score(serving, ready, work, (&way, counts)).await?,
    };
    serving.admission.observe_run(took);
    let items = best(serving, ready, asked.as_ref(), &mut outputs, counts.pairs)?;
    Ok(Answered {
        outputs,
        items,
        permit: way.permit,
    })
}

/// Runs the model that answers; gives the request's part of the engines' time too.
async fn score(
    serving: &Arc<Serving>,
    ready: &Arc<Ready>,
    (batch, asked): (Batch, Option<Asked>),
    (way, counts): (&Way, &mut Counts),
) -> Result<(Outputs, Option<Asked>, Duration), ApiError> {
    counts.pairs = batch.rows as u64;
    if batch.rows == 0 {
        // A light model left none.
        return Ok((cascade::nothing(&ready.model), asked, Duration::ZERO));
    }
    let ran = run(serving, ready, batch, way).await?;
    let took = share(&ran.done);
    if let Some(shadowed) = ran.shadowed {
        shadowed.send(serving, ready, &ran.done.outputs);
    }
    Ok((ran.done.outputs, asked, took))
}

/// A request's part of the engines' time for its run.
fn share(done: &Done) -> Duration {
    done.engaged / done.shared_by.max(1)
}

/// Runs the light model of a cascade; gives the places of the candidates that it leaves, the best first.
async fn feed(
    serving: &Arc<Serving>,
    light: &Arc<Ready>,
    (batch, asked): (Batch, Option<Asked>),
    way: &Way,
) -> Result<(Ran, Vec<usize>), ApiError> {
    let ran = run(serving, light, batch, way).await?;
    let ranked = check::ranked(&light.model, asked.as_ref(), &ran.done.outputs)?;
    count_dropped(serving, light, ranked.dropped);
    if ran.inline {
        // Others whose requests this thread reads wait for one run, not for two.
        tokio::task::yield_now().await;
    }
    if Instant::now() >= way.deadline {
        return Err(queue::too_late());
    }
    Ok((ran, ranked.places))
}

/// Runs a batch, here or on an engine's thread.
async fn run(serving: &Arc<Serving>, ready: &Arc<Ready>, batch: Batch, way: &Way) -> Result<Ran, ApiError> {
    let queued = Instant::now();
    let shadowed = Shadowed::of(serving, ready, &batch);
    let now = match &ready.inline {
        Some(inline) => inline.try_run(&serving.queue, batch, (queued, way.deadline), &way.permit),
        None => Err(batch),
    };
    let inline = now.is_ok();
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
                priority: way.priority,
                deadline: way.deadline,
                queued,
                permit: Arc::clone(&way.permit),
                answer,
                shadow: false,
            })?;
            answered
                .await
                .map_err(|_| ApiError::internal("the engine gave no answer"))??
        }
    };
    if done.parts > 1 {
        serving.metrics.split.inc();
    }
    serving.metrics.queue_seconds.observe(done.waited.as_secs_f64());
    let infer = done.phases.infer.as_secs_f64();
    serving.metrics.compute_seconds.observe(infer);
    serving.metrics.batch_requests.observe(f64::from(done.shared_by));
    if let Some(trace) = &way.trace {
        trace.ran(Run {
            model: ready.model.name.clone(),
            queued,
            waited: done.waited,
            phases: done.phases,
            shared_by: done.shared_by,
        });
    }
    Ok(Ran {
        done,
        shadowed,
        inline,
    })
}

/// Cuts the outputs down to what a request asked for; gives how many of its `pairs` are answered.
fn best(
    serving: &Serving,
    ready: &Ready,
    asked: Option<&Asked>,
    outputs: &mut Outputs,
    pairs: u64,
) -> Result<u64, ApiError> {
    let Some(cut) = check::best(&ready.model, asked, outputs)? else {
        return Ok(pairs);
    };
    count_dropped(serving, ready, cut.dropped);
    Ok(cut.items as u64)
}

fn count_dropped(serving: &Serving, ready: &Ready, candidates: usize) {
    if candidates > 0 {
        let labels = ModelLabels {
            model: ready.model.name.clone(),
            version: ready.model.version.clone(),
        };
        let dropped = serving.metrics.dropped.get_or_create(&labels);
        dropped.inc_by(candidates as u64);
    }
}

/// Counts a request that is answered, or refused.
pub fn count(serving: &Serving, result: Result<(), &ApiError>, counts: &Counts, started: Instant) {
    let took = started.elapsed();
    serving.metrics.request_seconds.observe(took.as_secs_f64());
    let outcome = result.map_or_else(|error| error.outcome, |()| "ok");
    if let Some((light, pairs)) = &counts.light {
        let labels = labels(light, outcome);
        serving.metrics.pairs.get_or_create(&labels).inc_by(*pairs);
    }
    match (result, &counts.ready) {
        (Ok(()), Some(ready)) => {
            serving.load.answered(took);
            let look_up = || serving.metrics.counted(&labels(ready, "ok"));
            let counted = ready.answered.get_or_init(look_up);
            counted.requests.inc();
            counted.pairs.inc_by(counts.pairs);
            counted.items.inc_by(counts.items);
            ready.statistics.answered(true, took);
        }
        (Ok(()), None) => serving.load.answered(took),
        (Err(error), _) => count_failed(serving, error, counts, took),
    }
    if let (Some(traces), Some(trace)) = (&serving.traces, &counts.trace) {
        let (Labels { model, version, .. }, _) = meant(serving, counts, outcome);
        traces.end(Ended {
            trace: Arc::clone(trace),
            took,
            model,
            version,
            outcome,
            status: result.map_or_else(|error| error.status, |()| StatusCode::OK),
            pairs: counts.pairs,
            items: counts.items,
        });
    }
}

fn labels(ready: &Ready, outcome: &'static str) -> Labels {
    Labels {
        model: ready.model.name.clone(),
        version: ready.model.version.clone(),
        outcome,
    }
}

fn count_failed(serving: &Serving, error: &ApiError, counts: &Counts, took: Duration) {
    if error.retry_after.is_some() {
        serving.load.refused();
    }
    let (labels, ready) = meant(serving, counts, error.outcome);
    serving.metrics.requests.get_or_create(&labels).inc();
    if counts.pairs > 0 {
        serving.metrics.pairs.get_or_create(&labels).inc_by(counts.pairs);
    }
    if let Some(ready) = ready {
        ready.statistics.answered(false, took);
    }
}

/// What a request is counted under: the model that it means, or the only one.
fn meant(serving: &Serving, counts: &Counts, outcome: &'static str) -> (Labels, Option<Arc<Ready>>) {
    let (model, ready) = match &counts.ready {
        Some(ready) => (ready.model.name.clone(), Some(Arc::clone(ready))),
        None => serving.catalog.only().unwrap_or_default(),
    };
    let version = ready.as_ref().map(|ready| ready.model.version.clone());
    let labels = Labels {
        model,
        version: version.unwrap_or_default(),
        outcome,
    };
    (labels, ready)
}
