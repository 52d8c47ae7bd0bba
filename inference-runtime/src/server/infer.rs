//! POST infer: admit, read, parse, queue, encode.

use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use super::body::{self, Reply};
use super::route::{check_name, loading};
use super::state::{Ready, Serving};
use crate::metrics::Labels;
use crate::protocol::{ApiError, request, response};
use crate::worker::{Done, Job};

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Counts for the metrics of one request.
#[derive(Default)]
struct Counts {
    pairs: u64,
    items: u64,
}

pub async fn infer(
    serving: &Serving,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let started = Instant::now();
    serving.load.offered();
    let mut counts = Counts::default();
    let result = match check(serving, model, version, request.headers()) {
        Ok((ready, header_length)) => admitted(serving, ready, header_length, request, &mut counts).await,
        Err(error) => {
            refuse(request).await;
            Err(error)
        }
    };
    match &result {
        Ok(_) => serving.load.answered(started.elapsed()),
        Err(error) if error.retry_after.is_some() => serving.load.refused(),
        Err(_) => {}
    }
    let outcome = result.as_ref().map_or_else(|error| error.outcome, |_| "ok");
    let labels = Labels {
        model: serving.model_name.clone(),
        version: serving.model_version.clone(),
        outcome,
    };
    serving.metrics.requests.get_or_create(&labels).inc();
    if counts.pairs > 0 {
        serving.metrics.pairs.get_or_create(&labels).inc_by(counts.pairs);
    }
    if counts.items > 0 {
        serving.metrics.items.get_or_create(&labels).inc_by(counts.items);
    }
    serving
        .metrics
        .request_seconds
        .observe(started.elapsed().as_secs_f64());
    result
}

/// What can be refused by the head alone.
fn check<'a>(
    serving: &'a Serving,
    model: &str,
    version: Option<&str>,
    headers: &HeaderMap,
) -> Result<(&'a Ready, Option<usize>), ApiError> {
    check_name(serving, model, version)?;
    let ready = serving.model().ok_or_else(loading)?;
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        let message = format!("Content-Encoding {encoding:?} is not served; send the body as it is");
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "invalid",
            message,
        ));
    }
    let length = headers
        .get(HEADER_LENGTH)
        .map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    match length {
        Some(None) => Err(ApiError::invalid(
            "Inference-Header-Content-Length is not a number of bytes",
        )),
        Some(length) => Ok((ready, length)),
        None => Ok((ready, None)),
    }
}

/// Takes what a refused client still sends, unless it waits for our leave to send.
async fn refuse(request: Request<Incoming>) {
    if !request.headers().contains_key(header::EXPECT) {
        body::discard(request.into_body()).await;
    }
}

async fn admitted(
    serving: &Serving,
    ready: &Ready,
    header_length: Option<usize>,
    request: Request<Incoming>,
    counts: &mut Counts,
) -> Result<Reply, ApiError> {
    let arrived = Instant::now();
    let declared = body::declared(request.body());
    let limit = serving.max_body_bytes;
    let size = declared.unwrap_or(0);
    if size > limit as u64 {
        return Err(body::too_large(limit));
    }
    let size = usize::try_from(size).unwrap_or(limit);
    let mut permit = match serving.admission.admit(size, serving.request_timeout) {
        Ok(permit) => permit,
        Err(error) => {
            refuse(request).await;
            return Err(error);
        }
    };
    let time = serving.body_timeout;
    let bytes = body::read(request.into_body(), declared, &mut permit, limit, time).await?;
    let parsed = request::parse(&bytes, header_length, &ready.model)?;
    drop(bytes);
    counts.pairs = parsed.batch.rows as u64;
    // Only the client's own deadline may be shorter than ours; it counts from the first byte here.
    let timeout = parsed
        .timeout
        .map_or(serving.request_timeout, |own| own.min(serving.request_timeout));
    let (answer, answered) = oneshot::channel();
    let job = Job {
        batch: parsed.batch,
        deadline: arrived + timeout,
        queued: Instant::now(),
        permit,
        answer,
    };
    ready.workers.push(job);
    let done = answered
        .await
        .map_err(|_| ApiError::internal("the engine gave no answer"))??;
    observe(serving, &done);
    let answer = response::encode(&ready.model, parsed.id.as_deref(), &parsed.outputs, &done.outputs)?;
    counts.items = counts.pairs;
    Ok(success(answer))
}

fn observe(serving: &Serving, done: &Done) {
    serving.admission.observe_run(done.ran);
    serving.metrics.queue_seconds.observe(done.waited.as_secs_f64());
    serving.metrics.compute_seconds.observe(done.ran.as_secs_f64());
}

fn success(answer: response::Answer) -> Reply {
    let binary = answer.header_length;
    let content_type = if binary.is_some() {
        "application/octet-stream"
    } else {
        "application/json"
    };
    let mut reply = body::reply(StatusCode::OK, content_type, answer.body);
    if let Some(length) = binary {
        reply
            .headers_mut()
            .insert(HEADER_LENGTH, HeaderValue::from(length));
    }
    reply
}
