//! POST infer: admit, read, parse, queue, encode.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use hyper::body::Incoming;

use super::body::{self, Reply};
use super::score::{self, Counts};
use super::state::Serving;
use crate::cascade::Stages;
use crate::protocol::{ApiError, request, response};
use crate::trace::Door;

const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

pub async fn infer(
    serving: &Arc<Serving>,
    model: &str,
    version: Option<&str>,
    request: Request<Incoming>,
) -> Result<Reply, ApiError> {
    let started = Instant::now();
    serving.load.offered();
    let mut counts = Counts::of(serving.trace(Door::Http, request.headers(), started));
    let found = serving.catalog.find(model, version).and_then(|ready| {
        counts.ready = Some(Arc::clone(&ready));
        let stages = Stages::of(&serving.catalog, ready)?;
        Ok((stages, check(request.headers())?))
    });
    let result = match found {
        Ok((stages, header_length)) => {
            admitted(serving, (&stages, header_length), request, started, &mut counts).await
        }
        Err(error) => {
            refuse(request).await;
            Err(error)
        }
    };
    score::count(serving, result.as_ref().map(|_| ()), &counts, started);
    result
}

/// What can be refused by the head alone; gives back the length of the JSON part, if it is named.
fn check(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
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
        Some(length) => Ok(length),
        None => Ok(None),
    }
}

/// Takes what a refused client still sends, unless it waits for our leave to send.
async fn refuse(request: Request<Incoming>) {
    if !request.headers().contains_key(header::EXPECT) {
        body::discard(request.into_body()).await;
    }
}

async fn admitted(
    serving: &Arc<Serving>,
    (stages, header_length): (&Stages, Option<usize>),
    request: Request<Incoming>,
    arrived: Instant,
    counts: &mut Counts,
) -> Result<Reply, ApiError> {
    let limit = serving.max_body_bytes;
    let size = body::declared(request.body()).unwrap_or(0);
    if size > limit as u64 {
        return Err(body::too_large(limit));
    }
    let size = usize::try_from(size).unwrap_or(limit);
    let permit = match serving.admission.admit(size, serving.request_timeout) {
        Ok(permit) => permit,
        Err(error) => {
            refuse(request).await;
            return Err(error);
        }
    };
    let time = serving.body_timeout;
    let bytes = body::read(request.into_body(), &permit, limit, time).await?;
    let mut parsed = request::parse(&bytes, header_length, stages.models())?;
    drop(bytes);
    let (id, wanted) = (parsed.id.take(), std::mem::take(&mut parsed.outputs));
    let answered = score::answer(serving, stages, parsed, (permit, arrived), counts).await?;
    let answer = response::encode(&stages.ready.model, id.as_deref(), &wanted, &answered.outputs)?;
    counts.items = answered.items;
    Ok(success(answer))
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
